"""A label on another grid: each voxel there takes the nearest of the label in the patient."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from fcnseg.volumes.volume import Geometry, Volume


def nearest_on_grid(label: Volume, grid: Geometry) -> Volume:
    """Brings a label to any other grid, turned or oblique, by world coordinates.

    Memory holds the label and the result. Where the label does not reach, the result is 0.

    Args:
        label: Class indices (z, y, x).
        grid: The grid wanted.

    Returns:
        Indices of the same type on that grid.
    """
    to_label = np.linalg.inv(label.affine) @ grid.affine  # index (x, y, z) on the grid to label's
    array = ndimage.affine_transform(
        label.array,
        to_label[:3, :3][::-1, ::-1],  # (z, y, x), as the array's axes
        to_label[:3, 3][::-1],
        output_shape=grid.shape,
        order=0,
        mode="grid-constant",  # a voxel reaches half a voxel beyond its centre, also the outermost
        cval=0,
    )
    return Volume(array, grid.affine)
