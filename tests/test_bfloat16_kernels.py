"""Kernels in bfloat16: the sums of their taps, and results near those in float32."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import scipy.ndimage
import tensorflow as tf
from small_models import in_bfloat16

from fcnseg.config import ModelConfig
from fcnseg.networks import bfloat16_kernels
from fcnseg.networks.bfloat16_kernels import round_kernels, rounded_kernel
from fcnseg.networks.build import build_fcn
from fcnseg.networks.layers.conv_batch_norm_act import ConvBatchNormAct
from fcnseg.networks.precision import for_inference, with_precision

NETWORKS = {
    "batch norm": ModelConfig(filters=(8, 16)),
    "leaky ReLU": ModelConfig(filters=(8, 16), activation="leaky_relu"),
    "flat kernels": ModelConfig(filters=(8, 16), kernels=((1, 3, 3), (3, 3, 3))),
    "residual blocks": ModelConfig(filters=(8, 16), residual_blocks=(1, 2)),
    "no norm": ModelConfig(filters=(8, 16), norm="none"),
}


def make_kernel(shape=(3, 3, 3, 8, 16)):
    return np.random.default_rng(0).normal(0, 0.1, shape).astype(np.float32)


def make_model(name):
    """A network whose batch norms have averages of their own."""
    keras.utils.set_random_seed(0)
    model = build_fcn(NETWORKS[name], num_classes=3)
    rng = np.random.default_rng(0)
    model.set_weights(
        [
            weight + rng.uniform(0, 0.2, weight.shape) * (weight.ndim == 1)
            for weight in model.get_weights()
        ]
    )
    return model


def make_windows():
    """HU in which neighbours are alike, as in scans."""
    noise = np.random.default_rng(0).normal(0, 1, (4, 16, 16, 16, 1))
    smooth = scipy.ndimage.gaussian_filter(noise, 2, axes=(1, 2, 3))
    return (smooth / smooth.std() * 100).astype(np.float32)


def test_the_sum_of_taps_stays():
    kernel = make_kernel()
    rounded = rounded_kernel(kernel, taps=(0, 1, 2))
    np.testing.assert_array_equal(rounded, in_bfloat16(rounded))
    largest = np.abs(kernel).max((0, 1, 2))

    def error(values):
        return np.abs((values - kernel).sum((0, 1, 2), dtype=np.float64)) / largest

    assert error(rounded).max() < 2**-8
    assert error(in_bfloat16(kernel)).max() > 2**-8
    assert (np.abs(rounded - kernel) <= 2**-7 * largest).all()


def test_a_rounded_kernel_stays():
    rounded = rounded_kernel(make_kernel(), taps=(0, 1, 2))
    np.testing.assert_array_equal(rounded_kernel(rounded, taps=(0, 1, 2)), rounded)


def test_taps_may_be_any_axes():
    kernel = make_kernel((1, 3, 2, 4, 5))
    expected = rounded_kernel(kernel, taps=(0, 1, 2)).transpose(4, 3, 0, 1, 2)
    found = rounded_kernel(kernel.transpose(4, 3, 0, 1, 2), taps=(2, 3, 4))
    np.testing.assert_array_equal(found, expected)


def test_a_kernel_of_one_tap_is_rounded_as_it_is():
    kernel = make_kernel((1, 1, 1, 8, 3))
    np.testing.assert_array_equal(rounded_kernel(kernel, taps=(0, 1, 2)), in_bfloat16(kernel))


@pytest.mark.parametrize("bias", [False, True])
def test_a_folded_norm_gives_what_it_gave(bias):
    layer = ConvBatchNormAct(4, 3, padding="same", use_bias=bias, nonlinearity="relu")
    windows = tf.constant(make_windows() / 100)
    layer.build(windows.shape)
    rng = np.random.default_rng(1)
    layer.set_weights([rng.uniform(0.1, 1, weight.shape) for weight in layer.get_weights()])
    expected = layer(windows, training=False).numpy()
    layer.fold()
    assert expected.std() > 0.1
    np.testing.assert_allclose(layer(windows, training=False), expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(layer.norm.scale_and_shift()[0], 1, rtol=2**-22)


@pytest.mark.parametrize("name", NETWORKS)
def test_results_are_nearer_to_those_in_float32(name, monkeypatch):
    """Computed in float32, as not each CPU has bfloat16."""
    model, windows = make_model(name), make_windows()

    def probabilities(network):
        return tf.nn.softmax(with_precision(network, "float32")(windows, training=False)).numpy()

    def error(network):
        return np.abs(probabilities(network) - probabilities(model)).mean()

    found = error(for_inference(model, "bfloat16"))
    monkeypatch.setattr(
        bfloat16_kernels, "rounded_kernel", lambda kernel, *, taps: in_bfloat16(kernel)
    )
    plain = error(for_inference(model, "bfloat16"))
    assert 0 < found < 0.9 * plain


def test_in_float32_nothing_is_rounded():
    model = make_model("batch norm")
    weights = model.get_weights()
    round_kernels(model)
    for before, after in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(after, before)


def test_the_network_itself_stays():
    model = with_precision(make_model("batch norm"), "mixed_bfloat16")
    weights = model.get_weights()
    for_inference(model, None)
    for before, after in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(after, before)
