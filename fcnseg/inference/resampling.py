"""The resampler of `fcnseg.volumes.resampling`, inside the graph: the same matrices, by slabs."""

from __future__ import annotations

import tensorflow as tf

from fcnseg.volumes.resampling import SAME_SPACING, axis_length, axis_positions, linear_matrix
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
    return tf.cast(axis_length(tf.cast(shape, tf.float64), steps, xp=tf), tf.int64)


def resample_hu(volume: tf.Tensor, steps: tf.Tensor) -> tf.Tensor:
    """Resamples HU linearly, slab by slab.

    Args:
        volume: int16 (z, y, x).
        steps: float64 (3,), new over old spacing.

    Returns:
        int16 (z, y, x), of `resampled_shape`; the volume itself where all steps are one.
    """
    shape = tf.cast(resampled_shape(tf.shape(volume), steps), tf.int32)
    return _resample(volume, shape, steps)


def resample_back(values: tf.Tensor, shape: tf.Tensor, steps: tf.Tensor) -> tf.Tensor:
    """Brings values linearly back to the grid that `resample_hu` started from, slab by slab.

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
    """Brings class ids back to the grid that `resample_hu` started from.

    Each voxel takes the class that has the largest share of it when every class is interpolated
    linearly, so that outlines are smooth where the grid wanted is the finer one.

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
    along_z, along_y, along_x = _linear_matrices(tf.shape(ids), shape, 1 / steps)
    slabs = _empty_slabs(shape[0], tf.uint8)
    for number in tf.range(slabs.size()):
        tf.autograph.experimental.set_loop_options(parallel_iterations=1)
        rows, used = _slab_rows(along_z, number)
        shares = tf.one_hot(tf.gather(ids, used), num_classes)  # (z, y, x, classes)
        shares = tf.einsum("az,zyxk->ayxk", rows, shares)
        shares = tf.einsum("by,ayxk->abxk", along_y, shares)
        shares = tf.einsum("cx,abxk->abck", along_x, shares)
        slabs = slabs.write(number, tf.cast(tf.argmax(shares, axis=-1), tf.uint8))
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
    """Resamples int16 (z, y, x) linearly to a shape; the volume itself where all steps are one."""
    if tf.reduce_all(tf.equal(steps, 1)):
        return volume
    along_z, along_y, along_x = _linear_matrices(tf.shape(volume), shape, steps)
    slabs = _empty_slabs(shape[0], tf.int16)
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
    """The matrix (new, old) float32 of each axis."""
    matrices = []
    for axis in range(3):
        positions = _positions(old_shape[axis], new_shape[axis], steps[axis])
        index = tf.range(tf.cast(old_shape[axis], tf.float64))
        matrix = linear_matrix(positions, index, steps[axis], xp=tf)
        matrices.append(tf.cast(matrix, tf.float32))
    return matrices


def _empty_slabs(depth: tf.Tensor, dtype: tf.DType) -> tf.TensorArray:
    """Room for all slabs (z, y, x) of a volume of so many slices."""
    return tf.TensorArray(
        dtype, size=-(-depth // _SLAB), infer_shape=False, element_shape=[None, None, None]
    )


def _slab_rows(along_z: tf.Tensor, number: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The rows of a matrix (new, old) that make a slab, and the old slices that they use."""
    rows = along_z[number * _SLAB : (number + 1) * _SLAB]
    used = tf.where(tf.reduce_any(rows > 0, axis=0))[:, 0]
    return tf.gather(rows, used, axis=1), used
