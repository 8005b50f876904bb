"""Masks as DICOM RT Structure Sets (RTSTRUCT)."""

from __future__ import annotations

import datetime
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fcnseg import __version__
from fcnseg.errors import InputError, one_line
from fcnseg.extras import require_extra
from fcnseg.storage.whole_file import atomic_write
from fcnseg.volumes.formats.dicom.headers import quiet
from fcnseg.volumes.formats.dicom.outlines import Points, outlines
from fcnseg.volumes.formats.dicom.segments import (
    ALGORITHM,
    CHARACTER_SET,
    Segment,
    algorithm_identification,
    coded,
)
from fcnseg.volumes.formats.dicom.source import DicomSource
from fcnseg.volumes.formats.dicom.stack import Slice

_CLASS = "1.2.840.10008.5.1.4.1.1.481.3"  # RT Structure Set Storage
_STUDY_CLASS = "1.2.840.10008.3.1.2.3.1"  # Detached Study Management, retired, but required here
# The points of an outline may be longer than the 64 KiB of a value with an explicit representation.
_SYNTAX = "1.2.840.10008.1.2"  # Implicit VR Little Endian
_SERIES_NUMBER = 1002  # after that of a segmentation
_DECIMALS = 3  # micrometres, far below a pixel; a number may have 16 characters


def check_rtstruct_source(source: DicomSource) -> None:
    """Checks that a structure set can refer to the images of a volume, before there is a mask.

    Raises:
        InputError: If their headers are such that none can be made.
        MissingExtraError: If contourpy or highdicom is not installed.
    """
    require_extra("contourpy")
    _made(source)


def write_rtstruct(
    mask: npt.NDArray[np.integer],
    path: str | os.PathLike[str],
    *,
    source: DicomSource,
    segments: Sequence[Segment],
    made_with: Mapping[str, Any],
) -> None:
    """Writes a mask as a DICOM RT Structure Set with a region of interest for each class.

    Numbers of regions are class indices; classes without voxels are left out, unless all are. Each
    contour lies in the plane of its image; see `outlines`. The file is written atomically, on any
    file system.

    Args:
        mask: Class indices (z, y, x) on the grid of the images.
        path: The file to write.
        source: The images.
        segments: All classes but the background.
        made_with: Provenance of the mask, stored in ROIDerivationAlgorithmIdentificationSequence.

    Raises:
        GeometryError: If the mask has another shape than the images.
        InputError: If the images are such that no structure set can refer to them.
        MissingExtraError: If contourpy or highdicom is not installed.
    """
    require_extra("contourpy")
    source.check_mask(mask)
    made = _made(source)
    with quiet():
        _add_regions(made, mask, source, segments, made_with)
        with atomic_write(path) as unfinished:
            made.save_as(unfinished, enforce_file_format=True)


def _made(source: DicomSource) -> Any:
    """Makes the object without its regions, or refuses the images in one line."""
    require_extra("highdicom")
    with quiet():
        try:
            return _without_regions(source)
        except Exception as error:  # highdicom raises many types of errors for odd headers
            raise InputError(
                f"no RT Structure Set can be made of {source.path}: {one_line(error)}"
            ) from error


def _without_regions(source: DicomSource) -> Any:
    """The object with its patient, study, series and references to the images."""
    highdicom = require_extra("highdicom")
    image = source.first
    made = highdicom.SOPClass(
        study_instance_uid=image.StudyInstanceUID,
        series_instance_uid=highdicom.UID(),
        series_number=_SERIES_NUMBER,
        sop_instance_uid=highdicom.UID(),
        sop_class_uid=_CLASS,
        instance_number=1,
        modality="RTSTRUCT",
        manufacturer=ALGORITHM,
        manufacturer_model_name=ALGORITHM,
        software_versions=__version__,
        transfer_syntax_uid=_SYNTAX,
        series_description=f"{ALGORITHM} contours",
        specific_character_set=CHARACTER_SET,
    )
    made.copy_patient_and_study_information(image)
    made.SpecificCharacterSet = CHARACTER_SET
    made.OperatorsName = ""
    made.FrameOfReferenceUID = image.FrameOfReferenceUID
    made.PositionReferenceIndicator = ""
    made.StructureSetLabel = ALGORITHM
    now = datetime.datetime.now()
    made.StructureSetDate, made.StructureSetTime = f"{now:%Y%m%d}", f"{now:%H%M%S}"
    made.ApprovalStatus = "UNAPPROVED"
    made.ReferencedFrameOfReferenceSequence = [_frame_of_reference(source)]
    return made


def _frame_of_reference(source: DicomSource) -> Any:
    """The frame of reference, with all images in it."""
    image = source.first
    series = _item(
        SeriesInstanceUID=image.SeriesInstanceUID,
        ContourImageSequence=[_image_reference(header) for header in source.headers.values()],
    )
    referenced = _item(
        ReferencedSOPClassUID=_STUDY_CLASS,
        ReferencedSOPInstanceUID=image.StudyInstanceUID,
        RTReferencedSeriesSequence=[series],
    )
    return _item(
        FrameOfReferenceUID=image.FrameOfReferenceUID, RTReferencedStudySequence=[referenced]
    )


def _add_regions(
    made: Any,
    mask: npt.NDArray[np.integer],
    source: DicomSource,
    segments: Sequence[Segment],
    made_with: Mapping[str, Any],
) -> None:
    """Adds the regions of interest, their contours, and their codes."""
    found = np.flatnonzero(np.bincount(mask.ravel()))
    kept = [segment for segment in segments if segment.number in found] or list(segments)
    contours = _contours(mask, source)
    algorithm = algorithm_identification(made_with)
    made.StructureSetROISequence = [
        _item(
            ROINumber=segment.number,
            ReferencedFrameOfReferenceUID=source.first.FrameOfReferenceUID,
            ROIName=segment.label,
            ROIGenerationAlgorithm="AUTOMATIC",
            ROIGenerationDescription=f"{ALGORITHM} {__version__}",
            ROIDerivationAlgorithmIdentificationSequence=algorithm,
        )
        for segment in kept
    ]
    made.ROIContourSequence = [
        _item(
            ReferencedROINumber=segment.number,
            ROIDisplayColor=list(segment.rgb),
            **({"ContourSequence": contours[segment.number]} if contours[segment.number] else {}),
        )
        for segment in kept
    ]
    made.RTROIObservationsSequence = [_observation(segment) for segment in kept]


def _observation(segment: Segment) -> Any:
    code = segment.code
    kind = coded(code.kind)
    if code.side is not None:
        kind.SegmentedPropertyTypeModifierCodeSequence = [coded(code.side)]
    return _item(
        ObservationNumber=segment.number,
        ReferencedROINumber=segment.number,
        RTROIIdentificationCodeSequence=[kind],
        RTROIInterpretedType="ORGAN" if code.is_organ else "",
        ROIInterpreter="",
    )


def _contours(mask: npt.NDArray[np.integer], source: DicomSource) -> dict[int, list[Any]]:
    """The contours of each class index, slice by slice."""
    contours: dict[int, list[Any]] = defaultdict(list)
    for one, plane in zip(source.slices, mask, strict=True):
        image = _image_reference(source.headers[one.file], one.frame)
        for number in np.flatnonzero(np.bincount(plane.ravel())):
            if number:
                contours[int(number)] += [
                    _contour(points, one, image) for points in outlines(plane == number)
                ]
    for of_class in contours.values():
        for count, contour in enumerate(of_class, start=1):
            contour.ContourNumber = count
    return contours


def _contour(points: Points, one: Slice, image: Any) -> Any:
    across, down = np.reshape(one.orientation, (2, 3))
    row_step, column_step = one.pixel_spacing
    lps = one.position + points @ np.stack([across * column_step, down * row_step])
    contour = _item(
        ContourImageSequence=[image],
        ContourGeometricType="CLOSED_PLANAR",
        NumberOfContourPoints=len(points),
    )
    _set_numbers(contour, "ContourData", lps.ravel())
    return contour


def _set_numbers(dataset: Any, keyword: str, numbers: npt.NDArray[np.float64]) -> None:
    """Sets decimal strings as they are written: with an object for each, a scan takes minutes."""
    pydicom = require_extra("pydicom")
    tag = pydicom.tag.Tag(keyword)
    text = "\\".join(f"{number:.{_DECIMALS}f}" for number in numbers.tolist()).encode()
    text += b" " * (len(text) % 2)
    dataset[tag] = pydicom.dataelem.RawDataElement(tag, "DS", len(text), text, 0, True, True)
    # Only values that are already in the encoding of the file are written as they are.
    encoding = require_extra("pydicom.charset").default_encoding
    dataset.set_original_encoding(True, True, encoding)  # implicit, little-endian


def _image_reference(header: Any, frame: int | None = None) -> Any:
    numbers = {} if frame is None else {"ReferencedFrameNumber": frame + 1}
    return _item(
        ReferencedSOPClassUID=header.SOPClassUID,
        ReferencedSOPInstanceUID=header.SOPInstanceUID,
        **numbers,
    )


def _item(**elements: Any) -> Any:
    """Makes an item of a sequence."""
    item = require_extra("pydicom").Dataset()
    for keyword, value in elements.items():
        setattr(item, keyword, value)
    return item
