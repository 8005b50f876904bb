"""The borders between classes on another grid, inside the graph: `fcnseg.volumes.shares` by slabs.

Most voxels of the new grid lie among old ones of a single class. The others are at borders; shares
are computed only for these.
"""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from fcnseg.volumes import shares
from fcnseg.volumes.shares import BINS, Contest, Leaders, Parting, Rank

_WEIGHED_AT_ONCE = 2**19  # old voxels around new ones: 2 MiB for each float32 copy


class Axis(NamedTuple):
    """The old voxels with a weight in each new one, along one axis.

    Attributes:
        index: int32 (n_out, taps).
        weight: float32 (n_out, taps).
    """

    index: tf.Tensor
    weight: tf.Tensor


Axes = tuple[Axis, Axis, Axis]


class Slab(NamedTuple):
    """New slices, and the old ones from which they are computed.

    Attributes:
        old: Class ids, uint8 (z, y, x).
        axes: Weights from the old slices to the new.
        start: First of the new slices in the volume, int32.
        classes: Classes of the new voxels, int16 (z, y, x), -1 at borders.
        index: Indices of the voxels at borders, int32 (count, 3).
    """

    old: tf.Tensor
    axes: Axes
    start: tf.Tensor
    classes: tf.Tensor
    index: tf.Tensor


class Tally(NamedTuple):
    """Running totals over the borders of a volume, for each pair of classes.

    Attributes:
        counts: Voxels in each bin, float64 (pairs x `BINS`,).
        wanted: Voxels for the lower class, float64 (pairs,).
    """

    counts: tf.Tensor
    wanted: tf.Tensor


def axis(positions: tf.Tensor, n_in: tf.Tensor, step: tf.Tensor) -> Axis:
    """Finds the old voxels around new ones at positions float64 (n_out,), along one axis."""
    n_in = tf.cast(n_in, tf.float64)
    taps = tf.range(shares.count_taps(step, n_in, xp=tf))
    found = shares.axis_taps(positions, taps, n_in, step, xp=tf)
    return Axis(tf.cast(found.index, tf.int32), tf.cast(found.weight, tf.float32))


def slab(ids: tf.Tensor, axes: Axes, start: tf.Tensor, end: tf.Tensor) -> Slab:
    """Computes the new slices from start to end.

    Args:
        ids: The old grid, uint8 (z, y, x).
        axes: Weights from the old grid to the new.
        start: int32.
        end: int32.
    """
    along_z = Axis(*(each[start:end] for each in axes[0]))
    first, last = along_z.index[0, 0], along_z.index[-1, -1] + 1
    old = ids[first:last]
    axes = (along_z._replace(index=along_z.index - first), axes[1], axes[2])
    classes = tf.cast(old, tf.int16)
    for number in range(3):
        classes = _only_class(classes, axes[number], number)
    index = tf.cast(tf.where(classes < 0), tf.int32)
    return Slab(old, axes, start, classes, index)


def empty_tally(num_classes: int) -> Tally:
    """An empty tally."""
    pairs = num_classes**2
    return Tally(tf.zeros([pairs * BINS], tf.float64), tf.zeros([pairs], tf.float64))


def counted(tally: Tally, part: Slab, *, num_classes: int) -> Tally:
    """Adds the borders of a slab to a tally."""
    batch = _batch(part)
    for first in tf.range(0, tf.shape(part.index)[0], batch):
        tf.autograph.experimental.set_loop_options(parallel_iterations=1)
        index = part.index[first : first + batch]
        contest, *others = _contests(part, index)
        place = _pairs(contest, num_classes) * BINS + _bins(contest)
        ones = tf.ones_like(contest.wanted, tf.float64)
        counts = tally.counts + tf.math.unsorted_segment_sum(ones, place, num_classes**2 * BINS)
        wanted = tally.wanted
        for each in (contest, *others):
            more = tf.cast(each.wanted, tf.float64)
            pairs = _pairs(each, num_classes)
            wanted += tf.math.unsorted_segment_sum(more, pairs, num_classes**2)
        tally = Tally(counts, wanted)
    return tally


def parted(tally: Tally) -> Parting:
    """Thresholds that separate the voxels of each pair of classes, float32 (pairs,)."""
    counts = tf.reshape(tally.counts, [-1, BINS])
    found = shares.part(counts, tally.wanted, xp=tf)
    return Parting(*(tf.cast(each, tf.float32) for each in found))


def decided(part: Slab, parting: Parting, *, num_classes: int) -> tf.Tensor:
    """Decides the class ids of a slab, uint8 (z, y, x)."""
    classes = tf.cast(part.classes, tf.uint8)
    batch = _batch(part)
    for first in tf.range(0, tf.shape(part.index)[0], batch):
        tf.autograph.experimental.set_loop_options(parallel_iterations=1)
        index = part.index[first : first + batch]
        contest = _contests(part, index)[0]
        of_each = Parting(*(tf.gather(each, _pairs(contest, num_classes)) for each in parting))
        bins = shares.bins_of(contest, xp=tf)
        is_low = shares.goes_low(bins, _tie_breaks(part, index), of_each, xp=tf)
        found = tf.cast(tf.where(is_low, contest.low, contest.high), tf.uint8)
        classes = tf.tensor_scatter_nd_update(classes, index, found)
    return classes


def _only_class(classes: tf.Tensor, along: Axis, number: int) -> tf.Tensor:
    """The class of all old voxels around each new one along an axis, int16, -1 if several.

    Args:
        classes: int16 (z, y, x); -1 where there are several classes along another axis.
        along: The axis.
        number: Number of the axis.
    """
    length = tf.shape(classes)[number]
    window = tf.minimum(tf.shape(along.index)[1], length)

    def cut(values: tf.Tensor, begin: tf.Tensor | int, end: tf.Tensor) -> tf.Tensor:
        index = [slice(None)] * 3
        index[number] = slice(begin, end)
        return values[tuple(index)]

    changes = cut(classes, 1, length) != cut(classes, 0, length - 1)
    padding = [[int(axis == number), 0] for axis in range(3)]
    so_far = tf.pad(tf.cumsum(tf.cast(changes, tf.int32), axis=number), padding)
    count = length - window + 1
    is_same = cut(so_far, window - 1, length) == cut(so_far, 0, count)
    only = tf.where(is_same, cut(classes, 0, count), tf.constant(-1, tf.int16))
    return tf.gather(only, tf.minimum(along.index[:, 0], count - 1), axis=number)


def _batch(part: Slab) -> tf.Tensor:
    """Number of voxels weighed at once."""
    around = tf.reduce_prod([tf.shape(axis.index)[1] for axis in part.axes])
    return tf.maximum(_WEIGHED_AT_ONCE // around, 1)


def _contests(part: Slab, index: tf.Tensor) -> tuple[Contest, Contest, Contest]:
    """The contests of voxels at borders, at indices int32 (count, 3) in their slab."""
    (in_z, by_z), (in_y, by_y), (in_x, by_x) = (
        [tf.transpose(tf.gather(each, index[:, number])) for each in axis]
        for number, axis in enumerate(part.axes)
    )
    _, height, width = tf.unstack(tf.shape(part.old))
    lines = (in_z * height)[:, tf.newaxis] + in_y
    places = (lines * width)[:, :, tf.newaxis] + in_x
    weights = (by_z[:, tf.newaxis] * by_y)[:, :, tf.newaxis] * by_x
    count = tf.shape(index)[0]
    places, weights = (tf.reshape(each, [-1, count]) for each in (places, weights))
    ids = tf.cast(tf.gather(tf.reshape(part.old, [-1]), places), tf.float32)
    return shares.rivals(_leaders(ids, weights, _tie_breaks(part, index)), xp=tf)


def _leaders(ids: tf.Tensor, weights: tf.Tensor, tie_break: tf.Tensor) -> Leaders:
    """Finds the leading classes of each voxel, one class at a time, the lowest first.

    Args:
        ids: Class ids of the old voxels around each new one, float32 (taps, count).
        weights: Their weights, float32 (taps, count).
        tie_break: float32 (count,).
    """
    nothing = Rank(*[tf.zeros_like(tie_break)] * 3)
    leaders = (nothing, nothing, nothing)
    class_id, highest = tf.reduce_min(ids, axis=0), tf.reduce_max(ids, axis=0)
    left = tf.ones_like(tie_break)  # share left for the highest class: most have two
    while tf.reduce_any(class_id < highest):
        weighed = tf.where(ids == class_id, weights, 0.0)
        share = tf.where(class_id < highest, tf.reduce_sum(weighed, axis=0), 0.0)
        leaders = shares.with_class(leaders, class_id, share, tie_break, xp=tf)
        left -= share
        class_id = tf.reduce_min(tf.where(ids > class_id, ids, highest), axis=0)
    return shares.with_class(leaders, highest, left, tie_break, xp=tf)


def _tie_breaks(part: Slab, index: tf.Tensor) -> tf.Tensor:
    z, y, x = tf.unstack(tf.cast(index, tf.float64), axis=1)
    z += tf.cast(part.start, tf.float64)
    return tf.cast(shares.tie_breaks(z, y, x, xp=tf), tf.float32)


def _pairs(contest: Contest, num_classes: int) -> tf.Tensor:
    return tf.cast(contest.low, tf.int32) * num_classes + tf.cast(contest.high, tf.int32)


def _bins(contest: Contest) -> tf.Tensor:
    return tf.cast(shares.bins_of(contest, xp=tf), tf.int32)
