"""Convolutions fused with the batch normalisation and the activation that follow them."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from fcnseg.networks.layers.activation import Activation, activated
from fcnseg.networks.layers.normalization import BatchNormalization
from fcnseg.networks.layers.saved_name import saved_as
from fcnseg.networks.layers.upsampling import NonOverlappingConv3DTranspose


class _Normalized(keras.layers.Layer):
    """Base of Keras convolutions that include the batch normalisation that follows.

    The weights are those of the two layers, one after the other. In training the convolution's
    output is normalised and activated by fused kernels. In inference, normalisation is a factor and
    a shift per channel, so the kernel is multiplied by the factor and the shift becomes the bias,
    and TensorFlow runs convolution, bias and ReLU as one (docs/models.md has the speed-up).

    Args:
        filters: Number of output channels.
        kernel_size: Kernel size of the convolution.
        momentum: Momentum of the moving averages.
        synchronized: True if all replicas are normalised together.
        nonlinearity: The activation that follows, if any.
        **kwargs: Those of the convolution.
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
        """Creates the weights of both."""
        super().build(input_shape)
        self.norm.build(self.compute_output_shape(input_shape))

    def call(self, inputs: tf.Tensor, training: Any = None) -> tf.Tensor:
        """Maps (batch, z, y, x, channels) to `filters` channels."""
        if training and self.norm.trainable:
            return self.norm(super().call(inputs), training=True)
        scale, shift = self._scale_and_shift()
        # Kernels are scaled one after the other, to save memory. TensorFlow does not fuse an
        # operation that another waits for, so this waits for one voxel of the inputs (0014).
        with tf.control_dependencies([inputs[:1, :1, :1, :1, :1]]):
            kernel = tf.cast(tf.convert_to_tensor(self.kernel), scale.dtype)
            kernel = tf.cast(self.scaled(kernel, scale), inputs.dtype)
        return self.convolved(inputs, kernel, tf.cast(shift, inputs.dtype))

    def fold(self) -> None:
        """Multiplies the kernel by the factor of inference, and leaves the norm the shift alone."""
        scale, shift = self._scale_and_shift()
        self.kernel.assign(self.scaled(tf.convert_to_tensor(self.kernel), scale))
        if self.use_bias:
            self.bias.assign(tf.zeros_like(self.bias))
        self.norm.gamma.assign(tf.ones_like(scale))
        self.norm.beta.assign(shift)
        self.norm.moving_mean.assign(tf.zeros_like(scale))
        self.norm.moving_variance.assign(tf.ones_like(scale) - self.norm.epsilon)

    def _scale_and_shift(self) -> tuple[tf.Tensor, tf.Tensor]:
        """The factor and the shift of inference, with the convolution's bias."""
        scale, shift = self.norm.scale_and_shift()
        if self.use_bias:
            shift += scale * tf.cast(tf.convert_to_tensor(self.bias), scale.dtype)
        return scale, shift

    def get_config(self) -> dict[str, Any]:
        """The arguments."""
        own = {
            "momentum": self.momentum,
            "synchronized": self.synchronized,
            "nonlinearity": self.nonlinearity,
        }
        return {**super().get_config(), **own}


@saved_as("NormalizedConvolution")
class ConvBatchNormAct(_Normalized, keras.layers.Conv3D):
    """A convolution, batch normalisation and, if any, an activation."""

    def scaled(self, kernel: tf.Tensor, scale: tf.Tensor) -> tf.Tensor:
        """Multiplies the kernel (z, y, x, channels, filters) by a scale (filters,)."""
        return kernel * scale

    def convolved(self, inputs: tf.Tensor, kernel: tf.Tensor, bias: tf.Tensor) -> tf.Tensor:
        """Applies convolution, bias and activation."""
        strides, padding = [1, *self.strides, 1], self.padding.upper()
        outputs = tf.nn.conv3d(inputs, kernel, strides, padding)
        return activated(tf.nn.bias_add(outputs, bias), self.nonlinearity)


@saved_as("NormalizedConvolutionTranspose")
class ConvTransposeBatchNormAct(_Normalized, NonOverlappingConv3DTranspose):
    """A `NonOverlappingConv3DTranspose`, batch normalisation and, if any, an activation."""

    def scaled(self, kernel: tf.Tensor, scale: tf.Tensor) -> tf.Tensor:
        """Multiplies the kernel (z, y, x, filters, channels) by a scale (filters,)."""
        return kernel * scale[:, tf.newaxis]

    def convolved(self, inputs: tf.Tensor, kernel: tf.Tensor, bias: tf.Tensor) -> tf.Tensor:
        """Applies transposed convolution, bias and activation.

        It uses the general kernel: without gradients that takes no longer than blocks, and half the
        memory (0014).
        """
        voxels = tf.shape(inputs)[1:4] * self.strides
        size = tf.concat([tf.shape(inputs)[:1], voxels, [self.filters]], axis=0)
        outputs = tf.nn.conv3d_transpose(inputs, kernel, size, [1, *self.strides, 1])
        outputs.set_shape(self.compute_output_shape(inputs.shape))
        return activated(tf.nn.bias_add(outputs, bias), self.nonlinearity)
