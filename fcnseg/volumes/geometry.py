"""The grid of a volume: its voxels' number, size and positions in the patient."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence

import nibabel as nib
import numpy as np
import numpy.typing as npt

from fcnseg.codes import Finding
from fcnseg.errors import GeometryError
from fcnseg.volumes.zyx import Shape, Triple, Zyx

Affine = npt.NDArray[np.float64]

LPS = (-1, -1, 1)  # signs of the space of DICOM and ITK: left, posterior, superior
MM3_PER_ML = 1000


@dataclasses.dataclass(frozen=True, eq=False)
class Geometry:
    """The grid of a volume: the number of voxels, and their positions in the patient.

    Attributes:
        shape: Voxels (z, y, x).
        affine: (4, 4) float64 from the voxel index (i, j, k) = (x, y, z) to RAS millimetres, as
            NIfTI defines it.
        frame_of_reference: UID of the coordinate system in DICOM; empty if unknown.
        findings: Missing information of the header, such as the orientation, each with the value
            taken.
    """

    shape: Shape
    affine: Affine
    frame_of_reference: str = ""
    findings: tuple[Finding, ...] = ()

    @classmethod
    def centred_at(
        cls, centre_mm: npt.ArrayLike, *, shape: Shape, axes_mm: npt.NDArray[np.float64]
    ) -> Geometry:
        """Makes the grid whose middle is at a position.

        Args:
            centre_mm: RAS position (3,) of the middle, in mm.
            shape: Voxels (z, y, x).
            axes_mm: See `axes_mm`.
        """
        origin = np.subtract(centre_mm, axes_mm @ _middle(shape))
        return cls(shape, nib.affines.from_matvec(axes_mm, origin))

    @property
    def axes_mm(self) -> npt.NDArray[np.float64]:
        """RAS steps in mm, the columns of (3, 3), from a voxel to the next along i, j and k."""
        return nib.affines.to_matvec(self.affine)[0]

    @property
    def origin_mm(self) -> npt.NDArray[np.float64]:
        """RAS position (3,) of the centre of the first voxel, in mm."""
        return nib.affines.to_matvec(self.affine)[1]

    @property
    def spacing(self) -> Triple:
        """Millimetres (z, y, x) between neighbouring voxels."""
        return Zyx(np.linalg.norm(self.axes_mm, axis=0)[::-1].tolist())

    @property
    def directions(self) -> npt.NDArray[np.float64]:
        """RAS directions, unit vectors as the columns of (3, 3), of increasing i, j and k."""
        return self.axes_mm / np.linalg.norm(self.axes_mm, axis=0)

    @property
    def orientation(self) -> str:
        """Directions of increasing i, j and k, as in `RAS`, which is right, anterior, superior."""
        return "".join(nib.orientations.aff2axcodes(self.affine))

    @property
    def voxel_mm3(self) -> float:
        """Volume of a voxel in mm3, also where the axes are not perpendicular."""
        return abs(float(np.linalg.det(self.axes_mm)))

    def corners_mm(self) -> npt.NDArray[np.float64]:
        """RAS positions (8, 3) of the centres of the eight corner voxels, in mm."""
        depth, height, width = self.shape
        ends = itertools.product((0, width - 1), (0, height - 1), (0, depth - 1))
        return nib.affines.apply_affine(self.affine, np.array(list(ends), dtype=np.float64))

    def index_to(self, other: Geometry) -> Affine:
        """Computes the affine (4, 4) from an index (i, j, k) to the other grid's at that position.

        Raises:
            numpy.linalg.LinAlgError: If the other's affine is singular.
        """
        return np.linalg.inv(other.affine) @ self.affine

    def starting_at(self, index: Sequence[float], *, shape: Shape) -> Geometry:
        """Makes the grid of the same axes that has its first voxel at an index (z, y, x) of this.

        Args:
            index: Any three whole numbers, also outside of this grid.
            shape: Voxels (z, y, x) of the new grid.
        """
        shift = nib.affines.from_matvec(np.eye(3), index[::-1])
        return Geometry(shape, self.affine @ shift)

    def respaced(self, steps: Triple, *, shape: Shape) -> Geometry:
        """Makes the grid with the same middle and directions, and another spacing.

        Args:
            steps: New over old spacing along (z, y, x).
            shape: Voxels (z, y, x) of the new grid.
        """
        axes_mm = self.axes_mm * np.array(steps[::-1])
        moved = self.axes_mm @ _middle(self.shape) - axes_mm @ _middle(shape)
        return Geometry(shape, nib.affines.from_matvec(axes_mm, self.origin_mm + moved))


def voxel_ml(spacing: Sequence[float]) -> float:
    """Computes the volume in ml of a voxel of a grid with perpendicular axes.

    Args:
        spacing: Millimetres along its three axes.
    """
    return float(math.prod(spacing)) / MM3_PER_ML


def make_affine(
    origin: npt.ArrayLike, axes_mm: npt.ArrayLike, *, signs: tuple[int, int, int] = LPS
) -> Affine:
    """Makes the affine in RAS millimetres of a grid given in another space of the patient.

    Args:
        origin: Position (3,) of the first voxel, in mm.
        axes_mm: (3, 3) whose columns are the steps from one voxel to the next along i, j and k.
        signs: 1 for each axis of the space to right, anterior or superior, -1 for its opposite.
    """
    there = nib.affines.from_matvec(np.asarray(axes_mm, np.float64), origin)
    return np.diag([*signs, 1.0]) @ there


def check_affine(affine: Affine, *, what: str) -> Affine:
    """Returns the affine after checking that it maps each voxel to a position of its own.

    Args:
        affine: (4, 4).
        what: The file, for the error.

    Raises:
        GeometryError: If it is singular, or contains NaN or infinity.
    """
    axes_mm, _ = nib.affines.to_matvec(affine)
    if not np.isfinite(affine).all() or np.linalg.matrix_rank(axes_mm) < 3:
        raise GeometryError(
            f"the affine must be finite and invertible, got {affine[:3].tolist()} in {what}",
            code="bad_affine",
        )
    return affine


def _middle(shape: Shape) -> npt.NDArray[np.float64]:
    """Index (i, j, k) of the middle of a grid."""
    return (np.array(shape[::-1]) - 1) / 2
