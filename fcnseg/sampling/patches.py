"""Patches of a decoded record."""

from __future__ import annotations

import tensorflow as tf

from fcnseg.volumes import AIR_HU, Shape

_BACKGROUND = 0


def cut_patch(
    record: dict[str, tf.Tensor], centre: tf.Tensor, *, size: Shape, label_size: Shape
) -> tuple[tf.Tensor, tf.Tensor]:
    """Cuts a patch; outside the volume it is padded with air and background.

    Args:
        record: Record from `decode_record`.
        centre: Voxel int64 (3,) at index `size // 2`.
        size: Voxels (z, y, x) of the image.
        label_size: Voxels (z, y, x) of the label, which is the middle of the patch.

    Returns:
        HU int16 of `size`, and class indices of `label_size`.
    """
    image = _cut(record["image"], centre, size, outside=AIR_HU)
    return image, _cut(record["label"], centre, label_size, outside=_BACKGROUND)


def _cut(volume: tf.Tensor, centre: tf.Tensor, size: Shape, *, outside: int) -> tf.Tensor:
    """The part of a volume (z, y, x) about a voxel; only that part is copied."""
    shape = tf.shape(volume, tf.int64)
    start = centre - tf.constant(size, tf.int64) // 2
    begin = tf.clip_by_value(start, 0, shape)
    end = tf.clip_by_value(start + size, 0, shape)
    padding = tf.stack([begin - start, start + size - end], axis=1)
    part = tf.strided_slice(volume, begin, end)
    return tf.ensure_shape(tf.pad(part, padding, constant_values=outside), size)
