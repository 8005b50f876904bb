"""From the numbers that a file stores to HU and to ids, whatever the format."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from fcnseg.errors import InputError, LabelError

_SLAB = 16  # slices converted at once: bounds the float32 copy to a few MB


def to_int16(
    stored: npt.NDArray[Any], slope: float, inter: float, *, what: str
) -> npt.NDArray[np.int16]:
    """HU of stored voxels: rescaled, rounded, and clipped to what int16 holds.

    Args:
        stored: Voxels (z, y, x) of any numeric type.
        slope: Value of one step of the stored number.
        inter: Value of the stored zero.
        what: The file, for errors.

    Raises:
        InputError: If a value is NaN or infinite.
    """
    limits = np.iinfo(np.int16)
    hu = np.empty(stored.shape, dtype=np.int16)
    for slab, values in _values(stored, slope, inter, what):
        hu[slab] = np.clip(np.rint(values), limits.min, limits.max)
    return hu


def to_integral(
    stored: npt.NDArray[Any], slope: float, inter: float, *, what: str
) -> npt.NDArray[np.int32]:
    """Ids of stored voxels that are floats or have a scale.

    Args:
        stored: Voxels (z, y, x) of any numeric type.
        slope: Value of one step of the stored number.
        inter: Value of the stored zero.
        what: The file, for errors.

    Raises:
        InputError: If a value is NaN or infinite.
        LabelError: If a value is not integral.
    """
    ids = np.empty(stored.shape, dtype=np.int32)
    for slab, values in _values(stored, slope, inter, what):
        rounded = np.rint(values)
        if not np.array_equal(rounded, values):
            odd = values[rounded != values].flat[0]
            raise LabelError(f"labels must be integral, got {odd} in {what}")
        ids[slab] = rounded
    return ids


def _values(
    stored: npt.NDArray[Any], slope: float, inter: float, what: str
) -> Iterator[tuple[slice, npt.NDArray[np.floating]]]:
    """Slabs of values: float32, or float64 where float32 would not hold the stored integers."""
    exact: Any = np.float64 if stored.dtype.itemsize > 2 else np.float32
    for start in range(0, len(stored), _SLAB):
        slab = slice(start, start + _SLAB)
        values = stored[slab].astype(exact) * exact(slope) + exact(inter)
        if not np.isfinite(values).all():
            raise InputError(
                f"voxels must be finite, got NaN or infinity in {what}", code="not_finite"
            )
        yield slab, values
