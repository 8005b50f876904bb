"""Class ids on another grid, by numpy: most voxels are copied, those at borders are decided."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fcnseg.volumes import shares
from fcnseg.volumes.shares import BINS
from fcnseg.volumes.zyx import Triple, Zyx

_SLAB = 16  # slices computed at once
# A new voxel with more old ones along an axis uses every n-th of them: all would not fit into
# memory if a header has the wrong unit, and half an old voxel is 1 / 32 of a new one.
_MOST_STEP = 16
_WEIGHED_AT_ONCE = 2**17  # old voxels around new ones: their floats stay in a cache

Positions = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.float64]]


class _Axis(NamedTuple):
    """The taps of `shares.Taps`, and the windows of old voxels that contain all taps of a new one.

    Attributes:
        taps: Indices of old voxels, intp (n_out, taps).
        weight: Weights, float32 (n_out, taps).
        start: Starts of the windows, intp (n_out,).
        length: Length of all windows.
    """

    taps: npt.NDArray[np.intp]
    weight: npt.NDArray[np.float32]
    start: npt.NDArray[np.intp]
    length: int

    def part(self, rows: slice, first: int) -> _Axis:
        """Selects some new voxels, in an array that starts at an old voxel."""
        return _Axis(
            self.taps[rows] - first, self.weight[rows], self.start[rows] - first, self.length
        )


_Axes = tuple[_Axis, _Axis, _Axis]


class _Borders(NamedTuple):
    """New voxels among old ones of several classes, (count,) each.

    Attributes:
        pair: Lower and higher of the two classes with the largest shares, encoded by `_pairs`.
        bins: Bins of the share of the higher.
        low_share: Share of the lower in both.
        tie_break: Tie breaks of `shares.tie_breaks`.
        other_pair: Pairs that are compensated, twice if third classes have shares.
        other_wanted: Additional share of the lower class of these.
    """

    pair: npt.NDArray[np.int64]
    bins: npt.NDArray[np.uint8]
    low_share: npt.NDArray[np.float32]
    tie_break: npt.NDArray[np.float32]
    other_pair: npt.NDArray[np.int64]
    other_wanted: npt.NDArray[np.float32]


def resample_ids(array: npt.NDArray[Any], positions: Positions, steps: Triple) -> npt.NDArray[Any]:
    """Resamples class ids to another grid by the rule of `fcnseg.volumes.shares`.

    Args:
        array: Class ids (z, y, x), whole numbers from 0 to 2^24.
        positions: Positions of the new voxels along (z, y, x), in voxels of the array and within
            it.
        steps: New spacing over old spacing along (z, y, x).

    Returns:
        Ids of the same type.
    """
    array, positions, steps = _thinned(array, positions, steps)
    along_z, along_y, along_x = map(_axis, positions, array.shape, steps)
    ids = np.empty([len(each) for each in positions], array.dtype)
    places, found = [], []
    for start in range(0, len(ids), _SLAB):
        rows = slice(start, start + _SLAB)
        first, last = along_z.start[rows][0], along_z.start[rows][-1] + along_z.length
        old = np.ascontiguousarray(array[first:last])
        axes = (along_z.part(rows, first), along_y, along_x)
        index = _copy(old, axes, ids[rows])
        found += _weigh_all(old, axes, index, start=start)
        places.append(np.ravel_multi_index((index[0] + start, *index[1:]), ids.shape))
    if found:
        borders = _Borders(*map(np.concatenate, zip(*found, strict=True)))
        ids.reshape(-1)[np.concatenate(places)] = _decide(borders)
    return ids


def _thinned(
    array: npt.NDArray[Any], positions: Positions, steps: Triple
) -> tuple[npt.NDArray[Any], Positions, Triple]:
    """Drops old voxels, evenly about the centre, so that steps are `_MOST_STEP` at most."""
    strides = [max(1, math.ceil(step / _MOST_STEP)) for step in steps]
    if max(strides) == 1:
        return array, positions, steps
    firsts = [
        (length - 1) % stride // 2 for length, stride in zip(array.shape, strides, strict=True)
    ]
    kept = tuple(slice(first, None, n) for first, n in zip(firsts, strides, strict=True))
    array = np.ascontiguousarray(array[kept])
    thinned = Zyx(
        np.clip((places - first) / stride, 0, length - 1)
        for places, first, stride, length in zip(
            positions, firsts, strides, array.shape, strict=True
        )
    )
    return array, thinned, Zyx(step / stride for step, stride in zip(steps, strides, strict=True))


def _axis(positions: npt.NDArray[np.float64], length: int, step: float) -> _Axis:
    taps = int(shares.count_taps(step, length, xp=np))
    index, weight = shares.axis_taps(
        positions, np.arange(taps, dtype=np.float64), length, step, xp=np
    )
    index = index.astype(np.intp)
    return _Axis(index, weight.astype(np.float32), index[:, 0], taps)


def _copy(
    array: npt.NDArray[Any], axes: _Axes, ids: npt.NDArray[Any]
) -> tuple[npt.NDArray[np.intp], ...]:
    """Copies an old voxel close to each new one (z, y, x).

    Returns:
        Indices (z, y, x) of the new voxels that have weights of several classes, and of some
        others.
    """
    along_z, along_y, along_x = axes
    is_border = np.empty(ids.shape, np.bool_)
    for number, start in enumerate(along_z.start):
        plane = array[start]
        is_same = np.ones(plane.shape, np.bool_)
        for other in array[start + 1 : start + along_z.length]:
            is_same &= plane == other
        is_same = _same_ahead(is_same, plane, along_y.length)[along_y.start]
        plane = plane[along_y.start]
        is_same = _same_ahead(is_same.T, plane.T, along_x.length).T
        np.take(plane, along_x.start, axis=1, out=ids[number])
        np.logical_not(np.take(is_same, along_x.start, axis=1), out=is_border[number])
    return np.nonzero(is_border)


def _same_ahead(
    is_same: npt.NDArray[np.bool_], ids: npt.NDArray[Any], length: int
) -> npt.NDArray[np.bool_]:
    """Marks, along the first axis, the starts of `length` voxels of one class, all `is_same`."""
    if length == 1:
        return is_same
    steady = is_same[:-1] & is_same[1:] & (ids[:-1] == ids[1:])
    count = len(ids) - length + 1
    result = steady[:count].copy(order="K")
    for first in range(1, length - 1):
        result &= steady[first : first + count]
    return result


def _weigh_all(
    array: npt.NDArray[Any], axes: _Axes, index: tuple[npt.NDArray[np.intp], ...], *, start: int
) -> list[_Borders]:
    """Weighs the voxels at some indices (z, y, x) of a slab that starts at a slice."""
    count = max(1, _WEIGHED_AT_ONCE // math.prod(axis.taps.shape[1] for axis in axes))
    tie_break = shares.tie_breaks(index[0] + start, *index[1:], xp=np).astype(np.float32)
    batches = [slice(first, first + count) for first in range(0, len(tie_break), count)]
    return [
        _weigh(array, axes, tuple(each[batch] for each in index), tie_break[batch])
        for batch in batches
    ]


def _weigh(
    array: npt.NDArray[Any],
    axes: _Axes,
    index: tuple[npt.NDArray[np.intp], ...],
    tie_break: npt.NDArray[np.float32],
) -> _Borders:
    """Finds the classes with the largest shares of the voxels at some indices (z, y, x)."""
    (in_z, by_z), (in_y, by_y), (in_x, by_x) = (
        (axis.taps[i].T, axis.weight[i].T) for axis, i in zip(axes, index, strict=True)
    )
    _, height, width = array.shape
    lines = (in_z * height)[:, None] + in_y
    places = (lines * width)[:, :, None] + in_x
    ids = array.reshape(-1).take(places).reshape(-1, len(tie_break))
    weights = ((by_z[:, None] * by_y)[:, :, None] * by_x).reshape(ids.shape)
    leaders = _leaders(ids, weights, tie_break)
    contest, *others = shares.rivals(leaders, xp=np)
    third = leaders[2].share > 0
    return _Borders(
        _pairs(contest),
        shares.bins_of(contest, xp=np).astype(np.uint8),
        contest.wanted,
        tie_break,
        np.concatenate([_pairs(other)[third] for other in others]),
        np.concatenate([other.wanted[third] for other in others]),
    )


def _pairs(contest: shares.Contest) -> npt.NDArray[np.int64]:
    pairs: npt.NDArray[np.int64] = contest.low.astype(np.int64) << 32 | contest.high.astype(
        np.int64
    )
    return pairs


def _leaders(
    ids: npt.NDArray[Any], weights: npt.NDArray[np.float32], tie_break: npt.NDArray[np.float32]
) -> shares.Leaders:
    """Finds the classes with the largest shares; the few voxels with three or more, one by one.

    Args:
        ids: Class ids of the old voxels around each new one (taps, count).
        weights: Their weights (taps, count).
        tie_break: Tie breaks of `shares.tie_breaks` (count,).
    """
    lowest, highest = ids.min(axis=0), ids.max(axis=0)
    is_lowest = ids == lowest
    share = np.einsum("tn->n", np.where(is_lowest, weights, np.float32(0)))
    leaders = np.zeros((3, 3, len(tie_break)), np.float32)  # (rank, as in `Rank`, voxel)

    def look_at(voxels: Any, class_id: npt.NDArray[Any], share: npt.NDArray[np.float32]) -> None:
        so_far = _ranks(leaders[..., voxels])
        leaders[..., voxels] = shares.with_class(
            so_far, class_id.astype(np.float32), share, tie_break[voxels], xp=np
        )

    everywhere = slice(None)
    look_at(everywhere, lowest, share)
    has_two = (is_lowest | (ids == highest)).all(axis=0)
    look_at(everywhere, highest, np.where(has_two & (lowest < highest), 1 - share, np.float32(0)))
    for class_id in np.unique(ids[:, ~has_two]):
        is_class = ids == class_id
        voxels = np.flatnonzero(~has_two & is_class.any(axis=0) & (lowest != class_id))
        share = np.einsum("tn->n", np.where(is_class[:, voxels], weights[:, voxels], np.float32(0)))
        look_at(voxels, np.full(len(voxels), class_id), share)
    return _ranks(leaders)


def _ranks(rows: npt.NDArray[np.float32]) -> shares.Leaders:
    first, second, third = (shares.Rank(*rank) for rank in rows)
    return first, second, third


def _decide(borders: _Borders) -> npt.NDArray[np.int64]:
    """Decides the class of each voxel at a border."""
    pairs, pair = np.unique(borders.pair, return_inverse=True)
    counts = np.bincount(pair * BINS + borders.bins, minlength=len(pairs) * BINS)
    wanted = np.bincount(pair, borders.low_share, minlength=len(pairs))
    other = np.minimum(np.searchsorted(pairs, borders.other_pair), len(pairs) - 1)
    meets = pairs[other] == borders.other_pair
    wanted += np.bincount(other[meets], borders.other_wanted[meets], minlength=len(pairs))
    parting = shares.part(counts.reshape(-1, BINS).astype(np.float64), wanted, xp=np)
    of_each = shares.Parting(*(each[pair] for each in parting))
    is_low = shares.goes_low(borders.bins, borders.tie_break, of_each, xp=np)
    return np.where(is_low, borders.pair >> 32, borders.pair & 0xFFFFFFFF)
