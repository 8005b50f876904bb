"""The resampler of `fcnseg.volumes.resampling`, inside the graph: the same matrices, by slabs."""

from __future__ import annotations

import tensorflow as tf

from fcnseg.volumes.resampling import (
    SAME_SPACING,
    axis_positions,
    linear_matrix,
    nearest_index,
)
from fcnseg.volumes.volume import Triple

_SLAB = 16  # slices made at once: bounds the float32 copy to a small part of the volume


def spacing_steps(spacing: tf.Tensor, new_spacing: Triple) -> tf.Tensor:
    """New over old spacing, float64 (3,); all exactly one where the two are the same.

    Args:
        spacing: float32 (3,), mm (z, y, x).
        new_spacing: mm (z, y, x).
    """
    steps = tf.constant(new_spacing, tf.float64) / tf.cast(spacing, tf.float64)
    is_same = tf.reduce_max(tf.abs(steps - 1)) < SAME_SPACING
    return tf.where(is_same, tf.ones_like(steps), steps)


def resampled_shape(shape: tf.Tensor, steps: tf.Tensor) -> tf.Tensor:
    """Voxels (z, y, x) that cover the same extent at another spacing, int64 (3,), at least one.

    Args:
        shape: int32 (3,), voxels (z, y, x).
        steps: float64 (3,), new over old spacing.
    """
    return tf.cast(tf.maximum(tf.round(tf.cast(shape, tf.float64) / steps), 1), tf.int64)


def resample_hu(volume: tf.Tensor, steps: tf.Tensor) -> tf.Tensor:
    """Resamples HU linearly, slab by slab.

    Args:
        volume: int16 (z, y, x).
        steps: float64 (3,), new over old spacing.

    Returns:
        int16 (z, y, x), of `resampled_shape`; the volume itself where all steps are one.
    """
    if tf.reduce_all(tf.equal(steps, 1)):
        return volume
    old_shape = tf.shape(volume)
    new_shape = tf.cast(resampled_shape(old_shape, steps), tf.int32)
    along_z, along_y, along_x = (
        _linear_matrix(old_shape[axis], new_shape[axis], steps[axis]) for axis in range(3)
    )
    count = -(-new_shape[0] // _SLAB)
    slabs = tf.TensorArray(
        tf.int16, size=count, infer_shape=False, element_shape=[None, None, None]
    )
    for number in tf.range(count):
        tf.autograph.experimental.set_loop_options(parallel_iterations=1)
        rows = along_z[number * _SLAB : (number + 1) * _SLAB]
        used = tf.where(tf.reduce_any(rows > 0, axis=0))[:, 0]
        first, last = used[0], used[-1] + 1
        slab = tf.cast(volume[first:last], tf.float32)
        slab = tf.tensordot(rows[:, first:last], slab, axes=1)
        slab = tf.matmul(tf.matmul(along_y, slab), along_x, transpose_b=True)
        slabs = slabs.write(number, tf.cast(tf.round(slab), tf.int16))
    return slabs.concat()


def resample_ids(ids: tf.Tensor, shape: tf.Tensor, steps: tf.Tensor) -> tf.Tensor:
    """Brings class ids back to the grid that `resample_hu` started from, by nearest voxel.

    Args:
        ids: uint8 (z, y, x), of `resampled_shape`.
        shape: int32 (3,), voxels (z, y, x) of the grid wanted.
        steps: float64 (3,), as given to `resample_hu`.

    Returns:
        uint8 (z, y, x).
    """
    if tf.reduce_all(tf.equal(steps, 1)):
        return ids
    for axis in range(3):
        positions = _positions(tf.shape(ids)[axis], shape[axis], 1 / steps[axis])
        nearest = tf.cast(nearest_index(positions, xp=tf), tf.int32)
        ids = tf.gather(ids, nearest, axis=axis)
    return ids


def count_voxels(ids: tf.Tensor, num_classes: int) -> tf.Tensor:
    """Voxels of each class, int64 (classes,), of ids uint8 (z, y, x), counted slice by slice."""
    counts = tf.zeros([num_classes], tf.int64)
    for z in tf.range(tf.shape(ids)[0]):
        tf.autograph.experimental.set_loop_options(parallel_iterations=1)
        counts += tf.math.bincount(
            tf.cast(ids[z], tf.int32),
            minlength=num_classes,
            maxlength=num_classes,
            dtype=tf.int64,
        )
        counts = tf.ensure_shape(counts, [num_classes])
    return counts


def _positions(n_in: tf.Tensor, n_out: tf.Tensor, step: tf.Tensor) -> tf.Tensor:
    n_in, n_out = tf.cast(n_in, tf.float64), tf.cast(n_out, tf.float64)
    return axis_positions(tf.range(n_out), n_in, n_out, step, xp=tf)


def _linear_matrix(n_in: tf.Tensor, n_out: tf.Tensor, step: tf.Tensor) -> tf.Tensor:
    index = tf.range(tf.cast(n_in, tf.float64))
    return tf.cast(linear_matrix(_positions(n_in, n_out, step), index, step, xp=tf), tf.float32)
