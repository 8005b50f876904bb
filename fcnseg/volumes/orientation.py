"""One canonical orientation, RAS+, and the exact way back."""

from __future__ import annotations

from typing import Any

import nibabel.orientations as orientations
import numpy as np
import numpy.typing as npt

from fcnseg.volumes.volume import Volume

RAS = np.array([[0, 1], [1, 1], [2, 1]], dtype=np.float64)  # nibabel's form: axis, direction


def to_canonical(volume: Volume) -> Volume:
    """Turns a volume so that x grows to the right, y to anterior, z to superior (RAS+).

    Axes are permuted and flipped, never interpolated, so an oblique volume stays oblique.

    Args:
        volume: Any orientation.

    Returns:
        The same voxels in the orientation nearest to RAS+; its array is a view where possible.
    """
    turn = orientations.io_orientation(volume.affine)
    array = orientations.apply_orientation(volume.array.T, turn).T
    affine = volume.affine @ orientations.inv_ornt_aff(turn, volume.array.T.shape)
    return Volume(array, affine)


def from_canonical(array: npt.NDArray[Any], like: Volume) -> npt.NDArray[Any]:
    """Turns an array on the grid of `to_canonical(like)` back to the grid of `like`.

    Args:
        array: Values (z, y, x) in canonical orientation.
        like: The volume whose orientation is wanted.

    Returns:
        The same voxels (z, y, x) on the grid of `like`, contiguous.
    """
    back = orientations.ornt_transform(RAS, orientations.io_orientation(like.affine))
    return np.ascontiguousarray(orientations.apply_orientation(array.T, back).T)
