"""Upsampling layers of the decoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from fcnseg.networks.layers.saved_name import saved_as
from fcnseg.volumes import Shape


@saved_as("BlockConvolutionTranspose")
class NonOverlappingConv3DTranspose(keras.layers.Conv3DTranspose):
    """A transposed convolution whose stride equals its kernel size, with Keras's weights.

    Each voxel then becomes a block of voxels and no two blocks overlap, so it is a product of
    matrices, and a rearrangement of blocks ("depth to space"); on a CPU this is faster than the
    general kernel, in half precision above all (docs/models.md).
    """

    def __init__(self, filters: int, kernel_size: Any, **kwargs: Any) -> None:
        super().__init__(filters, kernel_size, **kwargs)
        if tuple(self.kernel_size) != tuple(self.strides):
            raise ValueError(
                f"strides must equal kernel_size, got {self.strides} and {self.kernel_size}"
            )

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Maps (batch, z, y, x, channels) to stride times the voxels and `filters` channels."""
        kernel = tf.cast(tf.convert_to_tensor(self.kernel), inputs.dtype)
        outputs = non_overlapping_conv3d_transpose(inputs, kernel)
        if self.use_bias:
            outputs += tf.cast(tf.convert_to_tensor(self.bias), outputs.dtype)
        return outputs if self.activation is None else self.activation(outputs)

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> tuple[int | None, ...]:
        """Multiplies the sizes by the strides."""
        return (*_times(input_shape, self.strides), self.filters)


def non_overlapping_conv3d_transpose(inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """Applies a transposed convolution whose stride equals its kernel size.

    Args:
        inputs: (batch, z, y, x, channels).
        kernel: (block z, block y, block x, filters, channels), of the same type.

    Returns:
        (batch, z, y, x, filters), with a block for each voxel.
    """
    shape, (down, across, along, filters, channels) = tf.shape(inputs), kernel.shape
    taps = tf.reshape(kernel, [down * across * along * filters, channels])
    blocks = tf.matmul(tf.reshape(inputs, [-1, channels]), taps, transpose_b=True)
    # A row of a block is contiguous already: its x and channels are adjacent.
    blocks = tf.reshape(
        blocks, [shape[0], shape[1], shape[2], shape[3], down, across, along * filters]
    )
    blocks = tf.transpose(blocks, [0, 1, 4, 2, 5, 3, 6])
    size = [shape[1] * down, shape[2] * across, shape[3] * along]
    outputs = tf.reshape(blocks, [shape[0], *size, filters])
    outputs.set_shape((*_times(inputs.shape, (down, across, along)), filters))
    return outputs


@keras.saving.register_keras_serializable(package="fcnseg")
class LinearUpsampling(keras.layers.Layer):
    """Linear interpolation by whole factors, one axis after the other.

    The centre of a voxel is mapped to the centre of its block; beyond the outermost centres the
    value is constant.

    Args:
        stride: Factors (z, y, x).
        **kwargs: Those of every Keras layer.
    """

    def __init__(self, stride: Shape, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.stride = tuple(stride)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Maps (batch, z, y, x, channels) to stride times the voxels."""
        for axis, stride in enumerate(self.stride, start=1):
            if stride > 1:
                inputs = _interpolated(inputs, axis, stride)
        return inputs

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> tuple[int | None, ...]:
        """Multiplies the sizes by the stride."""
        return (*_times(input_shape, self.stride), input_shape[-1])

    def get_config(self) -> dict[str, Any]:
        """The arguments."""
        return {**super().get_config(), "stride": self.stride}


def _interpolated(values: tf.Tensor, axis: int, stride: int) -> tf.Tensor:
    """Interpolates linearly along one axis."""
    length = tf.shape(values)[axis]
    index = tf.range(length)
    before = tf.gather(values, tf.maximum(index - 1, 0), axis=axis)
    after = tf.gather(values, tf.minimum(index + 1, length - 1), axis=axis)
    parts = []
    for number in range(stride):
        offset = (number + 0.5) / stride - 0.5  # of the new centre from the old, in old voxels
        neighbour = before if offset < 0 else after
        parts.append(values + abs(offset) * (neighbour - values))
    shape = tf.concat(
        [tf.shape(values)[:axis], [length * stride], tf.shape(values)[axis + 1 :]], axis=0
    )
    interleaved = tf.reshape(tf.stack(parts, axis=axis + 1), shape)
    static = values.shape.as_list()
    static[axis] = None if static[axis] is None else static[axis] * stride
    return tf.ensure_shape(interleaved, static)


def _times(shape: Sequence[int | None], stride: Sequence[int]) -> tuple[int | None, ...]:
    """Batch and sizes of a shape, with the sizes multiplied by the stride."""
    batch, *sizes, _ = shape
    larger = (
        None if size is None else size * step for size, step in zip(sizes, stride, strict=True)
    )
    return (batch, *larger)
