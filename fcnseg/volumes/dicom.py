"""DICOM CT: a folder of slices or an enhanced multi-frame object, read by pydicom."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fcnseg.errors import InputError, one_line, require_extra, told
from fcnseg.volumes import dicom_seg, frame_decoding
from fcnseg.volumes.dicom_headers import Header, quiet, read_headers
from fcnseg.volumes.slices import Slice, stack
from fcnseg.volumes.volume import AIR_HU, Finding, Geometry, Volume
from fcnseg.volumes.voxels import to_int16

# What 12 bits hold, with air at -1024: a padding value in it is the value of some tissue too.
_TISSUE_HU = (AIR_HU, 3071)


@dataclasses.dataclass(frozen=True)
class Series:
    """A CT series of a folder, not checked yet.

    Attributes:
        uid: Its SeriesInstanceUID.
        description: Its SeriesDescription.
        slices: Its slices in any order, localizers left out.
        localizers: How many localizers were left out.
        problem: Why an image of it is no slice, if one is none.
    """

    uid: str
    description: str
    slices: tuple[Slice, ...]
    localizers: int
    problem: InputError | None = None

    def __str__(self) -> str:
        return f"series {self.uid} ({self.description!r}, {len(self.slices)} slices)"


def list_series(path: str) -> list[Series]:
    """The CT series in a folder or file, the one with the most slices first.

    Raises:
        InputError: If there is no CT, or a file is unreadable.
    """
    return _list_series(read_headers(path), path)


def read_geometry(
    path: str, *, series_uid: str | None = None, like: Geometry | None = None
) -> Geometry:
    """The grid of a CT series, or of a segmentation where there is no CT, from headers alone."""
    headers = read_headers(path)
    if dicom_seg.segmentations(headers) and not any(header.is_ct for header in headers):
        return dicom_seg.read_geometry(path, like=like)
    series, _ = _choose(_list_series(headers, path), path, series_uid)
    return stack(series.slices, what=f"{series} of {path}")[1]


def read_ct(path: str, *, series_uid: str | None = None) -> Volume:
    """HU (z, y, x) as int16, slices from the first to the last along their normal."""
    series, findings = _choose(list_series(path), path, series_uid)
    slices, geometry = stack(series.slices, what=f"{series} of {path}")
    hu = np.empty(geometry.shape, dtype=np.int16)
    places: dict[Path, list[int]] = defaultdict(list)
    for z, one in enumerate(slices):
        places[one.file].append(z)
    for file, heights in places.items():
        frames = _stored(file, [slices[z] for z in heights])
        for z, stored in zip(heights, frames, strict=True):
            hu[z] = _to_hu(stored, slices[z])
    return Volume(hu, geometry.affine, findings=findings)


def _list_series(headers: Sequence[Header], path: str) -> list[Series]:
    by_uid: dict[str, list[Header]] = defaultdict(list)
    for header in headers:
        if header.is_ct:
            by_uid[header.series_uid].append(header)
    if not by_uid:
        raise InputError(
            f"DICOM must be CT, got modality {', '.join(sorted({one.modality for one in headers}))}"
            f" in {path}",
            code="dicom_not_ct",
        )
    series = [_series(uid, images) for uid, images in by_uid.items()]
    return sorted(series, key=lambda one: (-len(one.slices), one.uid))


def _series(uid: str, images: Sequence[Header]) -> Series:
    return Series(
        uid=uid,
        description=images[0].description,
        slices=tuple(one for image in images for one in image.slices),
        localizers=sum(image.localizers for image in images),
        problem=next((image.problem for image in images if image.problem), None),
    )


def _choose(
    found: Sequence[Series], path: str, series_uid: str | None
) -> tuple[Series, tuple[Finding, ...]]:
    """The series asked for, else the largest, and what to say about the choice."""
    chosen = next((one for one in found if series_uid in (None, one.uid)), None)
    if chosen is None:
        raise InputError(
            f"no series {series_uid} in {path}, which has {told(found)}", code="dicom_no_series"
        )
    if chosen.problem is not None:
        raise chosen.problem
    if not chosen.slices:
        raise InputError(
            f"a series must have slices, but all {chosen.localizers} images of {chosen} are"
            f" localizers in {path}",
            code="dicom_localizer",
        )
    findings = []
    others = [one for one in found if one is not chosen]
    if others and series_uid is None:
        reason = f"took {chosen}, left {told(others)}"
        findings.append(Finding("dicom_series_chosen", reason))
    if chosen.localizers:
        reason = f"left {chosen.localizers} localizers out of {chosen}"
        findings.append(Finding("dicom_localizers_left_out", reason))
    return chosen, tuple(findings)


def _stored(file: Path, slices: Sequence[Slice]) -> Iterator[npt.NDArray[Any]]:
    """The stored numbers (y, x) of some slices of a file, decompressed."""
    iter_pixels = require_extra("pydicom.pixels", "dicom").iter_pixels
    frame_decoding.register()
    indices = [one.frame or 0 for one in slices]
    with quiet():
        try:
            yield from iter_pixels(file, indices=indices, decoding_plugin=slices[0].decoder)
        except Exception as error:  # decoders raise of many kinds for broken bytes
            raise InputError(f"not a whole volume: {file}: {one_line(error)}") from error


def _to_hu(stored: npt.NDArray[Any], one: Slice) -> npt.NDArray[np.int16]:
    if stored.dtype == np.int16 and (one.slope, one.inter) == (1, 0):
        hu = stored
    else:
        hu = to_int16(stored[np.newaxis], one.slope, one.inter, what=str(one.file))[0]
    if one.padding is None or _may_be_tissue(one.padding, one):
        return hu
    low, high = one.padding
    return np.where((stored >= low) & (stored <= high), np.int16(AIR_HU), hu)


def _may_be_tissue(padding: tuple[int, int], one: Slice) -> bool:
    """Whether tissue may have a padding value: headers err, and a hole in an organ is worse."""
    low, high = sorted(value * one.slope + one.inter for value in padding)
    return low < _TISSUE_HU[1] and high > _TISSUE_HU[0]
