"""Random centres of patches: at a voxel of an organ, translated, or anywhere in the volume."""

from __future__ import annotations

import dataclasses

import tensorflow as tf

from fcnseg.volumes import Shape, Triple

# Separates the random stream of the translation from the others.
_TRANSLATION = 2
# Voxels by which rounding can carry a voxel beyond its computed position: the centre of an even
# patch lies half a voxel from a voxel, and a shortened translation is rounded to whole voxels.
_ROUNDING = 1.5


@dataclasses.dataclass(frozen=True)
class CentreRule:
    """The distribution of patch centres.

    Attributes:
        label_size: Voxels (z, y, x) of the label, which is the middle of the patch.
        foreground_fraction: Probability that a patch is drawn for an organ of the case, if it has
            any: all organs equally likely, then all of its stored voxels. The label contains that
            voxel, whatever is drawn afterwards. Every other patch is centred on a uniformly drawn
            voxel of the volume, and is not translated.
        translation: Largest distance (z, y, x) of the centre from the organ's voxel in voxels, in
            either direction of each axis, all whole numbers equally likely. Those are excluded that
            would move more of the label out of the volume, or the voxel out of the label.
        displacement: Largest displacement (z, y, x) of a voxel by deformation, in voxels.
    """

    label_size: Shape
    foreground_fraction: float
    translation: Shape = (0, 0, 0)
    displacement: Triple = (0.0, 0.0, 0.0)


def draw_centre(
    record: dict[str, tf.Tensor],
    seed: tf.Tensor,
    rule: CentreRule,
    *,
    matrix: tf.Tensor | None = None,
) -> tf.Tensor:
    """Draws the centre of a patch.

    Args:
        record: Record from `decode_record`.
        seed: int64 (2,); the draw depends on nothing else.
        rule: The distribution.
        matrix: float32 (3, 3), from offsets in the patch to offsets in the volume, if the patch is
            rotated, scaled or flipped about its centre.

    Returns:
        The voxel int64 (3,) at index `size // 2` of the patch. It may lie outside the volume along
        an axis that is shorter than the label.
    """
    choice_seed, voxel_seed = tf.unstack(tf.random.experimental.stateless_split(seed, 2))
    wants_organ = tf.random.stateless_uniform([], choice_seed) < rule.foreground_fraction
    has_organ = tf.reduce_any(record["foreground_counts"] > 0)
    translation_seed = tf.random.experimental.stateless_fold_in(seed, _TRANSLATION)

    def at_organ() -> tf.Tensor:
        voxel = _organ_voxel(record, voxel_seed)
        if not any(rule.translation):
            return voxel
        moved = _translation(voxel, record["shape"], rule, translation_seed)
        return voxel + (moved if matrix is None else _shortened(moved, matrix, rule))

    return tf.cond(
        tf.logical_and(wants_organ, has_organ),
        at_organ,
        lambda: _below(record["shape"], voxel_seed),
    )


def _organ_voxel(record: dict[str, tf.Tensor], seed: tf.Tensor) -> tf.Tensor:
    """A stored voxel int64 (3,) of an organ of the case."""
    counts = record["foreground_counts"]
    organs = tf.where(counts > 0)[:, 0]
    organ_seed, row_seed = tf.unstack(tf.random.experimental.stateless_split(seed, 2))
    organ = organs[_below(tf.size(organs, tf.int64), organ_seed)]
    first = tf.reduce_sum(counts[:organ])  # rows are ordered by class
    row = first + _below(counts[organ], row_seed)
    return tf.cast(record["foreground_coordinates"][row], tf.int64)


def _translation(
    voxel: tf.Tensor, shape: tf.Tensor, rule: CentreRule, seed: tf.Tensor
) -> tf.Tensor:
    """Whole voxels int64 (3,) from an organ's voxel to the centre, uniform over those allowed."""
    size, most = (tf.constant(each, tf.int64) for each in (rule.label_size, rule.translation))
    before, after = (
        size // 2,
        size - 1 - size // 2,
    )  # voxels of the label on each side of its centre
    # Between these two centres the label lies in the volume, or the volume in the label.
    ends = before, shape - 1 - after
    first = tf.maximum(-tf.minimum(most, after), tf.minimum(tf.minimum(*ends) - voxel, 0))
    last = tf.minimum(tf.minimum(most, before), tf.maximum(tf.maximum(*ends) - voxel, 0))
    return first + _below(last - first + 1, seed)


def _shortened(translation: tf.Tensor, matrix: tf.Tensor, rule: CentreRule) -> tf.Tensor:
    """A translation after which rotation, scale and deformation keep the voxel in the label."""
    back = tf.linalg.inv(matrix)
    room = tf.constant(rule.displacement, tf.float32) + _ROUNDING
    limit = tf.constant(rule.label_size, tf.float32) / 2 - tf.linalg.matvec(tf.abs(back), room)
    offset = tf.cast(translation, tf.float32)
    carried = tf.abs(tf.linalg.matvec(back, offset))
    share = tf.reduce_min(tf.where(carried > limit, tf.maximum(limit, 0.0) / carried, 1.0))
    return tf.cast(share * offset, tf.int64)


def _below(limit: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Uniform integers from 0 to below a limit, of its shape and type int64."""
    # float64: float32 would never reach some of more than 2^24 numbers.
    share = tf.random.stateless_uniform(tf.shape(limit), seed, dtype=tf.float64)
    return tf.cast(share * tf.cast(limit, tf.float64), tf.int64)
