"""Headers of DICOM files, and the slices that they describe."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fcnseg.errors import GeometryError, InputError, one_line
from fcnseg.extras import require_extra
from fcnseg.volumes.formats.dicom.files import DicomFiles
from fcnseg.volumes.formats.dicom.scans import SCAN
from fcnseg.volumes.formats.dicom.stack import Slice

CT_CLASSES = (
    "1.2.840.10008.5.1.4.1.1.2",  # CT Image Storage
    "1.2.840.10008.5.1.4.1.1.2.1",  # Enhanced CT Image Storage
    "1.2.840.10008.5.1.4.1.1.2.2",  # Legacy Converted Enhanced CT Image Storage
)
"""SOP classes of CT images."""

_DIRECTORY_CLASS = "1.2.840.10008.1.3.10"  # Media Storage Directory: a DICOMDIR by another name
_LOCALIZER = "LOCALIZER"
_MOST_RESCALE = 2**15  # HU that int16 holds; those of scanners are a few thousand
# For RLE, broken bytes end the complete process in pylibjpeg's decoder.
_DECODERS = {"1.2.840.10008.1.2.5": "pydicom"}

# Where a multi-frame object keeps the top-level elements of a single slice, and by which name.
_GROUP_OF = {
    "ImagePositionPatient": ("PlanePositionSequence", "ImagePositionPatient"),
    "ImageOrientationPatient": ("PlaneOrientationSequence", "ImageOrientationPatient"),
    "PixelSpacing": ("PixelMeasuresSequence", "PixelSpacing"),
    "RescaleSlope": ("PixelValueTransformationSequence", "RescaleSlope"),
    "RescaleIntercept": ("PixelValueTransformationSequence", "RescaleIntercept"),
    "FrameType": ("CTImageFrameTypeSequence", "FrameType"),
    "AcquisitionNumber": ("FrameContentSequence", "FrameAcquisitionNumber"),
    "StackID": ("FrameContentSequence", "StackID"),
    "TemporalPositionIndex": ("FrameContentSequence", "TemporalPositionIndex"),
    "ConvolutionKernel": ("CTReconstructionSequence", "ConvolutionKernel"),
    "KVP": ("CTXRayDetailsSequence", "KVP"),
    "IrradiationEventUID": ("IrradiationEventIdentificationSequence", "IrradiationEventUID"),
}


@dataclasses.dataclass(frozen=True)
class Header:
    """Header of a DICOM file, without its pixels.

    Attributes:
        file: The file.
        kind: Its SOPClassUID.
        modality: Modality such as `CT`.
        series_uid: Its SeriesInstanceUID.
        description: Its SeriesDescription.
        is_image: True if pixels follow.
        slices: Slices of a CT image, without localizers.
        localizers: Number of localizers left out.
        problem: Reason why a CT image has no slices.
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
        """True if it is an image of a CT scanner."""
        return self.is_image and self.modality == "CT"


def read_headers(files: DicomFiles) -> list[Header]:
    """Reads the headers of DICOM files.

    Raises:
        InputError: If a file is incomplete, or there is none.
    """
    headers = [_read_header(file) for file in files.read]
    if not headers:
        raise InputError(f"no DICOM files in {files.path}", code="dicom_no_series")
    return headers


def check_length(dataset: Any) -> None:
    """Checks that pixels are no more than the header says; less than a row is padding.

    Missing pixels are detected by pydicom.

    Raises:
        ValueError: If there are more.
    """
    if dataset.file_meta.TransferSyntaxUID.is_compressed or "PixelData" not in dataset:
        return
    row_bits = dataset.Columns * dataset.BitsAllocated
    frames = int(dataset.get("NumberOfFrames") or 1)
    expected = -(-row_bits * dataset.Rows * frames // 8)
    found = len(dataset.PixelData)
    if found - expected >= max(row_bits // 8, 2):
        raise ValueError(f"the header declares {expected} bytes of pixels, but there are {found}")


class _Silence:
    """Silence for several threads at once: the first to enter makes it, the last to leave ends it.

    Python's filters of warnings and the level of a log belong to the process: if each thread put
    back what it had found, one that came second would put back the silence.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._ends = contextlib.ExitStack()

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._ends.enter_context(_silenced())
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._ends.close()


@contextlib.contextmanager
def _silenced() -> Iterator[None]:
    logger = logging.getLogger("highdicom")
    level = logger.level
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            logger.setLevel(level)


_SILENCE = _Silence()


def quiet() -> contextlib.AbstractContextManager[None]:
    """Suppresses pydicom's warnings of values that break a rule and do no harm.

    Steps that highdicom takes are not logged either. Several threads may be inside.
    """
    return _SILENCE


def _read_header(file: Path) -> Header:
    pydicom = require_extra("pydicom")
    with quiet():  # values are parsed on access, so until the end
        try:
            return _header(pydicom.dcmread(file, stop_before_pixels=True), file)
        except InputError:
            raise
        except Exception as error:  # pydicom raises many types of errors for broken bytes
            raise InputError(f"not a readable DICOM file: {file}: {one_line(error)}") from error


def _header(dataset: Any, file: Path) -> Header:
    kind = dataset.get("SOPClassUID") or dataset.file_meta.get("MediaStorageSOPClassUID")
    is_image = "Rows" in dataset
    is_told = is_image or "SeriesInstanceUID" in dataset or kind == _DIRECTORY_CLASS
    if kind is None or not is_told or (kind in CT_CLASSES and not is_image):
        raise InputError(f"incomplete or corrupt DICOM file: {file}: its header ends early")
    header = Header(
        file=file,
        kind=str(kind),
        modality=str(dataset.get("Modality") or "none"),
        series_uid=str(dataset.get("SeriesInstanceUID", "")),
        description=str(dataset.get("SeriesDescription", "")),
        is_image=is_image,
    )
    if not header.is_ct:
        return header
    try:
        frames = _frames(dataset, file)
        kept = [frame for frame in frames if not _is_localizer(dataset, frame)]
        slices = tuple(_slice(dataset, frame, file) for frame in kept)
    except InputError as error:
        return dataclasses.replace(header, problem=error)
    return dataclasses.replace(header, slices=slices, localizers=len(frames) - len(kept))


def _frames(dataset: Any, file: Path) -> Sequence[int | None]:
    """The numbers of the frames, from 0; only None in an object that counts none."""
    if "NumberOfFrames" not in dataset:
        return [None]
    count = int(dataset.NumberOfFrames)
    # Without groups, only the object itself locates a frame, so there can be one alone.
    groups = len(dataset.get("PerFrameFunctionalGroupsSequence") or (None,))
    if count < 1 or count != groups:
        raise InputError(
            f"a multi-frame object must have one frame or more and tell of each, got NumberOfFrames"
            f" {count} and {groups} of PerFrameFunctionalGroupsSequence in {file}"
        )
    return range(count)


def _value(dataset: Any, frame: int | None, keyword: str) -> Any:
    """Gives a value of one frame: its own, else the one shared by all frames, else the object's."""
    group, inner = _GROUP_OF.get(keyword, ("", keyword))
    if frame is not None and group:
        own = dataset.get("PerFrameFunctionalGroupsSequence") or ()
        shared = dataset.get("SharedFunctionalGroupsSequence") or ()
        for groups, at in ((own, frame), (shared, 0)):
            for item in list(groups[at].get(group) or ())[:1] if at < len(groups) else ():
                return item.get(inner)
    return dataset.get(keyword)


def _is_localizer(dataset: Any, frame: int | None) -> bool:
    kinds = _value(dataset, frame, "FrameType") or dataset.get("ImageType") or ()
    return _LOCALIZER in kinds


def _slice(dataset: Any, frame: int | None, file: Path) -> Slice:
    if dataset.get("SamplesPerPixel", 1) != 1 or "PALETTE" in dataset.PhotometricInterpretation:
        raise InputError(f"voxels must be single numbers, got colours in {file}", code="not_scalar")
    _check_bits(dataset, file)
    place = {
        keyword: _numbers(_value(dataset, frame, keyword), count, keyword, file)
        for keyword, count in (
            ("ImagePositionPatient", 3),
            ("ImageOrientationPatient", 6),
            ("PixelSpacing", 2),
        )
    }
    across, down, height = place["ImagePositionPatient"]
    row_step, column_step = place["PixelSpacing"]
    return Slice(
        file=file,
        frame=frame,
        size=(int(dataset.Rows), int(dataset.Columns)),
        pixel_spacing=(row_step, column_step),
        orientation=place["ImageOrientationPatient"],
        position=(across, down, height),
        slope=_rescale(dataset, frame, "RescaleSlope", file),
        intercept=_rescale(dataset, frame, "RescaleIntercept", file),
        padding=_padding(dataset),
        decoder=_DECODERS.get(dataset.file_meta.TransferSyntaxUID, ""),
        scan=_scan(dataset, frame),
    )


def _check_bits(dataset: Any, file: Path) -> None:
    """Checks that stored bits are the lowest, as the standard demands and pydicom assumes."""
    stored, highest = dataset.get("BitsStored"), dataset.get("HighBit")
    if None not in (stored, highest) and highest != stored - 1:
        raise InputError(
            f"HighBit must be one less than BitsStored, got {highest} and {stored} in {file}"
        )


def _numbers(value: Any, count: int, keyword: str, file: Path) -> tuple[float, ...]:
    numbers = () if value is None else tuple(float(number) for number in value)
    if len(numbers) != count or not np.isfinite(numbers).all():
        raise GeometryError(
            f"a slice must tell {keyword} in {count} numbers, got {list(numbers)} in {file}"
        )
    return numbers


def _rescale(dataset: Any, frame: int | None, keyword: str, file: Path) -> float | None:
    """The slope or intercept; None if there is none."""
    value = _value(dataset, frame, keyword)
    if value is None:
        return None
    number = float(value)
    if not abs(number) <= _MOST_RESCALE or (keyword == "RescaleSlope" and number == 0):
        where = "" if frame is None else f" frame {frame + 1}"
        raise InputError(
            f"{keyword} must be of {-_MOST_RESCALE} to {_MOST_RESCALE}, and a slope not 0, got"
            f" {number} in {file}{where}",
            code="dicom_bad_rescale",
        )
    return number


def _scan(dataset: Any, frame: int | None) -> Mapping[str, str]:
    """The scan and patient of a slice, as far as the header names them."""
    values = {keyword: _value(dataset, frame, keyword) for keyword in SCAN}
    return {keyword: str(value) for keyword, value in values.items() if value not in (None, "")}


def _padding(dataset: Any) -> tuple[int, int] | None:
    if dataset.get("PixelPaddingValue") is None:
        return None
    ends = [int(dataset.PixelPaddingValue), int(dataset.get("PixelPaddingRangeLimit") or 0)]
    if dataset.get("PixelRepresentation") == 1:  # some write a negative value as an unsigned one
        ends = [end - 2**16 if end >= 2**15 else end for end in ends]
    if dataset.get("PixelPaddingRangeLimit") is None:
        ends[1] = ends[0]
    return min(ends), max(ends)
