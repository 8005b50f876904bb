"""Conversion of stored numbers to HU and to ids, for all formats."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from fcnseg.errors import InputError, LabelError
from fcnseg.volumes.formats.raw_voxels import FileVoxels, reading_voxels

_SLAB = 16  # slices converted at once: limits the float32 copy to a few MB

# A label that was stored as floats differs from integers by float32's rounding; one that nibabel
# stored as int16 with a slope by half a step, n / 131070 for ids up to n: 0.0009 for the 117
# classes of TotalSegmentator. Resampling, and scales such as 0.996 for 1, cause larger differences.
_NOISE = 0.001

Scale = tuple[float, float]
UNSCALED: Scale = (1.0, 0.0)
Stored = npt.NDArray[Any] | FileVoxels
"""Numbers (z, y, x) in memory, or in a file that is read slab by slab, never completely."""


def read_hu(voxels: FileVoxels, path: str, *, scale: Scale = UNSCALED) -> npt.NDArray[np.int16]:
    """Reads voxels (z, y, x) as HU: rescaled, rounded, and clipped to the range of int16.

    Args:
        voxels: Their location.
        path: The file, for errors.
        scale: Slope and intercept; see `to_int16`.

    Raises:
        InputError: If the file is incomplete, or a value is NaN or infinite.
    """
    is_hu = voxels.dtype.newbyteorder("=") == np.int16 and scale == UNSCALED
    with reading_voxels(path):
        return voxels.read() if is_hu else to_int16(voxels, *scale, what=path)


def read_ids(voxels: FileVoxels, path: str, *, scale: Scale = UNSCALED) -> npt.NDArray[np.integer]:
    """Reads voxels (z, y, x) as ids: in the file's own type or the smallest that holds them.

    Args:
        voxels: Their location.
        path: The file, for errors.
        scale: Slope and intercept; see `to_int16`.

    Raises:
        InputError: If the file is incomplete, or a value is NaN or infinite.
        LabelError: If a value is 0.001 or more from an integer, or exceeds 32 bits.
    """
    is_short = voxels.dtype.kind in "iu" and voxels.dtype.itemsize <= 2
    with reading_voxels(path):
        if is_short and scale == UNSCALED:
            return voxels.read()
        return to_integral(voxels, *scale, what=path)


def to_int16(stored: Stored, slope: float, intercept: float, *, what: str) -> npt.NDArray[np.int16]:
    """Converts stored voxels to HU: rescaled, rounded, and clipped to the range of int16.

    Args:
        stored: Voxels (z, y, x) of any numeric type.
        slope: Value of one step of the stored number.
        intercept: Intercept: value of the stored zero.
        what: The file, for errors.

    Raises:
        InputError: If a value is NaN or infinite.
    """
    limits = np.iinfo(np.int16)
    _check_size(stored)
    hu = np.empty(stored.shape, dtype=np.int16)
    for slab, values in _values(stored, slope, intercept, what):
        hu[slab] = np.clip(np.rint(values), limits.min, limits.max)
    return hu


def to_integral(
    stored: Stored, slope: float, intercept: float, *, what: str
) -> npt.NDArray[np.signedinteger]:
    """Converts stored voxels that are floats, scaled, or of a needlessly long type to ids.

    Args:
        stored: Voxels (z, y, x) of any numeric type.
        slope: Value of one step of the stored number.
        intercept: Intercept: value of the stored zero.
        what: The file, for errors.

    Returns:
        The ids, without rounding noise, in the smallest of int8, int16 and int32 that holds them
        all.

    Raises:
        InputError: If a value is NaN or infinite.
        LabelError: If a value is 0.001 or more from an integer, or exceeds 32 bits.
    """
    _check_size(stored)
    ids: npt.NDArray[np.signedinteger] = np.empty(stored.shape, dtype=np.int8)
    for slab, values in _values(stored, slope, intercept, what):
        rounded = np.rint(values)
        is_odd = np.abs(rounded - values) > _NOISE
        if is_odd.any():
            odd = values[is_odd].flat[0]
            raise LabelError(f"labels must be integral, got {odd} in {what}")
        ids = _that_holds(ids, float(rounded.min()), float(rounded.max()), what)
        ids[slab] = rounded
    return ids


def _that_holds(
    ids: npt.NDArray[np.signedinteger], low: float, high: float, what: str
) -> npt.NDArray[np.signedinteger]:
    """The array itself, or a copy of a wider type if needed."""
    for dtype in (ids.dtype, np.int16, np.int32):
        if np.iinfo(dtype).min <= low and high <= np.iinfo(dtype).max:
            return ids.astype(np.promote_types(ids.dtype, dtype), copy=False)
    raise LabelError(f"labels must have at most 32 bits, got {low:g} to {high:g} in {what}")


def _values(
    stored: Stored, slope: float, intercept: float, what: str
) -> Iterator[tuple[slice, npt.NDArray[np.floating]]]:
    """Yields slabs of values: float32, or float64 if float32 cannot hold the stored integers."""
    exact: Any = np.float64 if stored.dtype.itemsize > 2 else np.float32
    start = 0
    for numbers in _slabs(stored):
        values = numbers.astype(exact)
        values *= exact(slope)
        values += exact(intercept)
        if not np.isfinite(values).all():
            raise InputError(
                f"voxels must be finite, got NaN or infinity in {what}", code="not_finite"
            )
        yield slice(start, start + len(values)), values
        start += len(values)


def _check_size(stored: Stored) -> None:
    if isinstance(stored, FileVoxels):
        stored.check_size()


def _slabs(stored: Stored) -> Iterator[npt.NDArray[Any]]:
    if isinstance(stored, FileVoxels):
        yield from stored.slabs()
        return
    for start in range(0, len(stored), _SLAB):
        yield stored[start : start + _SLAB]
