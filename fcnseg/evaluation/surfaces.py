"""Distances between two surfaces, by surface elements.

The definition of an element and its size, and of the percentile, the mean and the surface Dice of
distances, is that of DeepMind's `surface-distance` (Nikolov et al. 2021,
https://arxiv.org/abs/1809.04430). Only the search for the nearest element is implemented here, with
the same result: a tree of the elements is queried for each of the others, where the package
computes a distance map of the complete box, of which few values are needed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.spatial import KDTree

from fcnseg.extras import require_extra
from fcnseg.volumes import Triple

Voxels = npt.NDArray[np.bool_]
_ALL_INSIDE = 0xFF  # the code of a corner whose eight voxels are in the organ


@dataclasses.dataclass(frozen=True, eq=False)
class Surface:
    """The surface of an organ, an element at each voxel corner where inside and outside meet.

    Attributes:
        corners: Index (z, y, x) of the voxel corner of each element (n, 3).
        areas_mm2: Area of each element (n,).
        spacing: Millimetres (z, y, x).
    """

    corners: npt.NDArray[np.intp]
    areas_mm2: npt.NDArray[np.float64]
    spacing: Triple

    @classmethod
    def of(cls, voxels: Voxels, spacing: Triple) -> Surface:
        """Finds the surface of the True voxels (z, y, x); voxels beyond the box are outside."""
        tables = require_extra("surface_distance.lookup_tables")
        codes = _corner_codes(voxels)
        corners = np.nonzero((codes != 0) & (codes != _ALL_INSIDE))
        areas = tables.create_table_neighbour_code_to_surface_area(spacing)
        return cls(np.stack(corners, axis=1), areas[codes[corners]], spacing)

    def distances_to(self, other: Surface) -> npt.NDArray[np.float64]:
        """Millimetres from each element to the nearest of another surface in the same box."""
        # Trees with nodes split at the middle of their box are built in half the time, and where
        # one organ lies far inside another the search takes a tenth of the time of a balanced tree.
        tree = KDTree(other.corners * other.spacing, balanced_tree=False, compact_nodes=False)
        nearest = tree.query(self.corners * self.spacing)[1]
        # Distances from integer steps, as in the package: rounding must not move an element from
        # just within a tolerance to beyond it.
        steps = self.corners - other.corners[nearest]
        distances: npt.NDArray[np.float64] = np.sqrt(np.sum((steps * self.spacing) ** 2, axis=1))
        return distances


def _corner_codes(voxels: Voxels) -> npt.NDArray[np.uint8]:
    """Codes of the True voxels among the eight about each corner, (z + 1, y + 1, x + 1).

    The bits are those of surface-distance's `ENCODE_NEIGHBOURHOOD_3D_KERNEL`.
    """
    codes = np.pad(voxels, 1).view(np.uint8)
    codes = codes[:, :, :-1] << np.uint8(1) | codes[:, :, 1:]
    codes = codes[:, :-1] << np.uint8(2) | codes[:, 1:]
    return codes[:-1] << np.uint8(4) | codes[1:]


def surface_scores(
    organs: Sequence[tuple[Voxels, Voxels]],
    spacing: Triple,
    *,
    tolerances_mm: Sequence[float],
    threads: int = 1,
) -> list[dict[str, float]]:
    """Scores the surfaces of organs concurrently.

    Args:
        organs: For each organ the voxels (z, y, x) of reference and mask in one box; neither is
            empty.
        spacing: Millimetres (z, y, x).
        tolerances_mm: For each organ, the distance up to which an element counts as right.
        threads: Number of surfaces computed concurrently.

    Returns:
        For each organ, the surface fields of `OrganScores`.
    """
    with ThreadPoolExecutor(threads) as pool:
        voxels = [part for pair in organs for part in pair]
        surfaces = list(pool.map(lambda part: Surface.of(part, spacing), voxels))
        partners = [surfaces[index ^ 1] for index in range(len(surfaces))]
        distances = list(pool.map(Surface.distances_to, surfaces, partners))
    found = [_sorted(*pair) for pair in zip(surfaces, distances, strict=True)]
    return [
        _scores(reference, mask, tolerance_mm)
        for reference, mask, tolerance_mm in zip(
            found[::2], found[1::2], tolerances_mm, strict=True
        )
    ]


Elements = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]  # distances in mm, areas in mm²


def _sorted(surface: Surface, distances: npt.NDArray[np.float64]) -> Elements:
    order = np.lexsort((surface.areas_mm2, distances))
    return distances[order], surface.areas_mm2[order]


def _scores(reference: Elements, mask: Elements, tolerance_mm: float) -> dict[str, float]:
    metrics: Any = require_extra("surface_distance")
    elements = {
        "distances_gt_to_pred": reference[0],
        "surfel_areas_gt": reference[1],
        "distances_pred_to_gt": mask[0],
        "surfel_areas_pred": mask[1],
    }
    means = metrics.compute_average_surface_distance(elements)
    return {
        "surface_dice": float(metrics.compute_surface_dice_at_tolerance(elements, tolerance_mm)),
        "hausdorff_distance_95_mm": float(metrics.compute_robust_hausdorff(elements, 95)),
        "hausdorff_distance_mm": float(metrics.compute_robust_hausdorff(elements, 100)),
        "mean_surface_distance_mm": float(np.mean(means)),
    }
