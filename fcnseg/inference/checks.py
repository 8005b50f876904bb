"""What a volume sent to a model must be, checked inside the graph.

A server feeds what it is sent, whatever the signature says of shapes.
"""

from __future__ import annotations

import tensorflow as tf

from fcnseg.inference.resampling import resampled_shape, spacing_steps
from fcnseg.model_info import ModelInfo


def checked_request(
    volume: tf.Tensor, spacing: tf.Tensor, info: ModelInfo
) -> tuple[tf.Tensor, tf.Tensor]:
    """The same volume and spacing, once they are known to be right.

    Args:
        volume: HU, int16 (z, y, x).
        spacing: float32 (3,), mm (z, y, x).
        info: Of the model, whose `max_voxels` holds at both spacings.

    Raises:
        tf.errors.InvalidArgumentError: Naming the argument, the rule and the value.
    """
    shape, sizes = tf.shape(_as_fed(volume)), tf.reshape(_as_fed(spacing), [-1])
    shape = _checked(
        shape,
        tf.logical_and(tf.equal(tf.size(shape), 3), tf.reduce_all(shape > 0)),
        "volume must have three axes (z, y, x) of at least one voxel, got shape {}",
    )
    is_length = tf.logical_and(sizes > 0, tf.math.is_finite(sizes))
    sizes = _checked(
        sizes,
        tf.logical_and(tf.equal(tf.size(sizes), 3), tf.reduce_all(is_length)),
        "spacing must be three positive numbers in mm, got {}",
    )
    rule = f"volume must have at most {info.max_voxels} voxels"
    shape = _checked(shape, _voxels(shape) <= info.max_voxels, rule + ", got shape {}")
    shape = resampled_shape(shape, spacing_steps(sizes, info.spacing_mm))
    shape = _checked(
        shape,
        _voxels(shape) <= info.max_voxels,
        rule + " at the spacing of the model, got shape {}",
    )
    with tf.control_dependencies([shape]):
        return tf.identity(volume), sizes


def _as_fed(tensor: tf.Tensor) -> tf.Tensor:
    """The tensor, its shape unknown until it is there; nothing is copied.

    The graph optimiser would fold a check against the declared shape away.
    """
    box = tf.TensorArray(
        tensor.dtype, size=1, infer_shape=False, element_shape=tf.TensorShape(None)
    )
    return box.write(0, tensor).read(0)


def _checked(value: tf.Tensor, holds: tf.Tensor, rule: str) -> tf.Tensor:
    """The value once the rule, whose `{}` shows it, is known to hold."""
    check = tf.debugging.Assert(holds, [tf.strings.format(rule, value)])
    with tf.control_dependencies([check]):
        return tf.identity(value)


def _voxels(shape: tf.Tensor) -> tf.Tensor:
    """Product of a shape, as float64: three sizes may overflow an integer."""
    return tf.reduce_prod(tf.cast(shape, tf.float64))
