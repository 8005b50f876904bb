"""Class ids on another grid, by numpy: most voxels are copied, those at borders are decided."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fcnseg.volumes import shares
from fcnseg.volumes.shares import BINS
from fcnseg.volumes.volume import Triple

_WEIGHED_AT_ONCE = 2**21  # old voxels around new ones: 8 MiB for each float32 copy

Positions = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.float64]]


class _Axis(NamedTuple):
    """As `shares.Taps`, and the windows of old voxels that hold all taps of a new one.

    Attributes:
        index: intp (n_out, taps).
        weight: float32 (n_out, taps).
        start: Of the window, intp (n_out,).
        length: Of all windows.
    """

    index: npt.NDArray[np.intp]
    weight: npt.NDArray[np.float32]
    start: npt.NDArray[np.intp]
    length: int


_Axes = tuple[_Axis, _Axis, _Axis]


class _Borders(NamedTuple):
    """What is known of new voxels among old ones of several classes, (count,) each.

    Attributes:
        pair: Lower and higher of the two classes with the largest shares, as `_pairs` puts them.
        bins: Of the share of the higher.
        low_share: Share of the lower in both.
        tie_break: As `shares.tie_breaks` gives it.
        other_pair: Pairs that are made good, twice where third classes have shares.
        other_wanted: What the lower class of these is to have more.
    """

    pair: npt.NDArray[np.int64]
    bins: npt.NDArray[np.uint8]
    low_share: npt.NDArray[np.float32]
    tie_break: npt.NDArray[np.float32]
    other_pair: npt.NDArray[np.int64]
    other_wanted: npt.NDArray[np.float32]


def resample_ids(
    array: npt.NDArray[Any], positions: Positions, steps: Triple
) -> npt.NDArray[Any]:
    """Brings class ids to another grid, as `fcnseg.volumes.shares` decides.

    Args:
        array: Class ids (z, y, x), whole numbers from 0 to 2^24.
        positions: Of the new voxels along (z, y, x), in voxels of the array and within it.
        steps: New spacing over old spacing along (z, y, x).

    Returns:
        Ids of the same type.
    """
    along_z, along_y, along_x = map(_axis, positions, array.shape, steps)
    axes = (along_z, along_y, along_x)
    ids = np.empty([len(each) for each in positions], array.dtype)
    is_border = np.empty(ids.shape, np.bool_)
    for number, start in enumerate(along_z.start):
        planes = array[start : start + along_z.length]
        _copy_plane(planes, (along_y, along_x), ids[number], is_border[number])
    places = np.flatnonzero(is_border)
    del is_border
    count = max(1, _WEIGHED_AT_ONCE // math.prod(axis.index.shape[1] for axis in axes))
    found = [
        _weigh(array, axes, np.unravel_index(places[first : first + count], ids.shape))
        for first in range(0, len(places), count)
    ]
    if found:
        ids.reshape(-1)[places] = _decide(_Borders(*map(np.concatenate, zip(*found, strict=True))))
    return ids


def _axis(positions: npt.NDArray[np.float64], length: int, step: float) -> _Axis:
    taps = int(shares.count_taps(step, xp=np))
    index, weight = shares.axis_taps(
        positions, np.arange(taps, dtype=np.float64), length, step, xp=np
    )
    window = min(taps, length)
    start = np.minimum(index[:, 0], length - window).astype(np.intp)
    return _Axis(index.astype(np.intp), weight.astype(np.float32), start, window)


def _copy_plane(
    planes: npt.NDArray[Any],
    axes: tuple[_Axis, _Axis],
    ids: npt.NDArray[Any],
    is_border: npt.NDArray[np.bool_],
) -> None:
    """Copies the first of the old voxels around each new one, and tells where others differ.

    Args:
        planes: The old slices (z, y, x) around a new one.
        axes: Along y and x.
        ids: A new slice (y, x), to be filled.
        is_border: Likewise.
    """
    along_y, along_x = axes
    plane = np.ascontiguousarray(planes[0])
    is_same = np.ones(plane.shape, np.bool_)
    for other in planes[1:]:
        is_same &= plane == other
    is_same = _same_ahead(is_same, plane, along_y.length)[along_y.start]
    plane = plane[along_y.start]
    is_same = _same_ahead(is_same.T, plane.T, along_x.length).T
    np.take(plane, along_x.start, axis=1, out=ids)
    np.logical_not(np.take(is_same, along_x.start, axis=1), out=is_border)


def _same_ahead(
    is_same: npt.NDArray[np.bool_], ids: npt.NDArray[Any], length: int
) -> npt.NDArray[np.bool_]:
    """Tells, along the first axis, from where so many voxels are of one class, and `is_same`."""
    if length == 1:
        return is_same
    steady = is_same[:-1] & is_same[1:] & (ids[:-1] == ids[1:])
    count = len(ids) - length + 1
    result = steady[:count].copy(order="K")
    for first in range(1, length - 1):
        result &= steady[first : first + count]
    return result


def _weigh(array: npt.NDArray[Any], axes: _Axes, index: tuple[npt.NDArray[np.intp], ...]) -> _Borders:
    """The classes with the largest shares of the voxels at some indices (z, y, x)."""
    (in_z, by_z), (in_y, by_y), (in_x, by_x) = (
        (axis.index[i].T, axis.weight[i].T) for axis, i in zip(axes, index, strict=True)
    )
    count = len(index[0])
    around = array[in_z[:, None, None], in_y[:, None], in_x]
    ids = around.astype(np.float32).reshape(-1, count)
    weights = (by_z[:, None, None] * by_y[:, None] * by_x).reshape(-1, count)
    tie_break = shares.tie_breaks(*index, xp=np).astype(np.float32)
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
    pairs: npt.NDArray[np.int64] = contest.low.astype(np.int64) << 32 | contest.high.astype(np.int64)
    return pairs


def _leaders(
    ids: npt.NDArray[np.float32], weights: npt.NDArray[np.float32], tie_break: npt.NDArray[np.float32]
) -> shares.Leaders:
    """Looks at one class after the other; most voxels have two."""
    leaders = np.zeros((9, len(tie_break)), np.float32)
    open_voxels = np.arange(len(tie_break))
    class_id = ids.min(axis=0)
    while len(open_voxels):
        share = np.einsum("tn->n", np.where(ids == class_id, weights, np.float32(0)))
        so_far = _as_leaders(leaders[:, open_voxels])
        ranks = shares.with_class(so_far, class_id, share, tie_break, xp=np)
        leaders[:, open_voxels] = np.concatenate(ranks)
        class_id = np.where(ids > class_id, ids, np.float32(np.inf)).min(axis=0)
        has_more = np.isfinite(class_id)
        if not has_more.all():
            ids, weights = ids[:, has_more], weights[:, has_more]
            class_id, tie_break = class_id[has_more], tie_break[has_more]
            open_voxels = open_voxels[has_more]
    return _as_leaders(leaders)


def _as_leaders(rows: npt.NDArray[np.float32]) -> shares.Leaders:
    return shares.Rank(*rows[:3]), shares.Rank(*rows[3:6]), shares.Rank(*rows[6:])


def _decide(borders: _Borders) -> npt.NDArray[np.int64]:
    """The class of each voxel at a border."""
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
