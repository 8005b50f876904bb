"""Patch sizes that networks take, found by trying their input shapes."""

from __future__ import annotations

import bisect
import dataclasses
import math
from collections.abc import Sequence

import keras

from fcnseg.volumes import Shape

# A request of this many windows takes about the memory of a complete scan's sliding window:
# networks of 32 channels take some 3 GB at 64 x 64 x 64.
_MOST_WINDOWS = 16


@dataclasses.dataclass(frozen=True)
class PatchSizes:
    """Patch sizes that can pass through networks.

    Attributes:
        smallest: Voxels (z, y, x) of the smallest patch.
        step: Increment (z, y, x) of larger sizes, in voxels.
        max_voxels: Maximum number of voxels of all patches of a request.
    """

    smallest: Shape
    step: Shape
    max_voxels: int

    @classmethod
    def of(cls, models: Sequence[keras.Model], window: Shape, *, batch_size: int) -> PatchSizes:
        """Finds the sizes that all of some networks take.

        Args:
            models: Networks from HU (batch, z, y, x, 1) to logits.
            window: Voxels (z, y, x) that all of them take.
            batch_size: Number of windows per batch in a sliding window.
        """
        axes = [_smallest_and_step(models, window, axis) for axis in range(3)]
        smallest, step = zip(*axes, strict=True)
        windows = max(batch_size, _MOST_WINDOWS)
        return cls(smallest, step, max_voxels=windows * math.prod(window))


def _smallest_and_step(models: Sequence[keras.Model], window: Shape, axis: int) -> tuple[int, int]:
    """The shortest length along an axis, and the step between lengths, the others as the window."""

    def fits(length: int) -> bool:
        z, y, x = (length if each == axis else size for each, size in enumerate(window))
        return all(_takes(model, (z, y, x)) for model in models)

    length = window[axis]
    # For a network of a single size, the step has no meaning.
    step = next((step for step in range(1, length + 1) if fits(length + step)), length)
    shorter = range(length % step, length, step)
    return [*shorter, length][bisect.bisect_left(shorter, True, key=fits)], step


def _takes(model: keras.Model, shape: Shape) -> bool:
    """Tells whether a network takes patches of a shape (z, y, x)."""
    if not all(shape):
        return False
    try:
        *_, depth, height, width, _ = model.compute_output_shape((1, *shape, 1))
    except ValueError:  # a level of odd length, or of length 0
        return False
    return min(depth, height, width) > 0
