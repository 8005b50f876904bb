"""Strides and kernels for the spacing of the data, so that thick slices are not mixed too early.

The rules are nnU-Net's (Isensee et al. 2021, arXiv 1904.08128, and its released planner),
reimplemented: an axis is halved as long as enough voxels are left and its spacing is less than
twice the finest that can still be halved; its kernel is 1 until its spacing is close enough to the
finest of all, and 3 from then on.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator

from fcnseg.config import ModelConfig
from fcnseg.errors import ConfigError
from fcnseg.volumes import Shape, Triple, Zyx

_SMALLEST = 4  # voxels left along an axis at the lowest level; nnU-Net
_NEAR = 2.0  # spacings that differ by less than this factor count as equal; nnU-Net


@dataclasses.dataclass(frozen=True)
class LevelPlan:
    """Strides and kernels planned for a spacing and a patch.

    Attributes:
        strides: Strides (z, y, x) from each level down to the next.
        kernels: Kernel size (z, y, x) of the convolutions of each level, so one more than strides.
    """

    strides: tuple[Shape, ...]
    kernels: tuple[Shape, ...]


def plan_strides(spacing: Triple, patch_size: Shape, *, max_levels: int = 6) -> LevelPlan:
    """Plans strides and kernels.

    Args:
        spacing: Spacing (z, y, x) of the records, mm.
        patch_size: Voxels (z, y, x).
        max_levels: Maximum number of levels of the network.

    Returns:
        The plan, with as many levels as fit the patch.

    Raises:
        ConfigError: If the patch is too small for two levels.

    >>> plan = plan_strides((5.0, 0.8, 0.8), (24, 192, 192))
    >>> plan.strides
    ((1, 2, 2), (1, 2, 2), (2, 2, 2), (2, 2, 2), (1, 2, 2))
    >>> plan.kernels[:3]
    ((1, 3, 3), (1, 3, 3), (3, 3, 3))
    """
    steps = list(itertools.islice(_steps(spacing, patch_size), max_levels - 1))
    if not steps:
        raise ConfigError(
            f"patches.size must have room for two levels, at least {2 * _SMALLEST} voxels along the"
            f" finer axes, got {patch_size} at {spacing} mm"
        )
    strides, kernels = zip(*steps, strict=True)
    return LevelPlan(tuple(strides), (*kernels, (3, 3, 3)))


def plan_model(model: ModelConfig, spacing: Triple, patch_size: Shape) -> ModelConfig:
    """Plans strides and kernels of a network for a spacing, with no more levels than fit the patch.

    Args:
        model: The network; its depth is the maximum.
        spacing: Spacing (z, y, x) of the records, mm.
        patch_size: Voxels (z, y, x).

    Raises:
        ConfigError: If the patch is too small for two levels.
    """
    plan = plan_strides(spacing, patch_size, max_levels=model.depth)
    depth = len(plan.kernels)
    return dataclasses.replace(
        model,
        filters=model.filters[:depth],
        residual_blocks=model.residual_blocks[:depth],
        deep_supervision=min(model.deep_supervision, depth - 2),
        strides=plan.strides,
        kernels=plan.kernels,
    )


def _steps(spacing: Triple, size: Shape) -> Iterator[tuple[Shape, Shape]]:
    """The stride below, and kernel of, each level but the lowest, from the top down."""
    spacings, sizes, kernel = list(spacing), list(size), [1, 1, 1]
    while axes := _axes_to_halve(spacings, sizes):
        finest = min(spacings)
        kernel = [
            3 if each == 3 or mm < _NEAR * finest else 1
            for each, mm in zip(kernel, spacings, strict=True)
        ]
        stride = [2 if axis in axes else 1 for axis in range(3)]
        yield Zyx(stride), Zyx(kernel)
        spacings = [mm * step for mm, step in zip(spacings, stride, strict=True)]
        sizes = [math.ceil(length / step) for length, step in zip(sizes, stride, strict=True)]


def _axes_to_halve(spacings: list[float], sizes: list[int]) -> list[int]:
    """Axes with enough voxels whose spacing is close to the finest among them."""
    roomy = [axis for axis, length in enumerate(sizes) if length >= 2 * _SMALLEST]
    if not roomy:
        return []
    finest = min(spacings[axis] for axis in roomy)
    near = [axis for axis in roomy if spacings[axis] < _NEAR * finest]
    is_worth_it = len(near) > 1 or sizes[near[0]] >= 3 * _SMALLEST
    return near if is_worth_it else []
