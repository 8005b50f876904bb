"""Exact reorientation of volumes: to canonical RAS+, back, and to another grid's axes."""

from __future__ import annotations

from typing import Any

import nibabel.orientations as orientations
import numpy as np
import numpy.typing as npt

from fcnseg.errors import GeometryError
from fcnseg.volumes.geometry import Geometry
from fcnseg.volumes.volume import Volume, check_same_grid, grid_of

RAS = np.array([[0, 1], [1, 1], [2, 1]], dtype=np.float64)  # nibabel's form: axis, direction


def to_canonical(volume: Volume) -> Volume:
    """Reorients a volume so that x grows to the right, y to anterior, z to superior (RAS+).

    Axes are permuted and flipped, never interpolated, so an oblique volume stays oblique.

    Args:
        volume: Any orientation.

    Returns:
        The same voxels in the orientation closest to RAS+; its array is a view if possible.
    """
    return _turned(volume, orientations.io_orientation(volume.affine))


def from_canonical(array: npt.NDArray[Any], like: Volume) -> npt.NDArray[Any]:
    """Reorients an array on the grid of `to_canonical(like)` to the grid of `like`.

    Args:
        array: Values (z, y, x) in canonical orientation.
        like: The volume whose orientation is wanted.

    Returns:
        The same voxels (z, y, x) on the grid of `like`, contiguous.
    """
    back = orientations.ornt_transform(RAS, orientations.io_orientation(like.affine))
    return np.ascontiguousarray(orientations.apply_orientation(array.T, back).T)


def is_turned(part: Geometry | Volume, like: Geometry | Volume) -> bool:
    """Tells whether axes have another order or direction than those of another grid."""
    return not np.array_equal(_turn_to(part, like), RAS)


def turn_like(volume: Volume, like: Geometry | Volume) -> Volume:
    """Reorients a volume so that its axes are as close as possible to those of another grid.

    Args:
        volume: Any orientation.
        like: The grid; its shape and origin may differ.

    Returns:
        The same voxels at the same positions; the volume itself if it needs no reorientation.
    """
    return _turned(volume, _turn_to(volume, like)) if is_turned(volume, like) else volume


def turn_geometry_like(geometry: Geometry, like: Geometry | Volume) -> Geometry:
    """Gives the grid of a volume after `turn_like`."""
    voxels = np.broadcast_to(np.uint8(0), geometry.shape)  # takes one byte
    return turn_like(Volume(voxels, geometry.affine), like).geometry


def check_same_voxels(
    image: Geometry | Volume,
    label: Geometry,
    *,
    tolerance_mm: float = 0.01,
    names: tuple[str, str] = ("image", "label"),
    case_id: str | None = None,
) -> None:
    """Checks that two volumes have the same voxels at the same positions, in any order.

    Programs store the axes of one scan in different orders, as dcm2niix does with rows.

    Args:
        image: One grid.
        label: The other grid.
        tolerance_mm: See `check_same_grid`.
        names: See `check_same_grid`.
        case_id: Named in the error.

    Raises:
        GeometryError: If no reorientation without interpolation maps one to the other.
    """
    try:
        turned = turn_geometry_like(label, image)
        check_same_grid(image, turned, tolerance_mm=tolerance_mm, names=names, case_id=case_id)
    except GeometryError:  # an error about the grids as stored is more useful
        check_same_grid(image, label, tolerance_mm=tolerance_mm, names=names, case_id=case_id)
        raise


def _turn_to(part: Geometry | Volume, like: Geometry | Volume) -> npt.NDArray[np.float64]:
    """For each axis the closest one of the other grid, and its relative direction."""
    return orientations.io_orientation(grid_of(part).index_to(grid_of(like)))


def _turned(volume: Volume, turn: npt.NDArray[np.float64]) -> Volume:
    array = orientations.apply_orientation(volume.array.T, turn).T
    affine = volume.affine @ orientations.inv_ornt_aff(turn, volume.array.T.shape)
    return Volume(array, affine, findings=volume.findings)
