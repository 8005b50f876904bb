"""The resampler: separable, linear, with one small matrix per axis.

The two grids share their centre, and the new spacing is exact. In downsampling, the triangle of
linear interpolation is widened to the new spacing, so that detail finer than the new grid is
averaged rather than aliased. Labels are resampled at the same coordinates; the class of a new voxel
is decided by `fcnseg.volumes.shares`.

The matrices are written once for numpy and for TensorFlow: `xp` is either module, and only names
that both have are used, so a served model resamples exactly like the conversion.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse

from fcnseg.errors import GeometryError
from fcnseg.volumes.id_resampling import resample_ids
from fcnseg.volumes.volume import Volume
from fcnseg.volumes.zyx import Shape, Triple, Zyx

# Relative difference of spacing that moves the last of 1000 voxels by a tenth of a voxel; scanners'
# headers differ by less.
SAME_SPACING = 1e-4
# Rounds to the nearest, but a half down: so a spacing converted to float32, as on its way to a
# served model, gives the same number of voxels.
_ALMOST_HALF = 0.499
_SLAB = 16  # slices computed at once: limits the float32 copy to a small part of the volume


def resampled_shape(shape: Shape, spacing: Triple, new_spacing: Triple) -> Shape:
    """Computes the shape (z, y, x) of the same extent at another spacing, at least one per axis."""
    axes = zip(shape, spacing, new_spacing, strict=True)
    return Zyx(int(axis_length(count, new / old, xp=np)) for count, old, new in axes)


def axis_length(n_in: Any, step: Any, *, xp: ModuleType) -> Any:
    """Computes the voxels of the new grid along axes: the same extent, at least one voxel.

    Args:
        n_in: Voxels of the old grid, float64.
        step: New spacing over old spacing, float64.
        xp: numpy or tensorflow.
    """
    return xp.maximum(xp.floor(n_in / step + _ALMOST_HALF), 1.0)


def axis_positions(out_index: Any, n_in: Any, n_out: Any, step: Any, *, xp: ModuleType) -> Any:
    """Computes the positions of the new grid's voxels on the old one, along one axis.

    Args:
        out_index: 0 .. n_out - 1, float64.
        n_in: Voxels of the old grid, float64.
        n_out: Voxels of the new grid, float64.
        step: New spacing over old spacing, float64.
        xp: numpy or tensorflow.

    Returns:
        Positions (n_out,) in voxels of the old grid, kept within it.
    """
    position = (n_in - 1) / 2 + (out_index - (n_out - 1) / 2) * step
    return xp.minimum(xp.maximum(position, 0.0), n_in - 1)


def linear_matrix(positions: Any, in_index: Any, step: Any, *, xp: ModuleType) -> Any:
    """Computes the weights of the old grid's voxels in each of the new one.

    Args:
        positions: Positions (n_out,) from `axis_positions`.
        in_index: 0 .. n_in - 1, float64.
        step: New spacing over old spacing, float64.
        xp: numpy or tensorflow.

    Returns:
        (n_out, n_in) float64, rows summing to one.
    """
    reach = xp.maximum(step, 1.0)
    weights = xp.maximum(1 - xp.abs(positions[:, None] - in_index[None, :]) / reach, 0.0)
    return weights / xp.einsum("oi->o", weights)[:, None]


def resample_image(volume: Volume, spacing: Triple) -> Volume:
    """Resamples HU to another spacing.

    Args:
        volume: HU (z, y, x), int16.
        spacing: Target spacing in mm (z, y, x).

    Returns:
        int16 HU on a grid with the same centre and exactly that spacing. A volume that has this
        spacing already is returned unchanged.

    Raises:
        GeometryError: If the spacing is not three positive numbers.
    """
    return _resample(volume, spacing, by=_linear)


def resample_label(volume: Volume, spacing: Triple) -> Volume:
    """Resamples class ids to another spacing; positions and volumes of classes are preserved.

    Args:
        volume: Class ids (z, y, x), whole numbers from 0 to 2^24.
        spacing: Target spacing in mm (z, y, x).

    Returns:
        Ids of the same type on the grid that `resample_image` gives.

    Raises:
        GeometryError: If the spacing is not three positive numbers.
    """
    return _resample(volume, spacing, by=_largest_share)


def resample_label_back(volume: Volume, like: Volume) -> Volume:
    """Resamples class ids to the grid of the volume from which `resample_image` made their grid.

    Args:
        volume: Class ids (z, y, x), whole numbers from 0 to 2^24.
        like: The volume as it was.

    Returns:
        Ids of the same type on exactly the grid of `like`.
    """
    steps = _steps(volume, like.spacing)
    if steps is None:
        return volume
    positions = Zyx(map(_numpy_positions, volume.shape, like.shape, steps))
    return Volume(resample_ids(volume.array, positions, steps), like.affine)


def _resample(
    volume: Volume, spacing: Triple, *, by: Callable[[npt.NDArray[Any], Shape, Triple], Any]
) -> Volume:
    """Resamples voxels by a function of them, the grid's shape and its steps."""
    steps = _steps(volume, spacing)
    if steps is None:
        return volume
    shape = resampled_shape(volume.shape, volume.spacing, spacing)
    grid = volume.geometry.respaced(steps, shape=shape)
    return Volume(by(volume.array, shape, steps), grid.affine)


def _linear(array: npt.NDArray[Any], shape: Shape, steps: Triple) -> npt.NDArray[np.int16]:
    along_z, along_y, along_x = map(_sparse_matrix, array.shape, shape, steps)
    hu = np.empty(shape, dtype=np.int16)
    plane = np.empty(array.shape[1:], np.float32)
    for start in range(0, shape[0], _SLAB):
        rows = along_z[start : start + _SLAB]
        first, last = rows.indices.min(), rows.indices.max() + 1
        planes = np.empty((last - first, shape[2] * shape[1]), np.float32)  # (z, x * y)
        for resampled, old in zip(planes, array[first:last], strict=True):
            plane[:] = old
            resampled[:] = (along_x @ (along_y @ plane).T).ravel()
        slab = rows[:, first:last] @ planes
        np.rint(slab, out=slab)
        hu[start : start + _SLAB] = slab.reshape(-1, shape[2], shape[1]).transpose(0, 2, 1)
    return hu


def _largest_share(array: npt.NDArray[Any], shape: Shape, steps: Triple) -> npt.NDArray[Any]:
    positions = Zyx(map(_numpy_positions, array.shape, shape, steps))
    return resample_ids(array, positions, steps)


def _steps(volume: Volume, spacing: Triple) -> Triple | None:
    """New over old spacing along (z, y, x), or None if the two are the same."""
    if len(spacing) != 3 or not all(np.isfinite(spacing)) or min(spacing) <= 0:
        raise GeometryError(f"spacing must be three positive numbers in mm, got {spacing}")
    steps = Zyx(new / old for new, old in zip(spacing, volume.spacing, strict=True))
    return None if max(abs(step - 1) for step in steps) < SAME_SPACING else steps


def _numpy_positions(n_in: int, n_out: int, step: float) -> npt.NDArray[np.float64]:
    index = np.arange(n_out, dtype=np.float64)
    positions: npt.NDArray[np.float64] = axis_positions(index, n_in, n_out, step, xp=np)
    return positions


def _sparse_matrix(n_in: int, n_out: int, step: float) -> scipy.sparse.csr_array:
    """The matrix of one axis, float32; sparse, as each new voxel has weights of a few old ones.

    On 439 x 364 x 168 voxels this takes a tenth of the CPU time of dense products, on one thread,
    and its sums have one order, so that the bytes are the same on every machine.
    """
    index = np.arange(n_in, dtype=np.float64)
    matrix = linear_matrix(_numpy_positions(n_in, n_out, step), index, step, xp=np)
    return scipy.sparse.csr_array(matrix.astype(np.float32))
