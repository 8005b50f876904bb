"""Affines: their validity, and their conversion from DICOM's and ITK's axes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fcnseg.errors import GeometryError

Affine = npt.NDArray[np.float64]


def affine_from_lps(origin: npt.ArrayLike, steps: npt.ArrayLike) -> Affine:
    """Converts a grid given in LPS, as by DICOM and ITK, to an affine in RAS millimetres.

    Args:
        origin: (3,) position of the first voxel, in mm to left, posterior and superior.
        steps: (3, 3) whose columns are the steps from one voxel to the next along i, j and k.
    """
    affine = np.eye(4)
    affine[:3, :3] = steps
    affine[:3, 3] = origin
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine


def check_affine(affine: Affine, *, what: str) -> Affine:
    """Returns the affine after checking that it maps each voxel to a position of its own.

    Args:
        affine: (4, 4).
        what: The file, for the error.

    Raises:
        GeometryError: If it is singular, or contains NaN or infinity.
    """
    if not np.isfinite(affine).all() or np.linalg.matrix_rank(affine[:3, :3]) < 3:
        raise GeometryError(
            f"the affine must be finite and invertible, got {affine[:3].tolist()} in {what}",
            code="bad_affine",
        )
    return affine
