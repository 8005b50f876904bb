"""Tiling of a volume of any size by windows of one size."""

from __future__ import annotations

import dataclasses
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from fcnseg.errors import ModelError
from fcnseg.volumes.zyx import Shape


@dataclasses.dataclass(frozen=True)
class Tiling:
    """The windows that go into a network, and the tiles that come out, over a volume.

    Attributes:
        window: Voxels (z, y, x) that the network takes.
        tile: Voxels (z, y, x) of its output: the window, or its middle if convolutions do not pad.
            Tiles cover the volume; the margin of a window around its tile may lie outside.
        overlap: Voxels (z, y, x) by which neighbouring tiles overlap at least.
    """

    window: Shape
    tile: Shape
    overlap: Shape

    def __post_init__(self) -> None:
        for window, tile, overlap in zip(self.window, self.tile, self.overlap, strict=True):
            if not 0 <= overlap < tile:
                raise ModelError(
                    f"overlap must be smaller than what the network gives along each axis, got"
                    f" {self.overlap} and {self.tile} voxels (z, y, x)"
                )
            if window < tile or (window - tile) % 2:
                raise ModelError(
                    f"the network must give the middle of its window, got a tile of {self.tile}"
                    f" from a window of {self.window} voxels (z, y, x)"
                )

    @property
    def margin(self) -> npt.NDArray[np.int32]:
        """Voxels (z, y, x) of a window before, and after, its tile."""
        return (np.array(self.window, np.int32) - np.array(self.tile, np.int32)) // 2

    def starts(self, axis: int, extent: Any, *, xp: ModuleType) -> Any:
        """Starts of tiles along one axis, evenly spread from the first voxel to the last.

        Args:
            axis: 0, 1 or 2 for z, y, x.
            extent: Voxels of the volume along the axis, at least the tile's; a tensor is int32.
            xp: numpy or tensorflow.

        Returns:
            Whole numbers (count,), ascending, with the fewest tiles that keep the overlap.
        """
        last = extent - self.tile[axis]
        steps = -(-last // (self.tile[axis] - self.overlap[axis]))
        numbers = (xp.range if hasattr(xp, "range") else xp.arange)(steps + 1)
        return numbers * last // xp.maximum(steps, 1)

    def count(self, shape: Any, *, xp: ModuleType) -> Any:
        """Counts the windows that cover a volume.

        Args:
            shape: Voxels (z, y, x); a tensor is int32 (3,).
            xp: numpy or tensorflow.
        """
        count = 1
        for axis, tile in enumerate(self.tile):
            count *= xp.size(self.starts(axis, xp.maximum(shape[axis], tile), xp=xp))
        return count

    def importance(self) -> npt.NDArray[np.float32]:
        """Weight of each voxel of a tile, (z, y, x, 1): a Gaussian about its middle.

        Its sigma is an eighth of the tile, as in nnU-Net (Isensee et al. 2021): a network sees less
        of the surroundings of a voxel the nearer that is to the border.
        """
        z, y, x = (
            np.exp(-0.5 * ((np.arange(size) - (size - 1) / 2) / (size / 8)) ** 2)
            for size in self.tile
        )
        return np.einsum("z,y,x->zyx", z, y, x)[..., None].astype(np.float32)
