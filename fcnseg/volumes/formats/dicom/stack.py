"""Stacking of DICOM slices to one grid, by their patient positions, if none is out of place."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fcnseg.codes import Code
from fcnseg.errors import GeometryError
from fcnseg.volumes.geometry import Geometry, check_affine, make_affine
from fcnseg.volumes.zyx import Triple

# Cosines are written with at least three digits.
_COSINE_TOLERANCE = 2e-3
# Scanners write positions to 0.1 mm, so that steps of 0.625 mm become 0.6 and 0.7.
STEP_TOLERANCE_MM = 0.11
"""Deviation of a step between slices that is taken for rounding."""
_STEP_TOLERANCE = 0.1  # of a step, if that is larger
# Less than a pixel over the complete stack: the effect of rounded cosines and positions.
_DRIFT_TOLERANCE_MM = 0.5


@dataclasses.dataclass(frozen=True)
class Slice:
    """One slice of a series: its position, and its HU scaling.

    Attributes:
        file: The file that it is in.
        frame: Its number in the file, from 0; None in a single-frame file.
        size: Rows and columns.
        pixel_spacing: Millimetres from row to row, and from column to column.
        orientation: Cosines, in LPS, of the direction along a row and of the direction down a
            column.
        position: Position (3,) of the first pixel's centre, in mm, in LPS.
        slope: HU of one step of the stored number; None if missing.
        intercept: Intercept: HU of the stored zero; None if missing.
        padding: Smallest and largest stored number that mean no tissue, or None.
        decoder: The pydicom decoder to use; empty for any.
        scan: Facts of its scan, by keyword.
    """

    file: Path
    frame: int | None
    size: tuple[int, int]
    pixel_spacing: tuple[float, float]
    orientation: tuple[float, ...]
    position: Triple
    slope: float | None = None
    intercept: float | None = None
    padding: tuple[int, int] | None = None
    decoder: str = ""
    scan: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def __str__(self) -> str:
        return self.file.name if self.frame is None else f"{self.file.name} frame {self.frame + 1}"

    @property
    def normal(self) -> npt.NDArray[np.float64]:
        """The direction, in LPS, in which slices are stacked."""
        return np.cross(self.orientation[:3], self.orientation[3:])

    @property
    def height_mm(self) -> float:
        """The position along the normal."""
        return float(self.normal @ self.position)


def stack(slices: Sequence[Slice], *, what: str) -> tuple[list[Slice], Geometry]:
    """Puts slices in order and finds their grid.

    The step from slice to slice is that of their positions, whatever the thickness in the header.

    Args:
        slices: All slices of a series, in any order.
        what: The series, for errors.

    Returns:
        The slices from the first to the last along their normal, and their grid.

    Raises:
        GeometryError: If the slices are not a stack: they differ in size, spacing or direction, one
            is missing or duplicate, the steps are uneven or the gantry was tilted. The message
            names the files.
    """
    _check_alike(slices, what)
    in_order = sorted(slices, key=lambda one: one.height_mm)
    if len(in_order) < 2:
        raise GeometryError(f"a stack must have two slices or more, got {in_order[0]} in {what}")
    _check_steps(in_order, what)
    _check_straight(in_order, what)
    return in_order, _grid(in_order, what)


def _check_alike(slices: Sequence[Slice], what: str) -> None:
    """Checks that all slices have the size, spacing and direction of the first."""
    first = slices[0]
    rules: list[tuple[str, Code, Callable[[Slice], Any], float]] = [
        ("rows and columns", "dicom_mixed_sizes", lambda one: one.size, 0),
        ("pixel spacing", "dicom_mixed_sizes", lambda one: one.pixel_spacing, 1e-3),
        ("direction", "dicom_mixed_orientations", lambda one: one.orientation, _COSINE_TOLERANCE),
    ]
    for name, code, value_of, tolerance in rules:
        for one in slices:
            if not np.allclose(value_of(one), value_of(first), rtol=0, atol=tolerance):
                raise GeometryError(
                    f"slices must have one {name}, got {value_of(first)} in {first} and"
                    f" {value_of(one)} in {one}, of {what}",
                    code=code,
                )
    across, down = np.array(first.orientation[:3]), np.array(first.orientation[3:])
    products = (across @ across, down @ down, across @ down)
    if not np.allclose(products, (1, 1, 0), rtol=0, atol=2 * _COSINE_TOLERANCE):
        raise GeometryError(
            f"the direction of a slice must be two perpendicular unit vectors, got"
            f" {first.orientation} in {first}, of {what}",
            code="bad_affine",
        )


def _check_steps(slices: Sequence[Slice], what: str) -> None:
    """Checks the distances between neighbours; most of them are right, so one is typical."""
    heights = np.array([one.height_mm for one in slices])
    steps = np.diff(heights)
    # The lower median: of two steps, if one slice is missing, the shorter is the right one.
    typical = float(np.sort(steps)[(len(steps) - 1) // 2])
    worst = int(np.abs(steps - typical).argmax())
    code: Code
    if (steps < STEP_TOLERANCE_MM / 10).any():
        worst = int(steps.argmin())
        code, rule = "dicom_duplicate_slice", "two slices must not have one position"
    elif abs(steps[worst] - typical) <= max(_STEP_TOLERANCE * typical, STEP_TOLERANCE_MM):
        return
    elif _is_multiple(steps[worst], typical):
        count = round(steps[worst] / typical) - 1
        code = "dicom_missing_slice"
        rule = f"no slice may be missing, but {count} must have been here"
    else:
        code, rule = "dicom_uneven_slices", "slices must be evenly spaced"
    raise GeometryError(
        f"{rule}: {slices[worst]} at {heights[worst]:.2f} mm and {slices[worst + 1]} at"
        f" {heights[worst + 1]:.2f} mm, others {typical:.2f} mm apart, in {what}",
        code=code,
    )


def _is_multiple(step: float, typical: float) -> bool:
    """Tells whether a gap is a multiple of the step."""
    times = step / typical
    return round(times) > 1 and abs(times - round(times)) <= _STEP_TOLERANCE


def _check_straight(slices: Sequence[Slice], what: str) -> None:
    """Checks that slices are stacked along their normal."""
    way = np.subtract([one.position for one in slices], slices[0].position)
    drift = np.linalg.norm(way - np.outer(way @ slices[0].normal, slices[0].normal), axis=1)
    worst = int(drift.argmax())
    if not drift[worst] <= _DRIFT_TOLERANCE_MM:
        degrees = np.degrees(np.arctan2(drift[worst], abs(way[worst] @ slices[0].normal)))
        raise GeometryError(
            f"slices must be stacked along their normal, but from {slices[0]} to {slices[worst]}"
            f" they shift by {drift[worst]:.1f} mm, as by a gantry tilt of {degrees:.1f} degrees,"
            f" in {what}",
            code="dicom_gantry_tilt",
        )


def _grid(slices: Sequence[Slice], what: str) -> Geometry:
    first, last = slices[0], slices[-1]
    down, across = first.pixel_spacing
    steps = np.column_stack(
        [
            np.multiply(first.orientation[:3], across),
            np.multiply(first.orientation[3:], down),
            np.subtract(last.position, first.position) / (len(slices) - 1),
        ]
    )
    affine = check_affine(make_affine(first.position, steps), what=what)
    return Geometry((len(slices), *first.size), affine)
