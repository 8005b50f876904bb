"""The network: its exact size, its arithmetic, and that every option survives a file."""

from __future__ import annotations

import dataclasses
import re

import keras
import numpy as np
import pytest

from fcnseg.config import PRESETS, ModelConfig
from fcnseg.errors import ModelError
from fcnseg.networks import shapes
from fcnseg.networks.build import build_fcn, full_resolution
from fcnseg.networks.keras_compat import IS_KERAS_3
from fcnseg.networks.layers import HUWindow

SMALL = ModelConfig(filters=(4, 8, 16))
CICEK = PRESETS["unet3d_cicek"].model

# Each value of each option, one at a time, and a few that meet in the same code.
VARIANTS = {
    "default": SMALL,
    **{
        f"{field}={value}": dataclasses.replace(SMALL, **{field: value})
        for field, values in {
            "filters": [(4, 8), (6, 12, 24, 48)],
            "widen": ["last"],
            "skip": ["concat"],
            "padding": ["valid"],
            "norm": ["sync_batch", "instance", "group", "none"],
            "activation": ["leaky_relu"],
            "dropout": [0.5],
            "hu_window": [(-1000.0, 500.0)],
            "kernels": [((1, 3, 3), (3, 3, 3), (3, 1, 5))],
            "strides": [((1, 2, 2), (2, 2, 3))],
            "residual_blocks": [(1, 2, 2)],
            "decoder_convolutions": [1],
            "upsampling": ["linear"],
            "l2": [1e-3],
            "deep_supervision": [1],
            "pyramid": [2],
            "coarse_input": [True],
        }.items()
        for value in values
    },
    "cicek, small": dataclasses.replace(CICEK, filters=(4, 8, 16)),
    "fcn_s, small": dataclasses.replace(
        PRESETS["fcn_s"].model, filters=(4, 8, 12), residual_blocks=(1, 1, 2), deep_supervision=1
    ),
    "valid, thick slices": dataclasses.replace(
        SMALL,
        padding="valid",
        kernels=((1, 3, 3), (1, 3, 3), (3, 3, 3)),
        strides=((1, 2, 2), (2, 2, 2)),
        decoder_convolutions=1,
    ),
}


def make_hu(size, *, channels=1, seed=0):
    hu = np.random.default_rng(seed).integers(-1000, 1000, (2, *size, channels))
    return hu.astype(np.float32)


def input_size(config):
    return {"same": (8, 16, 24), "valid": (44, 48, 52)}[config.padding]


def make_input(config):
    return make_hu(input_size(config), channels=2 if config.coarse_input else 1)


def test_table_of_variants_is_complete():
    changed = {
        field.name
        for field in dataclasses.fields(ModelConfig)
        for config in VARIANTS.values()
        if getattr(config, field.name) != getattr(SMALL, field.name)
    }
    assert changed == {field.name for field in dataclasses.fields(ModelConfig)}


@pytest.mark.parametrize("name", VARIANTS)
def test_variant_survives_a_file(tmp_path, name):
    config = VARIANTS[name]
    keras.utils.set_random_seed(1)
    model = build_fcn(config, num_classes=3)
    hu = make_input(config)
    logits = model(hu, training=False).numpy()
    assert logits.shape == (2, *shapes.output_shape(config, hu.shape[1:4]), 3)
    assert logits.dtype == np.float32
    assert np.isfinite(logits).all()
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras", compile=False)
    np.testing.assert_array_equal(loaded(hu, training=False), logits)
    configs = [[layer.get_config() for layer in each.layers] for each in (loaded, model)]
    assert configs[0] == configs[1]
    if IS_KERAS_3:  # Keras 2 does not write again how layers of ours were built
        assert loaded.to_json() == model.to_json()


@pytest.mark.parametrize(
    "precision", ["mixed_bfloat16", pytest.param("mixed_float16", marks=pytest.mark.gpu)]
)
def test_mixed_precision_gives_float32_logits_close_to_float32(precision):
    config = dataclasses.replace(SMALL, filters=(4, 8))
    mixed = build_fcn(config, num_classes=3, precision=precision)
    full = build_fcn(config, num_classes=3)
    full.set_weights(mixed.get_weights())
    hu = make_hu((8, 8, 8))
    logits = mixed(hu)
    assert logits.dtype == "float32"
    assert mixed.get_layer("encoder_1_0").compute_dtype == precision.removeprefix("mixed_")
    assert mixed.get_layer("encoder_1_0").kernel.dtype == "float32"
    assert np.abs(logits - full(hu)).mean() < 0.02  # of logits of about 1


def test_cicek_has_the_size_of_the_released_network():
    model = build_fcn(CICEK, num_classes=8)
    assert sum(np.prod(weight.shape) for weight in model.trainable_weights) == 19_072_712
    scales_and_shifts = [w for w in model.trainable_weights if re.search("gamma|beta", w.name)]
    assert sum(np.prod(weight.shape) for weight in scales_and_shifts) == 6_464
    assert shapes.output_shape(CICEK, (116, 132, 132)) == (28, 44, 44)
    assert model.compute_output_shape((1, 116, 132, 132, 1)) == (1, 28, 44, 44, 8)
    with_bias = [layer.name for layer in model.layers if getattr(layer, "use_bias", False)]
    assert with_bias == ["encoder_0_0", "logits"]
    kernels = {
        layer.name: layer.kernel.shape[-2:]
        for layer in model.layers
        if isinstance(layer, keras.layers.Conv3D)
    }
    assert kernels["encoder_0_0"] == (1, 32)
    assert kernels["encoder_3_1"] == (256, 512)
    assert kernels["decoder_2_0"] == (256 + 512, 256)


def test_every_convolution_has_a_bias_where_nothing_normalises():
    model = build_fcn(VARIANTS["norm=none"], num_classes=3)
    convolutions = [layer for layer in model.layers if hasattr(layer, "kernel")]
    assert all(layer.use_bias for layer in convolutions)


@pytest.mark.parametrize("depth", [2, 3, 4])
@pytest.mark.parametrize("padding", ["same", "valid"])
def test_arithmetic_agrees_with_keras(depth, padding):
    """A size is refused if and only if pooling would drop a voxel or nothing would be left."""
    config = ModelConfig(filters=(1, 1, 1, 1)[:depth], padding=padding, norm="none")
    model = build_fcn(config, num_classes=2)
    accepted = 0
    for length in range(1, 120):
        try:
            (output, *_) = shapes.output_shape(config, (length,) * 3)
        except ModelError:
            continue
        accepted += 1
        assert model.compute_output_shape((1, length, length, length, 1))[1] == output
        assert (length - output) % 2 == 0
    step = 2 ** (depth - 1)
    smallest = {"same": [2, 4, 8], "valid": [18, 44, 92]}[padding][depth - 2]
    assert accepted == (119 - smallest) // step + 1


@pytest.mark.parametrize(
    ("config", "size", "message"),
    [
        (SMALL, (12, 10, 12), "input's y must fit .* 3 levels, got 10 voxels; .*fit: 8 and 12"),
        (SMALL, (12, 12, 3), "input's x .* got 3 voxels; nearest that fit: 4$"),
        (VARIANTS["pyramid=2"], (16, 8, 12), "input's z must|input's x .* 12 voxels; .*: 8 and 16"),
        (VARIANTS["strides=((1, 2, 2), (2, 2, 3))"], (2, 4, 9), "x .* 9 voxels; .*fit: 6 and 12$"),
        (CICEK, (116, 132, 131), "input's x .* got 131 voxels; nearest that fit: 124 and 132"),
    ],
)
def test_size_that_does_not_fit_is_refused(config, size, message):
    with pytest.raises(ModelError, match=message):
        shapes.output_shape(config, size)
    with pytest.raises(ModelError, match=message):
        build_fcn(config, num_classes=2, input_shape=size)


@pytest.mark.parametrize(
    ("name", "strides"),
    [
        ("default", [(1, 1, 1)]),
        ("deep_supervision=1", [(1, 1, 1), (2, 2, 2)]),
        ("fcn_s, small", [(1, 1, 1), (2, 2, 2)]),
        ("pyramid=2", [(1, 1, 1), (2, 2, 2)]),
        ("all at once", [(1, 1, 1), (1, 2, 2), (2, 2, 2), (4, 4, 4)]),
    ],
)
def test_training_sees_the_logits_of_coarser_levels(name, strides):
    together = dataclasses.replace(
        SMALL, strides=((1, 2, 2), (2, 2, 2)), deep_supervision=1, pyramid=3
    )
    config = {**VARIANTS, "all at once": together}[name]
    assert list(shapes.supervision_strides(config)) == strides
    model = build_fcn(config, num_classes=3, supervised=True)
    hu = make_hu((16, 16, 16))
    outputs = model(hu, training=False)
    full, *coarser = outputs if len(strides) > 1 else [outputs]
    sizes = [tuple(each.shape[1:4]) for each in (full, *coarser)]
    assert sizes == [tuple(16 // step for step in stride) for stride in strides]
    network = full_resolution(model)
    np.testing.assert_array_equal(network(hu, training=False), full)
    plain = build_fcn(config, num_classes=3)
    assert [w.shape for w in network.weights] == [w.shape for w in plain.weights]


def test_window_leaves_the_coarse_prediction_as_it_is():
    model = build_fcn(VARIANTS["coarse_input=True"], num_classes=2)
    hu = make_hu((4, 4, 4), channels=2)
    seen = model.get_layer("hu_window")(hu)
    np.testing.assert_array_equal(seen[..., 1], hu[..., 1])
    np.testing.assert_array_equal(seen[..., :1], HUWindow(*SMALL.hu_window)(hu[..., :1]))


def test_l2_adds_the_squares_of_all_kernels():
    model = build_fcn(VARIANTS["l2=0.001"], num_classes=2)
    kernels = [layer.kernel for layer in model.layers if hasattr(layer, "kernel")]
    squares = sum(float(np.square(kernel).sum()) for kernel in kernels)
    assert len(kernels) == 13
    assert float(sum(model.losses)) == pytest.approx(1e-3 * squares, rel=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kernels": ((3, 3, 3),)}, "kernels must have 3 entries for 3 levels, or none, got"),
        ({"strides": ((2, 2, 2),)}, "strides must have 2 entries for 3 levels, or none, got"),
        ({"kernels": ((3, 3, 2),) * 3}, "kernels must be odd along each axis, got"),
        ({"residual_blocks": (1, 1)}, "residual_blocks must have 3 entries"),
        ({"residual_blocks": (1, 1, 1), "widen": "last"}, "widen must be first where"),
        ({"deep_supervision": 2}, "deep_supervision must be at most 1, .*, got 2"),
        ({"residual_blocks": (1, 1, 1), "padding": "valid"}, "padding must be same where"),
        ({"deep_supervision": 1, "padding": "valid"}, "padding must be same where"),
        ({"pyramid": 2, "padding": "valid"}, "padding must be same where pyramid is 2"),
    ],
)
def test_levels_that_do_not_fit_together_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(SMALL, **changes)


def test_window_maps_hu_and_clips():
    window = HUWindow(-100.0, 300.0)
    hu = np.array([-1024, -100, 0, 100, 300, 3000], np.float32)
    np.testing.assert_allclose(window(hu), [0, 0, 0.25, 0.5, 1, 1])
    again = HUWindow.from_config(window.get_config())
    np.testing.assert_array_equal(again(hu), window(hu))


def test_window_keeps_its_precision_under_mixed_policies():
    model = build_fcn(SMALL, num_classes=2, precision="mixed_bfloat16")
    hu = np.array([[[[[101.0]]]], [[[[102.0]]]]])  # bfloat16 holds these as they are, not 0.602
    low, high = model.get_layer("hu_window")(hu).numpy().ravel()
    assert (low, high) == pytest.approx((0.602, 0.604), abs=1e-6)


def test_dropout_acts_in_training_only():
    model = build_fcn(VARIANTS["dropout=0.5"], num_classes=2)
    hu = make_hu((8, 8, 8))
    np.testing.assert_array_equal(model(hu, training=False), model(hu, training=False))
    assert (model(hu, training=True) != model(hu, training=True)).numpy().any()


def test_signal_keeps_its_size_without_normalisation():
    """He's initialisation, the transposed convolutions' own fan included."""
    keras.utils.set_random_seed(0)
    config = ModelConfig(filters=(16, 32, 64), norm="none", skip="concat")
    model = build_fcn(config, num_classes=8)
    taps = [model.get_layer(name).output for name in ("encoder_2_1_act", "up_1_act", "up_0_act")]
    below, *above = keras.Model(model.input, taps)(make_hu((16, 16, 16)))
    second_moments = [float(np.mean(np.square(values))) for values in (below, above[0])]
    assert second_moments[1] == pytest.approx(second_moments[0], rel=0.5)
