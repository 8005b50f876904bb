"""Convolutions with the batch normalisation and the activation that follow them, as one layer."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from fcnseg.networks.layers.activation import Activation, activated
from fcnseg.networks.layers.normalization import BatchNormalization
from fcnseg.networks.layers.upsampling import BlockConvolutionTranspose


class _Normalized(keras.layers.Layer):
    """What a convolution of Keras becomes where batch normalisation follows it.

    Weights are those of the two layers, one after the other. In training the convolution's output
    is normalised and activated by fused kernels. Elsewhere normalisation is a factor and a shift of
    each channel, so the kernel is multiplied by the one and the bias becomes the other, and
    TensorFlow runs convolution, bias and ReLU as one (docs/models.md has what that is worth).

    Args:
        filters: Channels that leave.
        kernel_size: As of the convolution.
        momentum: Of the normalisation's averages.
        synchronized: Whether all replicas are normalised together.
        nonlinearity: The activation, if any.
        **kwargs: As of the convolution.
    """

    def __init__(
        self,
        filters: int,
        kernel_size: Any,
        *,
        momentum: float = 0.99,
        synchronized: bool = False,
        nonlinearity: Activation | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(filters, kernel_size, **kwargs)
        self.momentum = momentum
        self.synchronized = synchronized
        self.nonlinearity = nonlinearity
        self.norm = BatchNormalization(
            momentum=momentum,
            synchronized=synchronized,
            activation=nonlinearity,
            dtype=kwargs.get("dtype"),
            name="norm",
        )

    def build(self, input_shape: Any) -> None:
        """Makes the weights of both."""
        super().build(input_shape)
        self.norm.build(self.compute_output_shape(input_shape))

    def call(self, inputs: tf.Tensor, training: Any = None) -> tf.Tensor:
        """From (batch, z, y, x, channels) to `filters` channels."""
        if training and self.norm.trainable:
            return self.norm(super().call(inputs), training=True)
        scale, shift = self.norm.scale_and_shift()
        if self.use_bias:
            shift += scale * tf.cast(tf.convert_to_tensor(self.bias), scale.dtype)
        with tf.control_dependencies([inputs]):  # not all kernels of a network at once
            kernel = tf.cast(tf.convert_to_tensor(self.kernel), scale.dtype)
            kernel = tf.cast(self.scaled(kernel, scale), inputs.dtype)
        return self.convolved(inputs, kernel, tf.cast(shift, inputs.dtype))

    def get_config(self) -> dict[str, Any]:
        """The arguments."""
        own = {
            "momentum": self.momentum,
            "synchronized": self.synchronized,
            "nonlinearity": self.nonlinearity,
        }
        return {**super().get_config(), **own}


@keras.saving.register_keras_serializable(package="fcnseg")
class NormalizedConvolution(_Normalized, keras.layers.Conv3D):
    """A convolution, batch normalisation and, if any, an activation."""

    def scaled(self, kernel: tf.Tensor, scale: tf.Tensor) -> tf.Tensor:
        """The kernel (z, y, x, channels, filters) times a scale (filters,)."""
        return kernel * scale

    def convolved(self, inputs: tf.Tensor, kernel: tf.Tensor, bias: tf.Tensor) -> tf.Tensor:
        """Convolution, bias and activation."""
        strides, padding = [1, *self.strides, 1], self.padding.upper()
        outputs = tf.nn.conv3d(inputs, kernel, strides, padding)
        return activated(tf.nn.bias_add(outputs, bias), self.nonlinearity)


@keras.saving.register_keras_serializable(package="fcnseg")
class NormalizedConvolutionTranspose(_Normalized, BlockConvolutionTranspose):
    """A `BlockConvolutionTranspose`, batch normalisation and, if any, an activation."""

    def scaled(self, kernel: tf.Tensor, scale: tf.Tensor) -> tf.Tensor:
        """The kernel (z, y, x, filters, channels) times a scale (filters,)."""
        return kernel * scale[:, tf.newaxis]

    def convolved(self, inputs: tf.Tensor, kernel: tf.Tensor, bias: tf.Tensor) -> tf.Tensor:
        """Transposed convolution, bias and activation.

        By the general kernel: without gradients it takes no longer than blocks, and half the memory
        (0014).
        """
        voxels = tf.shape(inputs)[1:4] * self.strides
        size = tf.concat([tf.shape(inputs)[:1], voxels, [self.filters]], axis=0)
        outputs = tf.nn.conv3d_transpose(inputs, kernel, size, [1, *self.strides, 1])
        outputs.set_shape(self.compute_output_shape(inputs.shape))
        return activated(tf.nn.bias_add(outputs, bias), self.nonlinearity)
