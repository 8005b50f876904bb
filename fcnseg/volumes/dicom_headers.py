"""Headers of DICOM files, and the slices that they tell of."""

from __future__ import annotations

import contextlib
import dataclasses
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from fcnseg.errors import GeometryError, InputError, one_line, require_extra
from fcnseg.volumes.slices import Slice

SUFFIX = ".dcm"

_MAGIC = slice(128, 132)  # where a DICOM file says DICM
_DIRECTORY = "DICOMDIR"  # an index of files, no image
_CT_CLASSES = (
    "1.2.840.10008.5.1.4.1.1.2",  # CT Image Storage
    "1.2.840.10008.5.1.4.1.1.2.1",  # Enhanced CT Image Storage
    "1.2.840.10008.5.1.4.1.1.2.2",  # Legacy Converted Enhanced CT Image Storage
)
_LOCALIZER = "LOCALIZER"
# Of RLE, broken bytes end the whole process in pylibjpeg's decoder.
_DECODERS = {"1.2.840.10008.1.2.5": "pydicom"}

# Where a multi-frame object keeps what a single slice has at its top.
_GROUP_OF = {
    "ImagePositionPatient": "PlanePositionSequence",
    "ImageOrientationPatient": "PlaneOrientationSequence",
    "PixelSpacing": "PixelMeasuresSequence",
    "RescaleSlope": "PixelValueTransformationSequence",
    "RescaleIntercept": "PixelValueTransformationSequence",
    "FrameType": "CTImageFrameTypeSequence",
}


@dataclasses.dataclass(frozen=True)
class Header:
    """What a DICOM file tells before its pixels.

    Attributes:
        file: The file.
        kind: Its SOPClassUID.
        modality: Such as `CT`.
        series_uid: Its SeriesInstanceUID.
        description: Its SeriesDescription.
        is_image: Whether pixels follow.
        slices: Of a CT image, those that are no localizers.
        localizers: How many were left out.
        problem: Why a CT image has no slices.
    """

    file: Path
    kind: str
    modality: str
    series_uid: str
    description: str
    is_image: bool
    slices: tuple[Slice, ...] = ()
    localizers: int = 0
    problem: InputError | None = None

    @property
    def is_ct(self) -> bool:
        """Whether it is an image of a CT scanner."""
        return self.is_image and self.modality == "CT"


def is_dicom(path: str | Path) -> bool:
    """Whether a file says that it is DICOM."""
    with open(path, "rb") as file:
        return begins_dicom(file.read(_MAGIC.stop))


def begins_dicom(start: bytes) -> bool:
    """Whether a file that starts so says that it is DICOM."""
    return start[_MAGIC] == b"DICM"


def holds_dicom(folder: Path) -> bool:
    """Whether a file in a folder, or in a folder in it, says that it is DICOM."""
    return any(file.is_file() and is_dicom(file) for file in folder.rglob("*"))


def read_headers(path: str) -> list[Header]:
    """The headers in a file, or of all DICOM files in a folder and the folders in it, by name.

    Files that are not DICOM are passed over, unless they are empty or called `.dcm`.

    Raises:
        InputError: If a file is not whole, or there is none.
    """
    root = Path(path)
    files = sorted(root.rglob("*")) if root.is_dir() else [root]
    headers = [_read_header(file) for file in files if _counts(file)]
    if not headers:
        raise InputError(f"no DICOM files in {path}", code="dicom_no_series")
    return headers


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Leaves out pydicom's warnings of values that break a rule and do no harm."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _counts(file: Path) -> bool:
    if not file.is_file() or file.name.startswith(".") or file.name == _DIRECTORY:
        return False
    return file.suffix.lower() == SUFFIX or file.stat().st_size == 0 or is_dicom(file)


def _read_header(file: Path) -> Header:
    pydicom = require_extra("pydicom", "dicom")
    with quiet():  # values are parsed when they are asked for, so until the end
        try:
            return _header(pydicom.dcmread(file, stop_before_pixels=True), file)
        except InputError:
            raise
        except Exception as error:  # pydicom raises of many kinds for broken bytes
            raise InputError(f"not a readable DICOM file: {file}: {one_line(error)}") from error


def _header(dataset: Any, file: Path) -> Header:
    kind = dataset.file_meta.get("MediaStorageSOPClassUID", dataset.get("SOPClassUID"))
    if kind is None or (kind in _CT_CLASSES and "Rows" not in dataset):
        raise InputError(f"not a whole DICOM file: {file}: its header ends early")
    header = Header(
        file=file,
        kind=str(kind),
        modality=str(dataset.get("Modality", "none")),
        series_uid=str(dataset.get("SeriesInstanceUID", "")),
        description=str(dataset.get("SeriesDescription", "")),
        is_image="Rows" in dataset,
    )
    if not header.is_ct:
        return header
    frames = range(int(dataset.NumberOfFrames)) if "NumberOfFrames" in dataset else [None]
    kept = [frame for frame in frames if not _is_localizer(dataset, frame)]
    try:
        slices = tuple(_slice(dataset, frame, file) for frame in kept)
    except InputError as error:
        return dataclasses.replace(header, problem=error)
    return dataclasses.replace(header, slices=slices, localizers=len(frames) - len(kept))


def _value(dataset: Any, frame: int | None, keyword: str) -> Any:
    """A value of one frame: its own, else what all frames share, else the object's."""
    groups = []
    if frame is not None:
        own = dataset.get("PerFrameFunctionalGroupsSequence") or ()
        shared = dataset.get("SharedFunctionalGroupsSequence") or ()
        groups = [group[at] for group, at in ((own, frame), (shared, 0)) if at < len(group)]
    for group in groups:
        for item in list(group.get(_GROUP_OF[keyword], ()))[:1]:
            if keyword in item:
                return item.get(keyword)
    return dataset.get(keyword)


def _is_localizer(dataset: Any, frame: int | None) -> bool:
    kinds = _value(dataset, frame, "FrameType") or dataset.get("ImageType") or ()
    return _LOCALIZER in kinds


def _slice(dataset: Any, frame: int | None, file: Path) -> Slice:
    if dataset.get("SamplesPerPixel", 1) != 1 or "PALETTE" in dataset.PhotometricInterpretation:
        raise InputError(f"voxels must be single numbers, got colours in {file}", code="not_scalar")
    place = {
        keyword: _numbers(_value(dataset, frame, keyword), count, keyword, file)
        for keyword, count in (
            ("ImagePositionPatient", 3),
            ("ImageOrientationPatient", 6),
            ("PixelSpacing", 2),
        )
    }
    slope, inter = (_value(dataset, frame, f"Rescale{part}") for part in ("Slope", "Intercept"))
    across, down, height = place["ImagePositionPatient"]
    row_step, column_step = place["PixelSpacing"]
    return Slice(
        file=file,
        frame=frame,
        size=(int(dataset.Rows), int(dataset.Columns)),
        pixel_spacing=(row_step, column_step),
        orientation=place["ImageOrientationPatient"],
        position=(across, down, height),
        slope=1.0 if slope is None else float(slope),
        inter=0.0 if inter is None else float(inter),
        padding=_padding(dataset),
        decoder=_DECODERS.get(dataset.file_meta.TransferSyntaxUID, ""),
    )


def _numbers(value: Any, count: int, keyword: str, file: Path) -> tuple[float, ...]:
    numbers = () if value is None else tuple(float(number) for number in value)
    if len(numbers) != count or not np.isfinite(numbers).all():
        raise GeometryError(
            f"a slice must tell {keyword} in {count} numbers, got {list(numbers)} in {file}"
        )
    return numbers


def _padding(dataset: Any) -> tuple[int, int] | None:
    if dataset.get("PixelPaddingValue") is None:
        return None
    ends = [int(dataset.PixelPaddingValue), int(dataset.get("PixelPaddingRangeLimit") or 0)]
    if dataset.get("PixelRepresentation") == 1:  # some write a negative value as an unsigned one
        ends = [end - 2**16 if end >= 2**15 else end for end in ends]
    if dataset.get("PixelPaddingRangeLimit") is None:
        ends[1] = ends[0]
    return min(ends), max(ends)
