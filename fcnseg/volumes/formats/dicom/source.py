"""The DICOM images of a volume, to which objects derived from it refer."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fcnseg.errors import GeometryError, InputError, format_names, one_line
from fcnseg.extras import require_extra
from fcnseg.volumes.formats.dicom.headers import quiet
from fcnseg.volumes.formats.dicom.series import read_slices
from fcnseg.volumes.formats.dicom.stack import Slice
from fcnseg.volumes.zyx import Shape, Zyx

# Elements that an object derived from the images has to have, and that have no meaningful default.
_NEEDED = (
    "FrameOfReferenceUID",
    "SOPClassUID",
    "SOPInstanceUID",
    "SeriesInstanceUID",
    "StudyInstanceUID",
)
# Elements that it has to have too, but that may be empty: of type 2 in the standard.
_MAY_BE_EMPTY = (
    "AccessionNumber",
    "PatientBirthDate",
    "PatientID",
    "PatientName",
    "PatientSex",
    "ReferringPhysicianName",
    "StudyDate",
    "StudyID",
    "StudyTime",
)
_DATES = ("PatientBirthDate", "StudyDate")
_SEXES = ("F", "M", "O")


@dataclasses.dataclass(frozen=True, eq=False)
class DicomSource:
    """The images of a CT series, without their pixels.

    Attributes:
        path: The folder or file of the series.
        slices: The slices in the order of the volume, along their normal.
        headers: Data set of each file, completed: what the standard requires and the file lacks is
            empty, and orientation and frame of reference are those of the first slice.
    """

    path: str
    slices: tuple[Slice, ...]
    headers: Mapping[Path, Any]

    @property
    def shape(self) -> Shape:
        """Voxels (z, y, x)."""
        return Zyx((len(self.slices), *self.slices[0].size))

    @property
    def first(self) -> Any:
        """Data set of the first slice, with the patient and the study."""
        return self.headers[self.slices[0].file]

    @property
    def is_multi_frame(self) -> bool:
        """True if the slices are frames of multi-frame objects."""
        return self.slices[0].frame is not None

    def check_mask(self, mask: npt.NDArray[np.integer]) -> None:
        """Checks that a mask has a voxel for each of the images.

        Raises:
            GeometryError: If it has not.
        """
        if mask.shape != self.shape:
            raise GeometryError(
                f"mask must have the shape of its images, {self.shape} (z, y, x), got {mask.shape}"
                f" for {self.path}"
            )


def read_dicom_source(path: str | Path, *, series_uid: str | None = None) -> DicomSource:
    """Reads the headers of the CT series that `read_ct` reads from a path.

    Args:
        path: A folder of DICOM slices, or a multi-frame DICOM file.
        series_uid: The series to read; by default that with the most slices.

    Raises:
        InputError: If it is no DICOM series, or lacks an identifier to refer to.
        GeometryError: If its slices are not one stack.
    """
    name = str(path)
    slices = read_slices(name, series_uid=series_uid)
    dcmread = require_extra("pydicom").dcmread
    files = list(dict.fromkeys(one.file for one in slices))
    with quiet():
        try:
            headers = {file: dcmread(file, stop_before_pixels=True) for file in files}
            _complete(list(headers.values()), slices)
        except Exception as error:  # pydicom raises many types of errors for broken bytes
            raise InputError(f"not a readable DICOM series: {name}: {one_line(error)}") from error
    _check_identified(headers, name)
    return DicomSource(name, tuple(slices), headers)


def _complete(headers: Sequence[Any], slices: Sequence[Slice]) -> None:
    """Sets what libraries take for granted, and what slices may differ in by rounding."""
    frames = [header.get("FrameOfReferenceUID") for header in headers]
    frame = next((one for one in frames if one), None)
    for header in headers:
        if frame:  # of one value where it is given, or else the scan is refused
            header.FrameOfReferenceUID = frame
        if slices[0].frame is None:
            header.ImageOrientationPatient = list(slices[0].orientation)
            header.setdefault("SliceThickness", None)
        for keyword in _MAY_BE_EMPTY:
            if header.get(keyword) is None:
                setattr(header, keyword, "")
        _clear_invalid(header)


def _clear_invalid(header: Any) -> None:
    """Empties dates, times and sexes that the standard does not have, as of old scanners."""
    valuerep = require_extra("pydicom.valuerep")
    parsers = {**dict.fromkeys(_DATES, valuerep.DA), "StudyTime": valuerep.TM}
    for keyword, parse in parsers.items():
        if not _can_parse(parse, str(header.get(keyword) or "")):
            setattr(header, keyword, "")
    if header.PatientSex not in _SEXES:
        header.PatientSex = ""


def _can_parse(parse: Callable[[str], object], text: str) -> bool:
    try:
        parse(text)
    except ValueError:
        return False
    return True


def _check_identified(headers: Mapping[Path, Any], path: str) -> None:
    for file, header in headers.items():
        lacking = [keyword for keyword in _NEEDED if not header.get(keyword)]
        if lacking:
            raise InputError(
                f"images must have {format_names(_NEEDED)} for DICOM objects that refer to them,"
                f" but {file} has no {format_names(lacking)}, in {path}"
            )
