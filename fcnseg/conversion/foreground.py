"""Foreground facts stored with a label: voxels of each class, and coordinates of some."""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt

from fcnseg.records.schema import MOST_COORDINATES

Label = npt.NDArray[np.uint8 | np.uint16]


def count_classes(label: Label, *, num_classes: int) -> npt.NDArray[np.int64]:
    """Counts the voxels of each class in each slice.

    Args:
        label: Class indices (z, y, x).
        num_classes: Background included.

    Returns:
        Counts (z, K); indices that are no class, such as those to be ignored, are not counted.
    """
    return np.array(
        [np.bincount(plane.ravel(), minlength=num_classes)[:num_classes] for plane in label]
    )


def draw_coordinates(
    label: Label, counts: npt.NDArray[np.int64], *, case_id: str
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
    """Draws voxels of each class but the background uniformly, without replacement.

    One slice is processed at a time, so no array as large as the label is made.

    Args:
        label: Class indices (z, y, x).
        counts: Counts from `count_classes`.
        case_id: Seed of the draw: a case gives the same voxels in every run.

    Returns:
        Indices (n, 3) = (z, y, x), ordered by class, then by position, and the number of each class
        (K,): all of its voxels up to `MOST_COORDINATES`.
    """
    seed = int.from_bytes(hashlib.sha256(case_id.encode()).digest()[:8], "big")
    rng = np.random.default_rng(seed)
    drawn = np.minimum(counts.sum(axis=0), MOST_COORDINATES)
    drawn[0] = 0
    places = [
        place
        for index in np.flatnonzero(drawn)
        for place in _draw_class(label, int(index), counts[:, index], int(drawn[index]), rng)
    ]
    flat = np.concatenate(places) if places else np.empty(0, dtype=np.intp)
    coordinates = np.stack(np.unravel_index(flat, label.shape), axis=1)
    return coordinates.astype(np.int32), drawn


def _draw_class(
    label: Label,
    index: int,
    in_slice: npt.NDArray[np.int64],
    size: int,
    rng: np.random.Generator,
) -> list[npt.NDArray[np.int64]]:
    """Positions of one class in the flat label, slice by slice."""
    ends = np.cumsum(in_slice)
    # A voxel's rank is its index among all voxels of the class, in the order of the array.
    ranks = np.sort(rng.choice(ends[-1], size, replace=False, shuffle=False))
    slices, first = np.unique(np.searchsorted(ends, ranks, side="right"), return_index=True)
    return [
        np.flatnonzero(label[z] == index)[ranks_here - (ends[z] - in_slice[z])] + z * label[z].size
        for z, ranks_here in zip(slices, np.split(ranks, first[1:]), strict=True)
    ]
