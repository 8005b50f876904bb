"""Detection of several scans, or of inconsistent HU scaling, among the slices of one series."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

from fcnseg.codes import Finding
from fcnseg.errors import InputError, format_names
from fcnseg.volumes.formats.dicom.stack import Slice

# The standard demands one of each in a series.
_ONE = ("PatientID", "StudyInstanceUID", "FrameOfReferenceUID")
# May change from one part of a long scan to the next, and with each turn of the tube; but slices
# with one value that lie between those with another are of a second scan.
_IN_BLOCKS = (
    "AcquisitionNumber",
    "AcquisitionUID",
    "IrradiationEventUID",
    "ConvolutionKernel",
    "KVP",
    "StackID",
    "TemporalPositionIndex",
)
SCAN = (*_ONE, *_IN_BLOCKS)
"""Keywords of the elements that distinguish scans."""


def check_rescale(slices: Sequence[Slice], *, what: str) -> None:
    """Checks that all slices have a slope and an intercept, or none has.

    Args:
        slices: Slices of a series, in any order.
        what: The series, for the error.

    Raises:
        InputError: If some have a slope or an intercept and others do not; the message names those.
    """
    for keyword, lacking in (
        ("RescaleSlope", [one for one in slices if one.slope is None]),
        ("RescaleIntercept", [one for one in slices if one.intercept is None]),
    ):
        if 0 < len(lacking) < len(slices):
            raise InputError(
                f"all slices must have {keyword}, or none, but {len(lacking)} of {len(slices)}"
                f" have none: {format_names(lacking)}, in {what}",
                code="dicom_bad_rescale",
            )


def find_scans(slices: Sequence[Slice], *, what: str) -> Iterator[Finding]:
    """Finds whether slices of a series are of several scans.

    Args:
        slices: Slices from the first to the last along their normal.
        what: The series.

    Yields:
        The first element that distinguishes them, if any.
    """
    for keyword in SCAN:
        telling = [one for one in slices if keyword in one.scan]
        if keyword in _ONE:
            rule = f"slices of a series must have one {keyword}"
            change = _first_change(telling, keyword)
        else:
            rule = f"slices of one {keyword} must not lie between those of another"
            change = _first_return(telling, keyword)
        if change:
            found = format_names([f"{one.scan[keyword]} in {one}" for one in change])
            yield Finding("dicom_mixed_scans", f"{rule}, got {found}, of {what}")
            return


def _first_change(slices: Sequence[Slice], keyword: str) -> list[Slice]:
    """The first neighbours that differ, if any."""
    pairs = itertools.pairwise(slices)
    return next(
        ([one, other] for one, other in pairs if one.scan[keyword] != other.scan[keyword]), []
    )


def _first_return(slices: Sequence[Slice], keyword: str) -> list[Slice]:
    """The first three slices of which the middle one differs and the outer ones do not."""
    last: dict[str, int] = {}  # index of the last slice with each value
    for place, one in enumerate(slices):
        value = one.scan[keyword]
        before = last.get(value, place)
        if place - before > 1:
            return [slices[before], slices[before + 1], one]
        last[value] = place
    return []
