"""Regions of interest: the voxels of a volume that may be an organ; all others are background.

A region is bool (z, y, x) on the grid of its volume. Windows without any voxel of it are skipped.
"""

from __future__ import annotations

import tensorflow as tf

from fcnseg.inference.resampling import resample_hu
from fcnseg.volumes import AIR_HU

_TISSUE_HU = -500  # half way from air to water
_BLOCK = 8  # block size along each axis: a 512th of the work


def body_region(hu: tf.Tensor) -> tf.Tensor:
    """Finds everything but the air around a body.

    The body is what lies, within its slices, between tissue on both sides along x and also along y,
    so that lungs and gas in the bowel are included; and all that is less than 8 voxels from that.

    Args:
        hu: int16 (z, y, x), y and x across the body.

    Returns:
        bool (z, y, x).
    """
    tissue = _tissue_blocks(hu)
    body = dilated(tf.logical_and(_between(tissue, axis=1), _between(tissue, axis=2)), 1)
    for axis in (2, 1, 0):  # the first gives the fewest voxels
        body = tf.gather(body, tf.range(tf.shape(hu)[axis]) // _BLOCK, axis=axis)
    return body


def dilated(region: tf.Tensor, voxels: tf.Tensor) -> tf.Tensor:
    """Dilates a region, bool (z, y, x), by a number of voxels along each axis."""
    near = tf.cast(region, tf.float32)[tf.newaxis, ..., tf.newaxis]
    for _ in tf.range(voxels):
        for size in ((3, 1, 1), (1, 3, 1), (1, 1, 3)):
            near = tf.nn.max_pool3d(near, size, strides=1, padding="SAME")
    return near[0, ..., 0] > 0


def resample_region(region: tf.Tensor, steps: tf.Tensor) -> tf.Tensor:
    """Resamples a region to the grid of `resample_hu`: all voxels there that touch it.

    Args:
        region: bool (z, y, x).
        steps: float64 (3,), new over old spacing.
    """
    if tf.reduce_all(tf.equal(steps, 1)):
        return region
    return resample_hu(tf.cast(region, tf.int16) * 1000, steps) > 0


def background_outside(ids: tf.Tensor, region: tf.Tensor) -> tf.Tensor:
    """Sets class ids uint8 (z, y, x) to 0 outside the region, bool (z, y, x)."""
    return ids * tf.cast(region, tf.uint8)


def _tissue_blocks(hu: tf.Tensor) -> tf.Tensor:
    """Finds the blocks of voxels that contain tissue, bool (z, y, x) of blocks."""
    shape = tf.shape(hu)
    blocks = -(-shape // _BLOCK)
    missing = blocks * _BLOCK - shape
    rows = tf.TensorArray(tf.bool, size=blocks[0], element_shape=[None, None])
    for row in tf.range(blocks[0]):
        tf.autograph.experimental.set_loop_options(parallel_iterations=1)
        most = tf.reduce_max(hu[row * _BLOCK : (row + 1) * _BLOCK], axis=0)  # (y, x)
        most = tf.pad(most, [[0, missing[1]], [0, missing[2]]], constant_values=AIR_HU)
        most = tf.reshape(most, [blocks[1], _BLOCK, blocks[2], _BLOCK])
        rows = rows.write(row, tf.reduce_max(most, axis=[1, 3]) > _TISSUE_HU)
    return rows.stack()


def _between(blocks: tf.Tensor, *, axis: int) -> tf.Tensor:
    """Finds blocks that are set, or lie between set ones along an axis."""
    count = tf.cast(blocks, tf.int32)
    is_after, is_before = (
        tf.cumsum(count, axis=axis, reverse=reverse) > 0 for reverse in (False, True)
    )
    return tf.logical_and(is_after, is_before)
