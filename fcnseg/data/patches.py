"""Drawing patches of a decoded record, each organ of the case alike."""

from __future__ import annotations

import tensorflow as tf

from fcnseg.volumes import AIR_HU
from fcnseg.volumes.volume import Shape

_BACKGROUND = 0
# Sets the draw of the shift apart from the others.
_SHIFT = 2


def draw_patch(
    record: dict[str, tf.Tensor],
    seed: tf.Tensor,
    *,
    size: Shape,
    label_size: Shape,
    foreground_fraction: float,
    shift: Shape = (0, 0, 0),
) -> tuple[tf.Tensor, tf.Tensor]:
    """Draws a patch; where it hangs over the volume's border it holds air and background.

    Args:
        record: As `decode_record` gives it.
        seed: int64 (2,); the draw depends on nothing else.
        size: Voxels (z, y, x) of the image.
        label_size: Voxels (z, y, x) of the label, which is the middle of the patch.
        foreground_fraction: Probability that the centre is a voxel of an organ: one of the case's
            organs, each alike, then one of its stored voxels. Else any voxel is the centre.
        shift: Voxels (z, y, x) by which the centre is moved at most, each axis either way, within
            the volume.

    Returns:
        HU int16 of `size`, and class indices of `label_size`.
    """
    choice_seed, voxel_seed = tf.unstack(tf.random.experimental.stateless_split(seed, 2))
    wants_organ = tf.random.stateless_uniform([], choice_seed) < foreground_fraction
    has_organ = tf.reduce_any(record["foreground_counts"] > 0)
    centre = tf.cond(
        tf.logical_and(wants_organ, has_organ),
        lambda: _organ_voxel(record, voxel_seed),
        lambda: _below(record["shape"], voxel_seed),
    )
    if any(shift):
        moved = centre + _shift(shift, tf.random.experimental.stateless_fold_in(seed, _SHIFT))
        centre = tf.clip_by_value(moved, tf.zeros_like(moved), record["shape"] - 1)
    image = _cut(record["image"], centre, size, outside=AIR_HU)
    return image, _cut(record["label"], centre, label_size, outside=_BACKGROUND)


def _organ_voxel(record: dict[str, tf.Tensor], seed: tf.Tensor) -> tf.Tensor:
    """A stored voxel int64 (3,) of an organ that the case has."""
    counts = record["foreground_counts"]
    organs = tf.where(counts > 0)[:, 0]
    organ_seed, row_seed = tf.unstack(tf.random.experimental.stateless_split(seed, 2))
    organ = organs[_below(tf.size(organs, tf.int64), organ_seed)]
    first = tf.reduce_sum(counts[:organ])  # rows are ordered by class
    row = first + _below(counts[organ], row_seed)
    return tf.cast(record["foreground_coordinates"][row], tf.int64)


def _shift(largest: Shape, seed: tf.Tensor) -> tf.Tensor:
    """Whole voxels int64 (3,) from -largest to largest, each alike."""
    reach = tf.constant(largest, tf.int64)
    return _below(2 * reach + 1, seed) - reach


def _below(limit: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Uniform integers from 0 to below a limit, of its shape and type int64."""
    # float64: float32 would never reach some of more than 2^24 numbers.
    share = tf.random.stateless_uniform(tf.shape(limit), seed, dtype=tf.float64)
    return tf.cast(share * tf.cast(limit, tf.float64), tf.int64)


def _cut(volume: tf.Tensor, centre: tf.Tensor, size: Shape, *, outside: int) -> tf.Tensor:
    """The part of a volume (z, y, x) about a voxel; only that part is copied."""
    shape = tf.shape(volume, tf.int64)
    start = centre - tf.constant(size, tf.int64) // 2
    begin = tf.maximum(start, 0)
    end = tf.minimum(start + size, shape)
    padding = tf.stack([begin - start, start + size - end], axis=1)
    part = tf.strided_slice(volume, begin, end)
    return tf.ensure_shape(tf.pad(part, padding, constant_values=outside), size)
