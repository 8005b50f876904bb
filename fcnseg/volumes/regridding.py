"""Resampling of a label to another grid, by patient coordinates."""

from __future__ import annotations

import itertools

import nibabel as nib
import numpy as np
import numpy.typing as npt
from scipy import ndimage

from fcnseg.volumes.geometry import Geometry
from fcnseg.volumes.id_resampling import resample_ids
from fcnseg.volumes.volume import Volume
from fcnseg.volumes.zyx import Shape, Zyx

_ASIDE = 1e-6  # displacement in voxels that selects the lower or the upper of two
_STRAIGHT = 0.01  # largest deviation in voxels of the axes over the complete grid


def label_on_grid(label: Volume, grid: Geometry) -> Volume:
    """Resamples a label to any other grid by world coordinates.

    Along the same axes, flipped or not, classes keep position and volume as in `resample_label`. On
    an oblique grid each voxel takes the nearest of the label. Beyond the extent of the label, the
    result is 0.

    Args:
        label: Class indices (z, y, x).
        grid: The target grid.

    Returns:
        Indices of the same type on that grid.
    """
    to_label, start = nib.affines.to_matvec(grid.index_to(label.geometry))
    turn, offset = to_label[::-1, ::-1], start[::-1]  # (z, y, x)
    order = np.abs(turn).argmax(axis=0)  # the label's axis that lies along each of the grid's
    scale = turn[order, range(3)]
    aside = np.abs(turn) * grid.shape
    aside[order, range(3)] = 0
    if len(set(order)) < 3 or aside.max() > _STRAIGHT:
        return Volume(_nearest(label.array, turn, offset, shape=grid.shape), grid.affine)
    array = label.array.transpose(order)
    starts = np.where(scale > 0, offset[order], np.array(array.shape) - 1 - offset[order])
    array = np.flip(array, tuple(axis for axis in range(3) if scale[axis] < 0))
    return Volume(_along_axes(array, starts, np.abs(scale), grid), grid.affine)


def _nearest(
    array: npt.NDArray,
    turn: npt.NDArray[np.float64],
    offset: npt.NDArray[np.float64],
    *,
    shape: Shape,
) -> npt.NDArray:
    """Takes ids at `turn @ index + offset` of each index (z, y, x), those of the nearest voxel.

    Half way between two voxels, neighbours take one and the other in turn, so that organs stay in
    place. Memory holds two results.
    """
    lower, upper = (
        ndimage.affine_transform(
            array,
            turn,
            offset + aside,
            output_shape=shape,
            order=0,
            mode="grid-constant",  # a voxel extends half a voxel beyond its centre
            cval=0,
        )
        for aside in (-_ASIDE, _ASIDE)
    )
    for z, y, x in itertools.product(range(2), repeat=3):
        if (z + y + x) % 2:
            lower[z::2, y::2, x::2] = upper[z::2, y::2, x::2]
    return lower


def _along_axes(
    array: npt.NDArray,
    starts: npt.NDArray[np.float64],
    steps: npt.NDArray[np.float64],
    grid: Geometry,
) -> npt.NDArray:
    """Samples an array (z, y, x) on a grid that starts somewhere in it, with steps in voxels."""
    found = np.zeros(grid.shape, array.dtype)
    reached, positions = [], []
    for start, step, count, length in zip(starts, steps, grid.shape, array.shape, strict=True):
        position = start + step * np.arange(count)
        inside = np.flatnonzero((position >= -0.5) & (position < length - 0.5))
        if not len(inside):
            return found
        reached.append(slice(inside[0], inside[-1] + 1))
        positions.append(np.clip(position[inside], 0, length - 1))
    found[tuple(reached)] = resample_ids(array, Zyx(positions), Zyx(steps.tolist()))
    return found
