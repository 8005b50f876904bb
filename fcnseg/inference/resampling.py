"""The resampler of `fcnseg.volumes.resampling`, inside the graph: the same weights, by slabs."""

from __future__ import annotations

import tensorflow as tf

from fcnseg.inference import borders
from fcnseg.volumes import Triple
from fcnseg.volumes.resampling import SAME_SPACING, axis_length, axis_positions, linear_matrix

_SLAB = 16  # slices computed at once: limits the float32 copy to a small part of the volume
_SLAB_VOXELS = 2**20  # slices of class ids at once: an index of them all, at worst, takes 24 MiB


def spacing_steps(spacing: tf.Tensor, new_spacing: Triple) -> tf.Tensor:
    """Ratio of new to old spacing, float64 (3,); all exactly one if the two are the same.

    Args:
        spacing: float32 (3,), mm (z, y, x).
        new_spacing: mm (z, y, x).
    """
    steps = tf.constant(new_spacing, tf.float64) / tf.cast(spacing, tf.float64)
    is_same = tf.reduce_max(tf.abs(steps - 1)) < SAME_SPACING
    return tf.where(is_same, tf.ones_like(steps), steps)


def resampled_shape(shape: tf.Tensor, steps: tf.Tensor) -> tf.Tensor:
    """Shape (z, y, x) with the same extent at another spacing, int64 (3,), at least one.

    Args:
        shape: int32 (3,), voxels (z, y, x).
        steps: float64 (3,), new over old spacing.
    """
    return tf.cast(axis_length(tf.cast(shape, tf.float64), steps, xp=tf), tf.int64)


def resample_hu(volume: tf.Tensor, steps: tf.Tensor) -> tf.Tensor:
    """Resamples HU linearly, slab by slab.

    Args:
        volume: int16 (z, y, x).
        steps: float64 (3,), new over old spacing.

    Returns:
        int16 (z, y, x), of `resampled_shape`; the volume itself if all steps are one.
    """
    shape = tf.cast(resampled_shape(tf.shape(volume), steps), tf.int32)
    return _resample(volume, shape, steps)


def resample_back(values: tf.Tensor, shape: tf.Tensor, steps: tf.Tensor) -> tf.Tensor:
    """Resamples values linearly back to the input grid of `resample_hu`, slab by slab.

    Args:
        values: int16 (z, y, x), of `resampled_shape`.
        shape: int32 (3,), voxels (z, y, x) of the grid wanted.
        steps: float64 (3,), as given to `resample_hu`.

    Returns:
        int16 (z, y, x).
    """
    return _resample(values, shape, 1 / steps)


def resample_ids(
    ids: tf.Tensor, shape: tf.Tensor, steps: tf.Tensor, *, num_classes: int
) -> tf.Tensor:
    """Resamples class ids back to the input grid of `resample_hu`.

    Where two classes meet, both keep their volume, and outlines are smooth if the target grid is
    the finer one: see `fcnseg.volumes.shares`. Borders are computed twice, once to count and once
    to decide, so that no more than a slab of them is held in memory.

    Args:
        ids: uint8 (z, y, x), of `resampled_shape`.
        shape: int32 (3,), voxels (z, y, x) of the grid wanted.
        steps: float64 (3,), as given to `resample_hu`.
        num_classes: Background included.

    Returns:
        uint8 (z, y, x).
    """
    if tf.reduce_all(tf.equal(steps, 1)):
        return ids
    axes = _border_axes(tf.shape(ids), shape, 1 / steps)
    depth = tf.maximum(_SLAB_VOXELS // (shape[1] * shape[2]), 1)
    count = -(-shape[0] // depth)
    tally = borders.empty_tally(num_classes)
    for number in tf.range(count):
        tf.autograph.experimental.set_loop_options(parallel_iterations=1)
        slab = borders.slab(ids, axes, number * depth, (number + 1) * depth)
        tally = borders.counted(tally, slab, num_classes=num_classes)
    parting = borders.parted(tally)
    slabs = _empty_slabs(count, tf.uint8)
    for number in tf.range(count):
        tf.autograph.experimental.set_loop_options(parallel_iterations=1)
        slab = borders.slab(ids, axes, number * depth, (number + 1) * depth)
        slabs = slabs.write(number, borders.decided(slab, parting, num_classes=num_classes))
    return slabs.concat()


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


def _resample(volume: tf.Tensor, shape: tf.Tensor, steps: tf.Tensor) -> tf.Tensor:
    """Resamples int16 (z, y, x) linearly to a shape; the volume itself if all steps are one."""
    if tf.reduce_all(tf.equal(steps, 1)):
        return volume
    along_z, along_y, along_x = _linear_matrices(tf.shape(volume), shape, steps)
    slabs = _empty_slabs(-(-shape[0] // _SLAB), tf.int16)
    for number in tf.range(slabs.size()):
        tf.autograph.experimental.set_loop_options(parallel_iterations=1)
        rows, used = _slab_rows(along_z, number)
        slab = tf.tensordot(rows, tf.cast(tf.gather(volume, used), tf.float32), axes=1)
        slab = tf.matmul(tf.matmul(along_y, slab), along_x, transpose_b=True)
        slabs = slabs.write(number, tf.cast(tf.round(slab), tf.int16))
    return slabs.concat()


def _positions(n_in: tf.Tensor, n_out: tf.Tensor, step: tf.Tensor) -> tf.Tensor:
    n_in, n_out = tf.cast(n_in, tf.float64), tf.cast(n_out, tf.float64)
    return axis_positions(tf.range(n_out), n_in, n_out, step, xp=tf)


def _linear_matrices(
    old_shape: tf.Tensor, new_shape: tf.Tensor, steps: tf.Tensor
) -> list[tf.Tensor]:
    """The interpolation matrix (new, old) float32 of each axis."""
    matrices = []
    for axis in range(3):
        positions = _positions(old_shape[axis], new_shape[axis], steps[axis])
        index = tf.range(tf.cast(old_shape[axis], tf.float64))
        matrix = linear_matrix(positions, index, steps[axis], xp=tf)
        matrices.append(tf.cast(matrix, tf.float32))
    return matrices


def _border_axes(old_shape: tf.Tensor, new_shape: tf.Tensor, steps: tf.Tensor) -> borders.Axes:
    along_z, along_y, along_x = (
        borders.axis(
            _positions(old_shape[axis], new_shape[axis], steps[axis]), old_shape[axis], steps[axis]
        )
        for axis in range(3)
    )
    return along_z, along_y, along_x


def _empty_slabs(count: tf.Tensor, dtype: tf.DType) -> tf.TensorArray:
    """An array for so many slabs (z, y, x)."""
    return tf.TensorArray(dtype, size=count, infer_shape=False, element_shape=[None, None, None])


def _slab_rows(along_z: tf.Tensor, number: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The rows of a matrix (new, old) that compute a slab, and the old slices that they use."""
    rows = along_z[number * _SLAB : (number + 1) * _SLAB]
    used = tf.where(tf.reduce_any(rows > 0, axis=0))[:, 0]
    return tf.gather(rows, used, axis=1), used
