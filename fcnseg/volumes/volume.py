"""A volume and its position in the patient."""

from __future__ import annotations

import dataclasses
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt

from fcnseg.codes import Finding
from fcnseg.errors import GeometryError
from fcnseg.volumes.geometry import Affine, Geometry
from fcnseg.volumes.zyx import Shape, Triple, Zyx

AIR_HU = -1024
"""HU of voxels outside a volume: the lowest value that CT scanners write for air."""


@dataclasses.dataclass(frozen=True, eq=False)
class Volume:
    """An array on a grid.

    Attributes:
        array: Values (z, y, x).
        affine: See `Geometry`.
        header: Header of the NIfTI file that the volume came from, kept so that a mask can be
            written on exactly that file's grid.
        findings: Findings of its reader that are not errors, such as a second series in the folder.
        frame_of_reference: See `Geometry`.
    """

    array: npt.NDArray[Any]
    affine: Affine
    header: nib.Nifti1Header | None = None
    findings: tuple[Finding, ...] = ()
    frame_of_reference: str = ""

    def __post_init__(self) -> None:
        if self.array.ndim != 3:
            raise GeometryError(f"array must have three axes (z, y, x), got {self.array.shape}")
        if self.affine.shape != (4, 4):
            raise GeometryError(f"affine must be 4 x 4, got {self.affine.shape}")

    @property
    def geometry(self) -> Geometry:
        """The grid."""
        return Geometry(self.shape, self.affine, self.frame_of_reference)

    @property
    def shape(self) -> Shape:
        """Voxels (z, y, x)."""
        return Zyx(self.array.shape)

    @property
    def spacing(self) -> Triple:
        """Millimetres (z, y, x) between neighbouring voxels."""
        return self.geometry.spacing

    @property
    def orientation(self) -> str:
        """Directions of increasing i, j and k, as in `RAS`."""
        return self.geometry.orientation

    def with_array(self, array: npt.NDArray[Any]) -> Volume:
        """Makes a volume of another array on the same grid."""
        if array.shape != self.array.shape:
            raise GeometryError(f"array must have shape {self.array.shape}, got {array.shape}")
        return dataclasses.replace(self, array=array)


def grid_of(part: Geometry | Volume) -> Geometry:
    """Gives the grid itself, or that of a volume."""
    return part.geometry if isinstance(part, Volume) else part


def of_case(case_id: str | None) -> str:
    """Formats the end of an error message that names the case."""
    return "" if case_id is None else f" (case {case_id})"


def check_same_grid(
    image: Geometry | Volume,
    label: Geometry | Volume,
    *,
    tolerance_mm: float = 0.01,
    names: tuple[str, str] = ("image", "label"),
    case_id: str | None = None,
) -> None:
    """Checks that two volumes lie on one grid.

    Shapes must be equal; spacing, origin and direction together may move no corner voxel by more
    than the tolerance, so the float noise of headers passes whatever the size of the volume.

    Args:
        image: One grid.
        label: The other grid.
        tolerance_mm: Largest distance of two corresponding corner voxels.
        names: Names of the two in the error.
        case_id: Named in the error.

    Raises:
        GeometryError: If the grids differ.
    """
    image, label = grid_of(image), grid_of(label)
    if image.shape != label.shape:
        raise GeometryError(
            f"{' and '.join(names)} must have the same shape, got {image.shape} and {label.shape}"
            f" (z, y, x){of_case(case_id)}"
        )
    distance = float(np.linalg.norm(image.corners_mm() - label.corners_mm(), axis=1).max())
    if not distance <= tolerance_mm:
        raise GeometryError(
            f"{' and '.join(names)} must lie on the same grid within {tolerance_mm} mm, but their"
            f" corners are {distance:.3g} mm apart: {_difference(image, label)}{of_case(case_id)}"
        )


def _difference(*grids: Geometry) -> str:
    """The differences in spacing, origin and direction, with both values."""
    facts = {
        "spacing": [np.round(grid.spacing, 4).tolist() for grid in grids],
        "origin": [np.round(grid.origin_mm, 3).tolist() for grid in grids],
        "orientation": [grid.orientation for grid in grids],
    }
    differences = [
        f"{name} {one} and {other}" for name, (one, other) in facts.items() if one != other
    ]
    return ", ".join(differences) or "directions differ"
