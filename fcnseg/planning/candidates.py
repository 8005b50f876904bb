"""Networks with their patches, from the largest that suits a dataset down to the smallest.

As in nnU-Net's planner (Isensee et al. 2021, arXiv 1904.08128), the patch starts as a cube in mm of
256^3 voxels, no longer than the median case, and is then shortened along the axis that covers most
of the case, so it approaches the case's own shape. Three things are our own: there are six levels
at most, where nnU-Net has no bound; for small patches, channels are reduced before further voxels;
and no size ever grows from one candidate to the next, so more memory never proposes less.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator

from fcnseg.config import ModelConfig
from fcnseg.networks import plan_model, plan_strides
from fcnseg.volumes import Shape, Triple, Zyx

MAX_LEVELS = 6  # our own choice
MAX_FILTERS = 320  # channels of a level; nnU-Net
LARGEST_PATCH = 256**3  # voxels; nnU-Net
LARGE_PATCH = 64**3  # voxels; from here on channels are reduced first; our default patch
SMALLEST_PATCH = 32**3  # voxels; smaller ones show hardly any organ completely; our own choice
FILTERS_STEP = 8  # channels removed at once, and the fewest at the top; our own choice
_SHORTEST = 12  # voxels along an axis; room for two levels whatever the spacing (plan_strides)


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A network and its patch, whose size its strides divide.

    Attributes:
        model: The network.
        patch_size: Voxels (z, y, x).
    """

    model: ModelConfig
    patch_size: Shape

    @property
    def voxels(self) -> int:
        """Voxels of the patch."""
        return math.prod(self.patch_size)


def candidates(model: ModelConfig, spacing: Triple, shape: Shape) -> Iterator[Candidate]:
    """Yields candidates, none with more channels, or a longer patch along an axis, than the last.

    Args:
        model: Base network: its channels at the top are the maximum, its blocks, norm and the like
            are kept.
        spacing: Spacing (z, y, x) of the records, mm.
        shape: Voxels (z, y, x) of the median case.
    """
    filters = model.filters[0]
    patch: Shape | None = _largest(spacing, shape)
    while patch is not None:
        yield Candidate(plan_model(_deep(model, filters), spacing, patch), patch)
        shorter = _shortened(patch, spacing, shape)
        is_small = shorter is None or math.prod(shorter) < LARGE_PATCH
        if is_small and filters > FILTERS_STEP:
            filters = max(filters - FILTERS_STEP, FILTERS_STEP)
        elif shorter is None or math.prod(shorter) < SMALLEST_PATCH:
            return
        else:
            patch = shorter


def narrowing(model: ModelConfig, spacing: Triple, shape: Shape) -> Iterator[tuple[Candidate, ...]]:
    """Yields all candidates with the same channels at the top, from the maximum of channels down.

    Args:
        model: Base network, see `candidates`.
        spacing: Spacing (z, y, x) of the records, mm.
        shape: Voxels (z, y, x) of the median case.
    """
    top = model.filters[0]
    while True:
        wide = dataclasses.replace(model, filters=(top, *model.filters[1:]))
        found = candidates(wide, spacing, shape)
        _, equals = next(itertools.groupby(found, key=lambda each: each.model.filters[0]))
        yield tuple(equals)
        if top <= FILTERS_STEP:
            return
        top = max(top - FILTERS_STEP, FILTERS_STEP)


def _deep(model: ModelConfig, filters: int) -> ModelConfig:
    """The network with the maximum number of levels; its last number of blocks is repeated."""
    blocks = model.residual_blocks
    return dataclasses.replace(
        model,
        filters=tuple(min(filters * 2**level, MAX_FILTERS) for level in range(MAX_LEVELS)),
        residual_blocks=tuple(
            blocks[min(level, len(blocks) - 1)] for level in range(MAX_LEVELS) if blocks
        ),
        deep_supervision=MAX_LEVELS - 2 if model.deep_supervision else 0,
        strides=(),
        kernels=(),
    )


def _largest(spacing: Triple, shape: Shape) -> Shape:
    """The first patch, rounded up to a multiple of its strides."""
    edge_mm = (LARGEST_PATCH * math.prod(spacing)) ** (1 / 3)
    cube = Zyx(round(edge_mm / mm) for mm in spacing)
    size = Zyx(max(_SHORTEST, min(pair)) for pair in zip(cube, shape, strict=True))
    factors = _factors(size, spacing)
    return Zyx(-(-length // by) * by for length, by in zip(size, factors, strict=True))


def _shortened(patch: Shape, spacing: Triple, shape: Shape) -> Shape | None:
    """The next patch; None if no axis can be shorter."""
    factors = _factors(patch, spacing)
    axes = [axis for axis in range(3) if patch[axis] - factors[axis] >= _SHORTEST]
    if not axes:
        return None
    longest = max(axes, key=lambda axis: (patch[axis] / shape[axis], patch[axis]))
    shorter: Shape = Zyx(
        length - by * (axis == longest)
        for axis, (length, by) in enumerate(zip(patch, factors, strict=True))
    )
    while (whole := _rounded_down(shorter, spacing)) != shorter:
        shorter = whole
    return shorter


def _rounded_down(patch: Shape, spacing: Triple) -> Shape:
    factors = _factors(patch, spacing)
    return Zyx(length - length % by for length, by in zip(patch, factors, strict=True))


def _factors(patch: Shape, spacing: Triple) -> Shape:
    """Factors by which a network for the patch divides each axis."""
    strides = plan_strides(spacing, patch, max_levels=MAX_LEVELS).strides
    return Zyx(math.prod(axis) for axis in zip(*strides, strict=True))
