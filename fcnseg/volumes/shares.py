"""Class ids between voxels: where two classes meet, both keep their volume.

Each class has a share of a new voxel: the sum of the weights with which the resampler of HU would
take that class's voxels. The class with the largest share is not always right. Half way between
voxels two shares are equal, and preferring one class moves or shrinks flat structures; and a convex
body loses volume to its surroundings, the more so the smaller it is. Therefore, of the voxels in
which the same two classes have the largest shares, each class takes as many as the sum of its
shares, those with its largest shares first. The share of a third class there is compensated where
it meets the two. Shares are counted in bins; the voxels of one bin are assigned to both classes by
numbers that favour no class and no direction. See decision record 0018.

The rule is written once for numpy and for TensorFlow: `xp` is either module, and only names that
both have are used. Class ids are float32 here, since the two modules cast by different names.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any, NamedTuple

# A prime, so that no share in steps of 1/2, 1/3 or 1/5 lies between two bins, where noise in the
# spacing would put equal shares into either. Odd, so that a half is the middle of a bin.
_OPEN_BINS = 67
BINS = _OPEN_BINS + 2
"""Number of bins of shares: one for none, one for all, and those between."""
_CERTAIN = 1e-3  # twice a share's error 500 voxels off centre, by 1e-6 in spacing
# Multiples of these are spread evenly over lines, planes and space: powers of the root of
# 1 = x^3 + x^4 (Roberts, "The unreasonable effectiveness of quasirandom sequences", 2018).
_ALONG_Z, _ALONG_Y, _ALONG_X = 0.8191725133961645, 0.6710436067037893, 0.5497004779019703
_BY_CLASS = 0.6180339887498949  # the golden section


class Taps(NamedTuple):
    """The voxels of the old grid with a weight in each of the new one, along one axis.

    Attributes:
        index: Indices of the old voxels, float64 (n_out, taps).
        weight: Their weights, as in `linear_matrix`, float64 (n_out, taps).
    """

    index: Any
    weight: Any


class Rank(NamedTuple):
    """A class of each voxel, float32 (count,) each.

    Attributes:
        class_id: The class id; any if the share is 0.
        share: Share of the class in the voxel, 0 to 1.
        score: The share plus a small number that orders equal shares.
    """

    class_id: Any
    share: Any
    score: Any


Leaders = tuple[Rank, Rank, Rank]
"""The three classes with the largest shares of each voxel, the largest first."""


class Contest(NamedTuple):
    """Two classes of each voxel, and the lower one's additional claim to their voxels.

    Attributes:
        low: The lower class id of the two, float32 (count,).
        high: The higher, float32 (count,).
        wanted: Additional voxels of the lower class due to this voxel, float32 (count,).
    """

    low: Any
    high: Any
    wanted: Any


class Parting(NamedTuple):
    """Threshold between the voxels of two classes: the lower class takes those in the bins below.

    Attributes:
        bin: The bin that is split between the classes, float64 (pairs,).
        portion: Portion of that bin that the lower class takes, float64 (pairs,).
    """

    bin: Any
    portion: Any


def count_taps(step: Any, n_in: Any, *, xp: ModuleType) -> Any:
    """Counts the old voxels, at most, that have a weight in one of the new, along one axis.

    Args:
        step: New spacing over old spacing, float64.
        n_in: Voxels of the old grid, float64.
        xp: numpy or tensorflow.
    """
    return xp.minimum(-xp.floor(_CERTAIN - 2 * xp.maximum(step, 1.0)), n_in)


def axis_taps(positions: Any, tap_index: Any, n_in: Any, step: Any, *, xp: ModuleType) -> Taps:
    """Computes the rows of `linear_matrix` without their zeros.

    Args:
        positions: Positions (n_out,) from `axis_positions`.
        tap_index: 0 .. `count_taps` - 1, float64.
        n_in: Voxels of the old grid, float64.
        step: New spacing over old spacing, float64.
        xp: numpy or tensorflow.
    """
    reach = xp.maximum(step, 1.0)
    last_start = n_in - count_taps(step, n_in, xp=xp)
    start = xp.minimum(xp.maximum(xp.floor(positions - reach) + 1, 0.0), last_start)
    index = start[:, None] + tap_index[None, :]
    weight = xp.maximum(1 - xp.abs(positions[:, None] - index) / reach, 0.0)
    return Taps(index, weight / xp.einsum("ot->o", weight)[:, None])


def tie_breaks(z: Any, y: Any, x: Any, *, xp: ModuleType) -> Any:
    """Computes evenly spread numbers in [0, 1), float64 (count,), for indices of voxels."""
    number = z * _ALONG_Z + y * _ALONG_Y + x * _ALONG_X
    return number - xp.floor(number)


def with_class(
    leaders: Leaders, class_id: Any, share: Any, tie_break: Any, *, xp: ModuleType
) -> Leaders:
    """Updates the leaders with one more class of each voxel.

    Args:
        leaders: Leaders so far; ranks of zeros at first.
        class_id: Another class of each voxel, float32 (count,).
        share: Its share, float32 (count,); a class without a share changes nothing.
        tie_break: Tie breaks from `tie_breaks`, float32 (count,).
        xp: numpy or tensorflow.
    """
    order = class_id * _BY_CLASS + tie_break
    score = xp.where(share > 0, share + _CERTAIN * (order - xp.floor(order)), 0.0)
    ranks, new = [], Rank(class_id, share, score)
    for rank in leaders:
        leads = new.score > rank.score
        ranks.append(Rank(*(xp.where(leads, a, b) for a, b in zip(new, rank, strict=True))))
        new = Rank(*(xp.where(leads, b, a) for a, b in zip(new, rank, strict=True)))
    first, second, third = ranks
    return first, second, third


def rivals(leaders: Leaders, *, xp: ModuleType) -> tuple[Contest, Contest, Contest]:
    """Derives the contests from the largest shares of each voxel.

    A voxel goes to one of the two classes of its first contest. The share of the third class in it
    is lost to these two, and is compensated where it meets them: in other voxels, the second and
    third contest.
    """
    first, second, third = leaders
    both = first.share + second.share
    high_share = xp.where(first.class_id < second.class_id, second.share, first.share) / both
    high_share = xp.where(high_share > _CERTAIN, high_share, 0.0)
    high_share = xp.where(high_share < 1 - _CERTAIN, high_share, 1.0)
    contests = [_contest(first, second, 1 - high_share, xp=xp)]
    for rank in (first, second):
        lost = third.share * rank.share / both
        is_low = third.class_id < rank.class_id
        contests.append(_contest(rank, third, xp.where(is_low, lost, -lost), xp=xp))
    return contests[0], contests[1], contests[2]


def _contest(rank: Rank, other: Rank, wanted: Any, *, xp: ModuleType) -> Contest:
    low, high = (edge(rank.class_id, other.class_id) for edge in (xp.minimum, xp.maximum))
    return Contest(low, high, wanted)


def bins_of(contest: Contest, *, xp: ModuleType) -> Any:
    """Computes the bins, 0 to `BINS` - 1, of the higher class's shares in a first contest."""
    share = 1 - contest.wanted
    return xp.where(share > 0, 1 + xp.floor(share * _OPEN_BINS), 0.0)


def part(counts: Any, wanted: Any, *, xp: ModuleType) -> Parting:
    """Splits the voxels of two classes so that the lower class gets as many as wanted.

    Args:
        counts: Voxels in each bin, float64 (pairs, `BINS`).
        wanted: Voxels for the lower class, float64 (pairs,). Voxels in which its share is all or
            nothing are not split.
        xp: numpy or tensorflow.
    """
    least, most = counts[:, 0], xp.einsum("pb->p", counts[:, :-1])
    wanted = xp.minimum(xp.maximum(wanted, least), most)
    ones, none = xp.ones_like(counts), xp.zeros_like(counts)
    is_below = xp.cumsum(counts, axis=1) < wanted[:, None]
    is_parted = xp.cumsum(xp.where(is_below, none, ones), axis=1) == 1
    taken = xp.einsum("pb->p", xp.where(is_below, counts, none))
    in_bin = xp.einsum("pb->p", xp.where(is_parted, counts, none))
    return Parting(
        bin=xp.einsum("pb->p", xp.where(is_below, ones, none)),
        portion=(wanted - taken) / xp.maximum(in_bin, 1.0),
    )


def goes_low(bins: Any, tie_break: Any, parting: Parting, *, xp: ModuleType) -> Any:
    """Decides which voxels go to the lower of their two classes, bool (count,).

    Args:
        bins: Bins from `bins_of`, (count,).
        tie_break: Tie breaks from `tie_breaks`, (count,).
        parting: Threshold of each voxel's two classes, (count,).
        xp: numpy or tensorflow.
    """
    in_portion = xp.logical_and(bins == parting.bin, tie_break < parting.portion)
    return xp.logical_or(bins < parting.bin, in_portion)
