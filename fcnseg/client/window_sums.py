"""The sliding window on the client's side: windows go to a server, and their sums stay here.

The same windows, weights and sums as those of `fcnseg.inference.sliding_window`, in the same order;
a test holds the two equal.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from fcnseg.volumes import AIR_HU, Shape, Zyx
from fcnseg.volumes.tiling import Tiling

Patches = npt.NDArray[np.float32]
PredictPatches = Callable[[Patches], Patches]
"""From HU (batch, z, y, x, 1), each patch a window, to probabilities (batch, z, y, x, classes), of
which each is a tile."""
Progress = Callable[[int, int], None]
"""Is called with the number of windows that are done, and of all."""


def segment_windows(
    hu: npt.NDArray[np.int16],
    predict_patches: PredictPatches,
    tiling: Tiling,
    *,
    region: npt.NDArray[np.bool_] | None = None,
    batch_size: int = 1,
    progress: Progress | None = None,
) -> npt.NDArray[np.uint8]:
    """Segments a volume on the network's grid by its windows.

    Args:
        hu: int16 (z, y, x).
        predict_patches: Runs the network.
        tiling: Windows and tiles that cover the volume.
        region: bool (z, y, x); all of the volume by default. Windows whose tiles contain none of it
            are not computed, and voxels outside it are background.
        batch_size: Windows in a batch.
        progress: Is called after each batch.

    Returns:
        Class ids (z, y, x).
    """
    extent = Zyx(map(max, hu.shape, tiling.tile))
    before = Zyx((new - old) // 2 for new, old in zip(extent, hu.shape, strict=True))
    padded = _padded(hu, extent, before, tiling)
    starts = [tiling.starts(axis, extent[axis], xp=np).tolist() for axis in range(3)]
    useful = region if region is None else _placed(region, extent, before)
    layers = {z: list(_corners(z, starts, useful, tiling.tile)) for z in starts[0]}
    total, done = sum(map(len, layers.values())), 0
    sums = _LayerSums(extent, tiling)
    for z, corners in layers.items():
        sums.advance(z)
        for first in range(0, len(corners), batch_size):
            batch = corners[first : first + batch_size]
            windows = np.stack([_window(padded, z, y, x, tiling) for y, x in batch])
            tiles = predict_patches(windows[..., None].astype(np.float32))
            for (y, x), tile in zip(batch, tiles, strict=True):
                sums.add(y, x, tile)
            done += len(batch)
            if progress is not None:
                progress(done, total)
    ids = sums.finish()[tuple(slice(b, b + n) for b, n in zip(before, hu.shape, strict=True))]
    return ids if region is None else ids * region


class _LayerSums:
    """Weighted sums of the slices that the current layer of tiles reaches."""

    def __init__(self, extent: Shape, tiling: Tiling) -> None:
        self._tiling = tiling
        self._weights = tiling.importance()
        self._ids = np.zeros(extent, np.uint8)
        self._start = 0
        self._sums: npt.NDArray[np.float32] | None = None  # (z, y, x, classes), a tile deep

    def advance(self, start: int) -> None:
        """Moves to the layer that starts at a slice: those before it are final."""
        if self._sums is not None:
            self._keep(start)
            shift = start - self._start
            self._sums[: -shift or None] = self._sums[shift:].copy()
            self._sums[len(self._sums) - shift :] = 0
        self._start = start

    def add(self, y: int, x: int, tile: npt.NDArray[np.float32]) -> None:
        """Adds a tile (z, y, x, classes) of the layer."""
        if self._sums is None:
            depth, (_, height, width) = self._tiling.tile[0], self._ids.shape
            self._sums = np.zeros((depth, height, width, tile.shape[-1]), np.float32)
        _, height, width = self._tiling.tile
        self._sums[:, y : y + height, x : x + width] += tile * self._weights

    def finish(self) -> npt.NDArray[np.uint8]:
        """The class ids (z, y, x) of all slices."""
        if self._sums is not None:
            self._keep(self._ids.shape[0])
        return self._ids

    def _keep(self, end: int) -> None:
        """Takes the class with the largest sum in slices from the start of the layer to the end."""
        if self._sums is not None:
            for z in range(self._start, min(end, self._start + len(self._sums))):
                self._ids[z] = self._sums[z - self._start].argmax(axis=-1)


def _padded(
    hu: npt.NDArray[np.int16], extent: Shape, before: Shape, tiling: Tiling
) -> npt.NDArray[np.int16]:
    """The volume with air around it, as far as windows reach."""
    padding = [
        (first + margin, new - old - first + margin)
        for first, new, old, margin in zip(before, extent, hu.shape, tiling.margin, strict=True)
    ]
    return np.pad(hu, padding, constant_values=AIR_HU)


def _placed(region: npt.NDArray[np.bool_], extent: Shape, before: Shape) -> npt.NDArray[np.bool_]:
    padding = [
        (first, new - old - first)
        for first, new, old in zip(before, extent, region.shape, strict=True)
    ]
    return np.pad(region, padding)


def _corners(
    z: int, starts: list[list[int]], useful: npt.NDArray[np.bool_] | None, tile: Shape
) -> Iterator[tuple[int, int]]:
    """Starts (y, x) of the tiles of a layer that contain a voxel of the region."""
    depth, height, width = tile
    plane = None if useful is None else np.any(useful[z : z + depth], axis=0)
    for y, x in itertools.product(*starts[1:]):
        if plane is None or np.any(plane[y : y + height, x : x + width]):
            yield y, x


def _window(
    padded: npt.NDArray[np.int16], z: int, y: int, x: int, tiling: Tiling
) -> npt.NDArray[np.int16]:
    depth, height, width = tiling.window
    return padded[z : z + depth, y : y + height, x : x + width]
