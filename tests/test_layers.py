"""The layers that are there for speed give what Keras's plain ones give, from the same weights."""

from __future__ import annotations

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from scripts import output_of

from fcnseg.networks.layers.conv_batch_norm_act import (
    ConvBatchNormAct,
    ConvTransposeBatchNormAct,
)
from fcnseg.networks.layers.normalization import BatchNormalization
from fcnseg.networks.layers.upsampling import LinearUpsampling, NonOverlappingConv3DTranspose

SHAPE = (2, 3, 4, 5, 6)  # (batch, z, y, x, channels)


def make_values(shape=SHAPE, *, seed=0):
    return np.random.default_rng(seed).normal(3, 2, shape).astype(np.float32)


def run(layer, values, *, training):
    """Output, and gradients of a loss of it, on the input and the trainable weights."""
    with tf.GradientTape() as tape:
        inputs = tf.convert_to_tensor(values)
        tape.watch(inputs)
        outputs = layer(inputs, training=training)
        loss = tf.reduce_sum(tf.cast(outputs, tf.float32) ** 3)
    weights = [tf.convert_to_tensor(w) for w in layer.weights]
    gradients = tape.gradient(loss, [inputs, *layer.trainable_variables])
    return [np.asarray(each) for each in (tf.cast(outputs, tf.float32), *gradients, *weights)]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("synchronized", [True, False])
def test_batch_normalization_is_that_of_keras(training, synchronized):
    """Outputs, gradients and moving averages."""
    # On one replica the same; Keras 2 averages another estimate of the variance where it is false.
    plain = keras.layers.BatchNormalization(momentum=0.9, synchronized=True)
    fused = BatchNormalization(momentum=0.9, synchronized=synchronized)
    for layer in (plain, fused):
        layer.build(SHAPE)
        layer.set_weights([make_values((6,), seed=seed) ** 2 for seed in range(4)])
    values = make_values()
    for ours, theirs in zip(
        run(fused, values, training=training), run(plain, values, training=training), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, rtol=2e-4, atol=2e-2)
    np.testing.assert_allclose(fused.get_weights()[2], plain.get_weights()[2], rtol=1e-5)
    np.testing.assert_allclose(fused.get_weights()[3], plain.get_weights()[3], rtol=1e-5)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("nonlinearity", ["relu", "leaky_relu", None])
@pytest.mark.parametrize(
    ("ours", "theirs", "kernel"),
    [
        (ConvBatchNormAct, keras.layers.Conv3D, {"kernel_size": 3, "padding": "same"}),
        (ConvBatchNormAct, keras.layers.Conv3D, {"kernel_size": (1, 3, 1), "strides": 2}),
        (
            ConvTransposeBatchNormAct,
            keras.layers.Conv3DTranspose,
            {"kernel_size": (1, 2, 2), "strides": (1, 2, 2)},
        ),
    ],
)
def test_one_layer_is_convolution_normalization_and_activation(
    training, nonlinearity, ours, theirs, kernel
):
    """Outputs, gradients on input and weights, and moving averages."""
    options = {"filters": 7, "use_bias": kernel["kernel_size"] == 3, **kernel}
    fused = ours(**options, momentum=0.9, nonlinearity=nonlinearity)
    fused.build(SHAPE)
    fused.set_weights(
        [make_values(weight.shape, seed=seed) ** 2 / 9 for seed, weight in enumerate(fused.weights)]
    )
    layers = [theirs(**options), keras.layers.BatchNormalization(momentum=0.9, synchronized=True)]
    if nonlinearity:
        layers.append(
            keras.layers.LeakyReLU(0.01) if "leaky" in nonlinearity else keras.layers.ReLU()
        )
    plain = keras.Sequential([keras.Input(SHAPE[1:]), *layers])
    plain.set_weights(fused.get_weights())
    values = make_values()
    assert tuple(fused.compute_output_shape(SHAPE))[1:] == plain.output_shape[1:]
    for mine, reference in zip(
        run(fused, values, training=training), run(plain, values, training=training), strict=True
    ):
        largest = np.abs(reference).max()
        np.testing.assert_allclose(mine, reference, rtol=0, atol=1e-4 * largest + 1e-3)


def test_frozen_batch_normalization_stays_as_it_is():
    layer = BatchNormalization()
    layer.build(SHAPE)
    layer.trainable = False
    before = layer.get_weights()
    outputs = layer(make_values(), training=True)
    np.testing.assert_allclose(outputs, layer(make_values(), training=False))
    for now, then in zip(layer.get_weights(), before, strict=True):
        np.testing.assert_array_equal(now, then)


@pytest.mark.parametrize("stride", [(2, 2, 2), (1, 2, 2), (1, 2, 3), (1, 1, 1)])
@pytest.mark.parametrize("use_bias", [True, False])
def test_block_convolution_is_the_transposed_convolution_of_keras(stride, use_bias):
    """Outputs and gradients."""
    bias = keras.initializers.RandomNormal(seed=1)
    options = {"strides": stride, "use_bias": use_bias, "bias_initializer": bias}
    plain = keras.layers.Conv3DTranspose(7, stride, **options)
    ours = NonOverlappingConv3DTranspose(7, stride, **options)
    for layer in (plain, ours):
        layer.build(SHAPE)
    ours.set_weights(plain.get_weights())
    values = make_values()
    assert tuple(ours.compute_output_shape(SHAPE)) == tuple(plain.compute_output_shape(SHAPE))
    for mine, theirs in zip(
        run(ours, values, training=True), run(plain, values, training=True), strict=True
    ):
        np.testing.assert_allclose(mine, theirs, rtol=1e-3, atol=1e-3 * np.abs(theirs).max())


def test_block_convolution_refuses_blocks_that_overlap():
    with pytest.raises(ValueError, match="strides must equal kernel_size"):
        NonOverlappingConv3DTranspose(4, 3, strides=2)


@pytest.mark.parametrize("stride", [(2, 2, 2), (1, 2, 3), (4, 1, 1)])
def test_linear_upsampling_is_interpolation_between_centres(stride):
    values = make_values()
    expected = values
    for axis, step in enumerate(stride, start=1):
        length = values.shape[axis]
        old = np.arange(length) + 0.5
        new = (np.arange(length * step) + 0.5) / step
        interpolate = functools.partial(np.interp, new, old)
        expected = np.apply_along_axis(interpolate, axis, expected)
    layer = LinearUpsampling(stride)
    np.testing.assert_allclose(layer(values), expected, rtol=1e-5, atol=1e-5)
    assert layer.compute_output_shape(SHAPE) == expected.shape


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    "layer",
    [
        BatchNormalization,
        ConvBatchNormAct,
        ConvTransposeBatchNormAct,
        NonOverlappingConv3DTranspose,
        LinearUpsampling,
    ],
)
def test_half_precision_comes_close(layer, training):
    options = {
        BatchNormalization: {},
        ConvBatchNormAct: {"filters": 4, "kernel_size": 3, "nonlinearity": "relu"},
        ConvTransposeBatchNormAct: {"filters": 4, "kernel_size": 2, "strides": 2},
        NonOverlappingConv3DTranspose: {"filters": 4, "kernel_size": 2, "strides": 2},
        LinearUpsampling: {"stride": (2, 2, 2)},
    }[layer]
    full, half = layer(**options), layer(**options, dtype="mixed_bfloat16")
    for each in (full, half):
        each.build(SHAPE)
        values = [make_values(weight.shape, seed=6) ** 2 for weight in each.weights]
        each.set_weights([each - 6 if each.ndim > 1 else each for each in values])
    outputs = half(make_values(), training=training)
    assert outputs.dtype == "bfloat16"
    expected = full(make_values(), training=training).numpy()
    error = np.abs(tf.cast(outputs, tf.float32) - expected).mean()
    assert error < 0.02 * np.abs(expected).max()  # bfloat16 has 8 bits


FUSED = """
import os
os.environ["ONEDNN_VERBOSE"] = "1"
from fcnseg.config import ModelConfig
from fcnseg.networks.build import build_fcn
import tensorflow as tf

for activation in ("relu", "leaky_relu"):
    config = ModelConfig(filters=(8, 16, 32), activation=activation)
    network = build_fcn(config, num_classes=3)
    tf.function(lambda hu: network(hu, training=False))(tf.zeros((1, 16, 16, 16, 1)))
"""


def test_in_inference_each_convolution_computes_its_activation():
    """Counted in oneDNN's log; in bfloat16 a ReLU of its own takes longer than the convolution."""
    log = output_of(FUSED).splitlines()
    convolutions = [line for line in log if ",exec,cpu,convolution," in line and ",forward" in line]
    if not convolutions:
        pytest.skip("TensorFlow runs without oneDNN here")
    # Two for each of three encoder and two decoder levels, and the logits, in two networks.
    assert len(convolutions) == 22
    assert sum("eltwise_relu" in line for line in convolutions) == 20
