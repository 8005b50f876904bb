"""DICOM CT: a folder of slices or an enhanced multi-frame object, read by pydicom."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fcnseg.codes import Finding
from fcnseg.errors import GeometryError, InputError, format_names, one_line
from fcnseg.extras import require_extra
from fcnseg.volumes.formats.dicom import frame_decoding, seg
from fcnseg.volumes.formats.dicom.files import find_files
from fcnseg.volumes.formats.dicom.headers import (
    CT_CLASSES,
    Header,
    check_length,
    quiet,
    read_headers,
)
from fcnseg.volumes.formats.dicom.scans import check_rescale, find_scans
from fcnseg.volumes.formats.dicom.stack import Slice, stack
from fcnseg.volumes.formats.rescale import to_int16
from fcnseg.volumes.geometry import Geometry
from fcnseg.volumes.volume import AIR_HU, Volume

# The range of 12 bits, with air at -1024: a padding value in it is also the value of some tissue.
_TISSUE_HU = (AIR_HU, 3071)


@dataclasses.dataclass(frozen=True)
class Series:
    """A CT series of a folder, not checked yet.

    Attributes:
        uid: Its SeriesInstanceUID.
        description: Its SeriesDescription.
        slices: Its slices in any order, localizers left out.
        localizers: Number of localizers left out.
        problem: Reason why an image of it is not a slice, if one is not.
    """

    uid: str
    description: str
    slices: tuple[Slice, ...]
    localizers: int
    problem: InputError | None = None

    def __str__(self) -> str:
        return f"series {self.uid} ({self.description!r}, {len(self.slices)} slices)"


def list_series(path: str) -> list[Series]:
    """Lists the CT series in a folder or file, the one with the most slices first.

    Raises:
        InputError: If there is no CT, or a file is unreadable.
    """
    return _list_series(read_headers(find_files(path)), path)


def read_geometry(
    path: str, *, series_uid: str | None = None, like: Geometry | None = None
) -> Geometry:
    """Reads the grid of a CT series, or of a segmentation if there is no CT, from headers alone.

    Given the grid of an image, it reads that of a label, which only a segmentation can be.
    """
    if like is not None:
        return seg.read_geometry(path, like=like)
    headers = read_headers(find_files(path))
    if seg.segmentations(headers) and not any(header.is_ct for header in headers):
        return seg.read_geometry(path)
    series, _ = _choose(_list_series(headers, path), path, series_uid)
    return _stack(series, path)[1]


def read_ct(path: str, *, series_uid: str | None = None) -> Volume:
    """Reads HU (z, y, x) as int16, slices from the first to the last along their normal."""
    files = find_files(path)
    series, findings = _choose(_list_series(read_headers(files), path), path, series_uid)
    if files.left_out:
        names = format_names([file.name for file in files.left_out])
        reason = f"left files that are not DICOM out of {path}: {names}"
        findings = (*findings, Finding("dicom_files_left_out", reason))
    slices, geometry = _stack(series, path)
    hu = np.empty(geometry.shape, dtype=np.int16)
    places: dict[Path, list[int]] = defaultdict(list)
    for z, one in enumerate(slices):
        places[one.file].append(z)
    for file, heights in places.items():
        frames = _stored(file, [slices[z] for z in heights])
        for z, stored in zip(heights, frames, strict=True):
            hu[z] = _to_hu(stored, slices[z])
    mixed = find_scans(slices, what=f"{series} of {path}")
    return Volume(
        hu,
        geometry.affine,
        findings=(*findings, *mixed),
        frame_of_reference=slices[0].scan.get("FrameOfReferenceUID", ""),
    )


def read_slices(path: str, *, series_uid: str | None = None) -> list[Slice]:
    """Reads the slices of a CT series from headers alone, in the order of the volume.

    Raises:
        InputError: If there is no such series, or a file is unreadable.
        GeometryError: If the slices are not one stack.
    """
    series, _ = _choose(_list_series(read_headers(find_files(path)), path), path, series_uid)
    return _stack(series, path)[0]


def _stack(series: Series, path: str) -> tuple[list[Slice], Geometry]:
    """The slices of a series in order, and their grid, after checks of their HU scaling."""
    what = f"{series} of {path}"
    slices, geometry = stack(series.slices, what=what)
    check_rescale(slices, what=what)
    return slices, geometry


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
    strangers = [one for one in headers if _is_stranger(one, in_ct=one.series_uid in by_uid)]
    for header in strangers:
        by_uid[header.series_uid].append(_not_ct(header))
    series = [_series(uid, images) for uid, images in by_uid.items()]
    return sorted(series, key=lambda one: (-len(one.slices), one.uid))


def _is_stranger(header: Header, *, in_ct: bool) -> bool:
    """Tells whether a file that is not CT may be a slice: by its class, or by its CT series."""
    has_pixels = header.is_image and not seg.segmentations([header])
    is_like_ct = header.kind in CT_CLASSES or (in_ct and (has_pixels or header.modality == "CT"))
    return is_like_ct and not header.is_ct


def _not_ct(header: Header) -> Header:
    problem = InputError(
        f"a CT series must be of CT images alone, got modality {header.modality}"
        f"{'' if header.is_image else ' without pixels'} in {header.file}, of series"
        f" {header.series_uid}",
        code="dicom_not_ct",
    )
    return dataclasses.replace(header, problem=problem)


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
    """Selects the series asked for, else the largest, and gives the finding about the choice."""
    chosen = next((one for one in found if series_uid in (None, one.uid)), None)
    if chosen is None:
        raise InputError(
            f"no series {series_uid} in {path}, which has {format_names(found)}",
            code="dicom_no_series",
        )
    if chosen.problem is not None:
        raise chosen.problem
    if not chosen.slices:
        raise InputError(
            f"a series must have slices, but all {chosen.localizers} images of {chosen} are"
            f" localizers in {path}",
            code="dicom_localizer",
        )
    if len(found) > 1 and series_uid is None and len(chosen.slices) == 1:
        raise GeometryError(
            f"a series must have two slices or more, but each of the {len(found)} CT series in"
            f" {path} has one, as where each slice has a SeriesInstanceUID of its own"
        )
    findings = []
    others = [one for one in found if one is not chosen]
    if others and series_uid is None:
        reason = f"took {chosen}, left {format_names(others)}"
        findings.append(Finding("dicom_series_chosen", reason))
    if chosen.localizers:
        reason = f"left {chosen.localizers} localizers out of {chosen}"
        findings.append(Finding("dicom_localizers_left_out", reason))
    return chosen, tuple(findings)


def _stored(file: Path, slices: Sequence[Slice]) -> Iterator[npt.NDArray[Any]]:
    """The stored numbers (y, x) of some slices of a file, decompressed."""
    pydicom = require_extra("pydicom")
    iter_pixels = require_extra("pydicom.pixels").iter_pixels
    frame_decoding.register()
    indices = [one.frame or 0 for one in slices]
    with quiet():
        try:
            dataset = pydicom.dcmread(file)
            check_length(dataset)
            yield from iter_pixels(dataset, indices=indices, decoding_plugin=slices[0].decoder)
        except Exception as error:  # decoders raise many types of errors for broken bytes
            raise InputError(f"incomplete or corrupt volume: {file}: {one_line(error)}") from error


def _to_hu(stored: npt.NDArray[Any], one: Slice) -> npt.NDArray[np.int16]:
    slope, intercept = _rescale(one)
    if stored.dtype == np.int16 and (slope, intercept) == (1, 0):
        hu = stored
    else:
        hu = to_int16(stored[np.newaxis], slope, intercept, what=str(one.file))[0]
    if one.padding is None or _may_be_tissue(one.padding, one):
        return hu
    low, high = one.padding
    return np.where((stored >= low) & (stored <= high), np.int16(AIR_HU), hu)


def _may_be_tissue(padding: tuple[int, int], one: Slice) -> bool:
    """Tells whether tissue may have a padding value: headers err, a hole in an organ is worse."""
    slope, intercept = _rescale(one)
    low, high = sorted(value * slope + intercept for value in padding)
    return low < _TISSUE_HU[1] and high > _TISSUE_HU[0]


def _rescale(one: Slice) -> tuple[float, float]:
    """Slope and intercept; stored numbers are HU if no slice has them."""
    return (
        1.0 if one.slope is None else one.slope,
        0.0 if one.intercept is None else one.intercept,
    )
