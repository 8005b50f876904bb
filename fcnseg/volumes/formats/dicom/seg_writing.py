"""Masks as DICOM Segmentation objects (SEG), written by highdicom."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fcnseg import __version__
from fcnseg.errors import InputError, one_line
from fcnseg.extras import require_extra
from fcnseg.storage.whole_file import atomic_write
from fcnseg.volumes.formats.dicom.headers import quiet
from fcnseg.volumes.formats.dicom.segments import (
    ALGORITHM,
    CHARACTER_SET,
    Segment,
    algorithm_identification,
    coded,
)
from fcnseg.volumes.formats.dicom.source import DicomSource

_SERIES_NUMBER = 1001  # series of a study are sorted by number: after those of the scanner


def check_seg_source(source: DicomSource) -> None:
    """Checks that a segmentation can refer to the images of a volume, before there is a mask.

    Raises:
        InputError: If they are several multi-frame objects, or frames of one were left out, or
            their headers are such that highdicom makes no segmentation of them.
        MissingExtraError: If highdicom is not installed.
    """
    require_extra("highdicom.seg")
    if source.is_multi_frame:
        _check_frames(source)
    nothing = np.broadcast_to(np.uint8(0), source.shape)
    _made(nothing, source, [Segment(1, "any", (0, 0, 0))], {})


def _check_frames(source: DicomSource) -> None:
    frames = sum(int(header.NumberOfFrames) for header in source.headers.values())
    if len(source.headers) > 1 or frames != len(source.slices):
        raise InputError(
            "a DICOM Segmentation may be of one multi-frame object, each of its frames a slice, got"
            f" {len(source.headers)} objects of {frames} frames for {len(source.slices)} slices in"
            f" {source.path}"
        )


def write_dicom_seg(
    mask: npt.NDArray[np.integer],
    path: str | os.PathLike[str],
    *,
    source: DicomSource,
    segments: Sequence[Segment],
    made_with: Mapping[str, Any],
) -> None:
    """Writes a mask as a DICOM Segmentation object with a binary segment for each class.

    Segment numbers are class indices. They must be consecutive, so a class without voxels has a
    segment without frames. The file is written atomically, on any file system.

    Args:
        mask: Class indices (z, y, x), uint8 or uint16, on the grid of the images.
        path: The file to write.
        source: The images.
        segments: All classes but the background, in the order of their indices from 1.
        made_with: Provenance of the mask, stored in AlgorithmParameters.

    Raises:
        GeometryError: If the mask has another shape than the images.
        InputError: If the images are such that no segmentation can refer to them.
        MissingExtraError: If highdicom is not installed.
    """
    require_extra("highdicom.seg")
    source.check_mask(mask)
    if source.is_multi_frame:
        _check_frames(source)
    made = _made(mask, source, segments, made_with)
    with quiet(), atomic_write(path) as unfinished:
        made.save_as(unfinished, enforce_file_format=True)


def _made(
    mask: npt.NDArray[np.integer],
    source: DicomSource,
    segments: Sequence[Segment],
    made_with: Mapping[str, Any],
) -> Any:
    """Makes the object, or refuses the images in one line."""
    with quiet():
        try:
            return _segmentation(mask, source, segments, made_with)
        except Exception as error:  # highdicom raises many types of errors for odd headers
            raise InputError(
                f"no DICOM Segmentation can be made of {source.path}: {one_line(error)}"
            ) from error


def _segmentation(
    mask: npt.NDArray[np.integer],
    source: DicomSource,
    segments: Sequence[Segment],
    made_with: Mapping[str, Any],
) -> Any:
    highdicom, seg = require_extra("highdicom"), require_extra("highdicom.seg")
    algorithm = algorithm_identification(made_with)
    images, frames = _images(source), _in_order_of_frames(mask, source)
    further: list[Any] = []
    if not source.is_multi_frame and not mask.any():
        # Frames of no segment cannot all be left out: those of one slice are enough.
        images, further, frames = images[:1], images[1:], frames[:1]
    return seg.Segmentation(
        source_images=images,
        further_source_images=further or None,
        pixel_array=frames,
        segmentation_type=seg.SegmentationTypeValues.BINARY,
        segment_descriptions=[_description(segment, algorithm) for segment in segments],
        series_instance_uid=highdicom.UID(),
        series_number=_SERIES_NUMBER,
        series_description=f"{ALGORITHM} segmentation",
        sop_instance_uid=highdicom.UID(),
        instance_number=1,
        manufacturer=ALGORITHM,
        manufacturer_model_name=ALGORITHM,
        software_versions=__version__,
        device_serial_number=__version__,
        content_label="SEGMENTATION",
        content_description=f"Organs segmented by {ALGORITHM}",
        specific_character_set=CHARACTER_SET,
    )


def _images(source: DicomSource) -> list[Any]:
    """Data sets of the images in the order of the slices, with the distances between slices."""
    first = source.slices[0]
    ends = (source.slices[-1].height_mm, first.height_mm)
    step = round((ends[0] - ends[1]) / (len(source.slices) - 1), 6)
    if not source.is_multi_frame:
        images = [copy.copy(source.headers[one.file]) for one in source.slices]
        for image in images:
            image.SpacingBetweenSlices = step
            image.SliceThickness = image.SliceThickness or step
        return images
    image = copy.deepcopy(source.first)
    dataset = require_extra("pydicom").Dataset
    orientation, measures = dataset(), dataset()
    orientation.ImageOrientationPatient = list(first.orientation)
    measures.PixelSpacing = list(first.pixel_spacing)
    measures.SpacingBetweenSlices = measures.SliceThickness = step
    (shared,) = image.get("SharedFunctionalGroupsSequence") or (dataset(),)
    shared.PlaneOrientationSequence, shared.PixelMeasuresSequence = [orientation], [measures]
    image.SharedFunctionalGroupsSequence = [shared]
    return [image]


def _in_order_of_frames(
    mask: npt.NDArray[np.integer], source: DicomSource
) -> npt.NDArray[np.integer]:
    if not source.is_multi_frame:
        return mask
    frames = np.empty_like(mask)
    frames[[one.frame or 0 for one in source.slices]] = mask
    return frames


def _description(segment: Segment, algorithm: Any) -> Any:
    seg = require_extra("highdicom.seg")
    code = segment.code
    made = seg.SegmentDescription(
        segment_number=segment.number,
        segment_label=segment.label,
        segmented_property_category=coded(code.category),
        segmented_property_type=coded(code.kind),
        algorithm_type=seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=algorithm,
        anatomic_regions=None if code.region is None else [coded(code.region)],
        display_color=require_extra("highdicom.color").CIELabColor.from_rgb(*segment.rgb),
    )
    if code.side is not None:
        (kind,) = made.SegmentedPropertyTypeCodeSequence
        kind.SegmentedPropertyTypeModifierCodeSequence = [coded(code.side)]
    return made
