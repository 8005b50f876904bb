"""Regions: the voxels of a volume that may hold an organ; all others are background.

A region is bool (z, y, x) on the grid of its volume. Windows that hold none of it are not computed.
"""

from __future__ import annotations

import tensorflow as tf

from fcnseg.inference.resampling import resample_hu
from fcnseg.volumes import AIR_HU

_TISSUE_HU = -500  # half way from air to water
_BLOCK = 8  # voxels along each axis that are looked at as one: a 512th of the work


def body_region(hu: tf.Tensor) -> tf.Tensor:
    """Everything but the air around a body.

    Of the body is what lies, within its slices, between tissue on both sides along x and along y
    too, so that lungs and gas in the bowel are; and what is less than 8 voxels from that.

    Args:
        hu: int16 (z, y, x), y and x across the body.

    Returns:
        bool (z, y, x).
    """
    tissue = _tissue_blocks(hu)
    body = dilated(tf.logical_and(_between(tissue, axis=1), _between(tissue, axis=2)), 1)
    for axis in (2, 1, 0):  # the first makes the fewest voxels
        body = tf.gather(body, tf.range(tf.shape(hu)[axis]) // _BLOCK, axis=axis)
    return body


def dilated(region: tf.Tensor, voxels: tf.Tensor) -> tf.Tensor:
    """A region, bool (z, y, x), and all that is within so many voxels of it along each axis."""
    near = tf.cast(region, tf.float32)[tf.newaxis, ..., tf.newaxis]
    for _ in tf.range(voxels):
        for size in ((3, 1, 1), (1, 3, 1), (1, 1, 3)):
            near = tf.nn.max_pool3d(near, size, strides=1, padding="SAME")
    return near[0, ..., 0] > 0


def resample_region(region: tf.Tensor, steps: tf.Tensor) -> tf.Tensor:
    """A region on the grid that `resample_hu` gives: all voxels there that a part of it touches.

    Args:
        region: bool (z, y, x).
        steps: float64 (3,), new over old spacing.
    """
    if tf.reduce_all(tf.equal(steps, 1)):
        return region
    return resample_hu(tf.cast(region, tf.int16) * 1000, steps) > 0


def background_outside(ids: tf.Tensor, region: tf.Tensor) -> tf.Tensor:
    """Class ids uint8 (z, y, x), 0 where the region, bool (z, y, x), is not."""
    return ids * tf.cast(region, tf.uint8)


def _tissue_blocks(hu: tf.Tensor) -> tf.Tensor:
    """Whether there is tissue in each block of voxels, bool (z, y, x) of blocks."""
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
    """Blocks that are set, or have such ones on both sides along an axis."""
    count = tf.cast(blocks, tf.int32)
    is_after, is_before = (
        tf.cumsum(count, axis=axis, reverse=reverse) > 0 for reverse in (False, True)
    )
    return tf.logical_and(is_after, is_before)
