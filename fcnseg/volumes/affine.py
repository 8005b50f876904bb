"""Affines: what makes one sound, and the way from DICOM's and ITK's axes to ours."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fcnseg.errors import GeometryError

Affine = npt.NDArray[np.float64]


def affine_from_lps(origin: npt.ArrayLike, steps: npt.ArrayLike) -> Affine:
    """The affine to RAS millimetres of a grid that is told in LPS, as DICOM and ITK do.

    Args:
        origin: (3,) position of the first voxel, in mm to left, posterior and superior.
        steps: (3, 3) whose columns are the steps from one voxel to the next along i, j and k.
    """
    affine = np.eye(4)
    affine[:3, :3] = steps
    affine[:3, 3] = origin
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine


def check_affine(affine: Affine, *, what: str) -> Affine:
    """Returns the affine if it gives each voxel a place of its own.

    Args:
        affine: (4, 4).
        what: The file, for the error.

    Raises:
        GeometryError: If it is singular, or holds NaN or infinity.
    """
    if not np.isfinite(affine).all() or np.linalg.matrix_rank(affine[:3, :3]) < 3:
        raise GeometryError(
            f"the affine must be finite and invertible, got {affine[:3].tolist()} in {what}",
            code="bad_affine",
        )
    return affine
