"""Masking of ignored voxels, and sums of voxels: over a patch in float32, over all replicas."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import tensorflow as tf

ClassWeights = Literal["uniform"] | Sequence[float]
"""Weight of each class in a loss: all equal, or a number each, background first."""


def counted_voxels(y_true: tf.Tensor, ignore_label: int | None) -> tuple[tf.Tensor, tf.Tensor]:
    """Gives the class of each voxel, and 0 or 1 for ignored and counted voxels.

    Args:
        y_true: Class indices (batch, z, y, x) of any type.
        ignore_label: The index of voxels to ignore; None if all count.

    Returns:
        Classes int32, 0 for an ignored voxel, and float32 1 or 0; both (batch, z, y, x).
    """
    classes = tf.cast(y_true, tf.int32)
    if ignore_label is None:
        return classes, tf.ones_like(classes, tf.float32)
    counts = tf.not_equal(classes, ignore_label)
    return tf.where(counts, classes, tf.zeros_like(classes)), tf.cast(counts, tf.float32)


def weights_of_classes(weights: Sequence[float], logits: tf.Tensor) -> tf.Tensor:
    """Gives the weights as float32 (classes,).

    Raises:
        ValueError: If there is not one weight for each class of the logits.
    """
    if len(weights) != logits.shape[-1]:
        raise ValueError(
            f"class_weights must be one number a class, background included,"
            f" got {len(weights)} for {logits.shape[-1]} classes"
        )
    return tf.constant(weights, tf.float32)


def sum_over_voxels(values: tf.Tensor) -> tf.Tensor:
    """Sums values (batch, z, y, x, ...) to (batch, ...), one axis after the other.

    TensorFlow adds all voxels sequentially: in float32 that is off by 0.2 % at 128^3.
    """
    for axis in (3, 2, 1):
        values = tf.reduce_sum(values, axis=axis)
    return values


def sum_over_replicas(tensor: tf.Tensor) -> tf.Tensor:
    """Sums over replicas, with a gradient: a loss of the sum is that of the global batch."""
    replica = tf.distribute.get_replica_context()
    if replica is None or replica.num_replicas_in_sync == 1:
        return tensor
    return replica.all_reduce(tf.distribute.ReduceOp.SUM, tensor)


def for_each_sample(loss: tf.Tensor, y_true: tf.Tensor) -> tf.Tensor:
    """Repeats a loss of the global batch, () or (1,), for each sample (batch,).

    Keras divides per-sample losses by the number of replicas, but leaves a scalar unchanged.
    """
    return tf.broadcast_to(loss, tf.shape(y_true)[:1])
