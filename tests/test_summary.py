"""What the summary says before a network is built is what the built network is."""

from __future__ import annotations

import dataclasses
import math

import keras
import numpy as np
import pytest
from scripts import output_of

from fcnseg.cli.summary import SummaryCommand
from fcnseg.config import PRESETS, ModelConfig, config_from_mapping
from fcnseg.errors import ConfigError, ModelError
from fcnseg.networks import model_summary
from fcnseg.networks.build import build_fcn

SMALL = ModelConfig(filters=(4, 8, 16))
SIZE = (8, 16, 24)
THICK = {
    "strides": ((1, 2, 2), (2, 2, 3)),
    "kernels": ((1, 3, 3), (3, 3, 3), (3, 1, 5)),
}
CONFIGS = {
    "default": (SMALL, SIZE),
    "concat, no norm": (dataclasses.replace(SMALL, skip="concat", norm="none"), SIZE),
    "thick slices": (dataclasses.replace(SMALL, **THICK), SIZE),
    "linear, group": (dataclasses.replace(SMALL, upsampling="linear", norm="group"), SIZE),
    "pyramid": (dataclasses.replace(SMALL, pyramid=2, coarse_input=True), SIZE),
    "residual": (dataclasses.replace(PRESETS["fcn_s"].model, filters=(4, 4, 8, 8)), SIZE),
    "valid": (dataclasses.replace(SMALL, padding="valid", widen="last"), (44, 48, 52)),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_counts_are_those_of_the_built_network(name):
    config, size = CONFIGS[name]
    summary = model_summary(config, num_classes=5, patch_size=size)
    model = build_fcn(config, num_classes=5, input_shape=size)
    assert summary.parameters == sum(math.prod(w.shape) for w in model.trainable_weights)
    assert summary.output_size == tuple(model.output_shape[1:4])
    assert summary.macs == sum(macs_of(layer) for layer in model.layers)
    built = {layer.name: layer for layer in model.layers}
    for each in summary.layers:
        layers = [built[name] for name in (each.name, f"{each.name}_norm") if name in built]
        assert (*each.size, each.channels) == tuple(layers[0].output.shape[1:])
        weights = [weight for layer in layers for weight in layer.trainable_weights]
        assert each.parameters == sum(math.prod(weight.shape) for weight in weights)


def macs_of(layer):
    """Multiply-adds of a layer: each weight of its kernel once a voxel, of the smaller side."""
    if not hasattr(layer, "kernel"):
        return 0
    is_transposed = isinstance(layer, keras.layers.Conv3DTranspose)
    voxels = (layer.input if is_transposed else layer.output).shape[1:4]
    return math.prod(voxels) * math.prod(layer.kernel.shape)


@pytest.mark.parametrize(
    ("changes", "period", "field"),
    [
        # Two levels: 5 voxels, the pool makes 6, two convolutions at 2 voxels a step 14, two 18.
        ({"filters": (2, 2)}, 2, 18),
        ({}, 4, None),
        ({"upsampling": "linear"}, 4, None),
        ({"residual_blocks": (1, 1, 1), "decoder_convolutions": 1}, 4, None),
        ({"kernels": ((3, 3, 1), (3, 3, 5), (3, 3, 3))}, 4, None),
        ({"strides": ((2, 2, 3), (2, 2, 2))}, 6, None),
    ],
)
def test_receptive_field_is_what_a_voxel_reaches(changes, period, field):
    """One voxel of a dark input lights up; how far along x that shows, on average over a period."""
    config = dataclasses.replace(SMALL, filters=(2, 2, 2), hu_window=(0.0, 1.0))
    config = dataclasses.replace(config, **changes)
    size = (4, 4, 96)
    model = build_fcn(config, num_classes=2)
    for layer in model.layers:
        if hasattr(layer, "kernel"):
            layer.kernel.assign(np.full(layer.kernel.shape, 0.05))  # so that nothing cancels
    hu = np.zeros((period, *size, 1), np.float32)
    for number in range(period):
        hu[number, 2, 2, 48 + number] = 1
    shows = model(hu, training=False).numpy().any(axis=(1, 2, 4))  # (period, x)
    expected = shows.sum() / period
    summary = model_summary(config, num_classes=2, patch_size=size)
    assert summary.receptive_field[2] == expected
    assert field is None or expected == field


def test_patch_that_does_not_fit_is_refused():
    with pytest.raises(ModelError, match="nearest that fit: 8 and 12"):
        model_summary(SMALL, num_classes=2, patch_size=(8, 8, 10))


def test_memory_grows_with_the_batch_and_shrinks_with_precision():
    def memory(**options):
        config = PRESETS["roth2018"].model
        return model_summary(
            config, num_classes=8, patch_size=(64, 96, 96), **options
        ).training_bytes

    weights = (
        16
        * model_summary(
            PRESETS["roth2018"].model, num_classes=8, patch_size=(64, 96, 96)
        ).parameters
    )
    assert memory(batch_size=4) - weights == 4 * (memory() - weights)
    assert 0.5 < memory(precision="mixed_bfloat16") / memory() < 0.65


# Trains a preset on one small patch and then on others, and prints by how many bytes the most that
# the process has held has grown.
TRAINING = """
import ctypes, sys
ctypes.CDLL(None).mallopt(-3, 2**16)  # M_MMAP_THRESHOLD: what is freed goes back at once
import fcnseg, numpy as np, tensorflow as tf
from fcnseg.config import PRESETS
from fcnseg.sampling import Batch
from fcnseg.training.compiled_model import build_compiled, make_state
from fcnseg.training.step import TrainingStep

name, batch, *size = sys.argv[1], *map(int, sys.argv[2:])
config = PRESETS[name]
model = build_compiled(config, class_names=["background", *map(str, range(7))])
make_state(model, size=(16, 16, 16), label_size=(16, 16, 16))
step = tf.function(TrainingStep(model).on_replica)

def peak_after_steps(batch, size):
    hu, label = np.zeros((batch, *size, 1), np.float32), np.zeros((batch, *size), np.uint8)
    for _ in range(3):
        step(Batch(tf.constant(hu), tf.constant(label), {})).numpy()
    lines = open("/proc/self/status").read().split("VmHWM:")
    return 1024 * int(lines[1].split()[0])

before = peak_after_steps(1, (16, 16, 16))
print("grown", peak_after_steps(batch, size) - before)
"""


@pytest.mark.slow
@pytest.mark.timeout(600)  # on a busy machine
@pytest.mark.parametrize("name", ["demo", "fcn_s"])
def test_memory_is_that_of_a_step_on_a_cpu(name):
    patches = PRESETS[name].patches

    def estimated(batch_size, size):
        return model_summary(
            PRESETS[name].model, num_classes=8, patch_size=size, batch_size=batch_size
        ).training_bytes

    found = output_of(TRAINING, name, patches.batch_size, *patches.size)
    expected = estimated(patches.batch_size, patches.size) - estimated(1, (16, 16, 16))
    assert expected / int(found.split("grown")[1]) == pytest.approx(1, abs=0.15)


def test_command_prints_the_summary_and_the_flags_of_a_plan(capsys):
    settings = config_from_mapping(
        {"model": {"filters": [4, 8, 16]}, "patches": {"size": [24, 64, 64], "batch_size": 3}}
    )
    SummaryCommand(config=settings).run()
    text = capsys.readouterr().out
    summary = model_summary(settings.model, num_classes=8, patch_size=(24, 64, 64), batch_size=3)
    assert f"parameters       {summary.parameters:,}\n" in text
    assert "with 3 patches a step" in text
    assert "flags" not in text
    SummaryCommand(config=settings, spacing_mm=(5.0, 1.0, 1.0)).run()
    flags = "--model.kernels 1 3 3 1 3 3 3 3 3 --model.strides 1 2 2 1 2 2"
    assert capsys.readouterr().out.endswith(f"flags            {flags}\n")
    with pytest.raises(ConfigError, match="spacing_mm must be three positive"):
        SummaryCommand(config=settings, spacing_mm=(0.0, 1.0, 1.0)).run()
