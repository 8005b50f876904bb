"""DICOM segmentation objects as labels, read by highdicom."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt

from fcnseg.codes import Finding
from fcnseg.errors import GeometryError, InputError, LabelError, format_names, one_line
from fcnseg.extras import require_extra
from fcnseg.volumes.formats.dicom import frame_decoding
from fcnseg.volumes.formats.dicom.files import find_files
from fcnseg.volumes.formats.dicom.headers import Header, check_length, quiet, read_headers
from fcnseg.volumes.formats.dicom.stack import STEP_TOLERANCE_MM
from fcnseg.volumes.geometry import Affine, Geometry, check_affine, make_affine
from fcnseg.volumes.orientation import turn_geometry_like, turn_like
from fcnseg.volumes.volume import Volume
from fcnseg.volumes.zyx import Shape, Zyx

# The classes Segmentation Storage and Label Map Segmentation Storage.
_CLASSES = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")
_PART_TOLERANCE_MM = 0.1  # positions are rounded; half a pixel is more


def segmentations(headers: Iterable[Header]) -> list[Header]:
    """Selects the headers of segmentation objects."""
    return [header for header in headers if header.kind in _CLASSES]


def read_geometry(path: str, *, like: Geometry | None = None) -> Geometry:
    """Reads the grid that encloses all frames, or that of the image of which it is a part."""
    segmentation = _open(path)
    with quiet():
        try:
            found = segmentation.get_volume_geometry(atol=STEP_TOLERANCE_MM)
            shape = Zyx(map(int, found.spatial_shape if found else (0, 0, 0)))
        except Exception as error:  # highdicom raises many types of errors
            raise _refusal(error, path) from error
    if found is None:
        raise GeometryError(f"frames must be evenly spaced in {path}", code="dicom_uneven_slices")
    affine, _ = _affine(found, path)
    return _completed(Geometry(shape, affine), like)[0]


def read_label(path: str, *, like: Geometry | None = None) -> Volume:
    """Reads ids (z, y, x): the segment numbers, and 0 outside of all segments."""
    segmentation = _open(path)
    with quiet():
        try:
            found = segmentation.get_volume(combine_segments=True, atol=STEP_TOLERANCE_MM)
        except Exception as error:  # highdicom raises many types of errors
            raise _refusal(error, path) from error
    affine, upwards = _affine(found, path)
    ids = found.array if upwards else found.array[::-1]
    part = Volume(ids, affine, findings=_find_other_frame(segmentation, like, path))
    geometry, start = _completed(part.geometry, like)
    if like is None or start is None:
        return part
    placed = _placed(turn_like(part, like).array, geometry.shape, start)
    return Volume(placed, geometry.affine, findings=part.findings)


def _find_other_frame(segmentation: Any, like: Geometry | None, path: str) -> tuple[Finding, ...]:
    """Finds whether a segmentation has another frame of reference than the image."""
    own = str(segmentation.get("FrameOfReferenceUID") or "")
    image = "" if like is None else like.frame_of_reference
    if not own or not image or own == image:
        return ()
    reason = f"FrameOfReferenceUID is {image} in the image and {own} in {path}"
    return (Finding("dicom_other_frame_of_reference", reason),)


def _open(path: str) -> Any:
    """Opens the one segmentation object in a file or folder.

    It is read completely: for broken ones highdicom's lazy reader writes a traceback by itself.
    """
    headers = read_headers(find_files(path))
    found = segmentations(headers)
    if len(found) != 1:
        kinds = sorted({header.modality for header in headers})
        raise InputError(
            f"a DICOM label must be one segmentation object (SEG), got {len(found)} of them among"
            f" {', '.join(kinds)} in {path}",
            code="dicom_not_seg",
        )
    segread = require_extra("highdicom.seg").segread
    frame_decoding.register()
    with quiet():
        try:
            segmentation = segread(found[0].file)
            check_length(segmentation)
            _check_segments(segmentation)
        except Exception as error:  # highdicom raises many types of errors for broken objects
            raise InputError(
                f"incomplete or corrupt segmentation: {path}: {one_line(error)}"
            ) from error
    return segmentation


def _check_segments(segmentation: Any) -> None:
    """Checks that the segments of all frames are described: highdicom drops all others."""
    described = {int(segment.SegmentNumber) for segment in segmentation.SegmentSequence}
    for frame in segmentation.PerFrameFunctionalGroupsSequence:
        for item in frame.get("SegmentIdentificationSequence") or ():  # a labelmap has none
            if int(item.ReferencedSegmentNumber) not in described:
                raise ValueError(
                    f"a frame is of segment {item.ReferencedSegmentNumber}, but SegmentSequence"
                    f" describes {format_names(sorted(described))}"
                )


def _refusal(error: Exception, path: str) -> InputError:
    reason = one_line(error)
    if "overlap" in reason.lower():
        return LabelError(
            f"segments must not overlap, as a voxel has one class: {reason} in {path}",
            code="segments_overlap",
        )
    if "fractional" in reason.lower():
        return LabelError(f"labels must be integral, got fractions: {reason} in {path}")
    return InputError(f"incomplete or corrupt segmentation: {path}: {reason}")


def _affine(found: Any, path: str) -> tuple[Affine, bool]:
    """The affine of slices stacked along their normal, and True if the object stacks them so."""
    steps, origin = nib.affines.to_matvec(found.affine)
    slice_step, row_step, column_step = steps.T
    upwards = bool(np.cross(column_step, row_step) @ slice_step > 0)
    if not upwards:
        origin = origin + slice_step * (found.spatial_shape[0] - 1)
        slice_step = -slice_step
    steps = np.column_stack([column_step, row_step, slice_step])
    return check_affine(make_affine(origin, steps), what=path), upwards


def _completed(part: Geometry, whole: Geometry | None) -> tuple[Geometry, Shape | None]:
    """The complete grid as the part defines it, and the offset of the part, reoriented, in it.

    A grid that is not part of the complete one is unchanged and has no offset.
    """
    if whole is None:
        return part, None
    turned = turn_geometry_like(part, whole)
    _, offset = nib.affines.to_matvec(turned.index_to(whole))
    start = Zyx(int(index) for index in np.rint(offset[::-1]))
    placed = whole.starting_at(start, shape=turned.shape)
    if (
        min(start) < 0
        or (np.add(start, turned.shape) > whole.shape).any()
        or np.abs(placed.corners_mm() - turned.corners_mm()).max() > _PART_TOLERANCE_MM
    ):
        return part, None
    back = Zyx(-index for index in start)
    return turned.starting_at(back, shape=whole.shape), start


def _placed(part: npt.NDArray[Any], shape: Shape, start: Shape) -> npt.NDArray[Any]:
    if part.shape == shape:
        return part
    whole = np.zeros(shape, dtype=part.dtype)
    whole[
        tuple(slice(low, low + length) for low, length in zip(start, part.shape, strict=True))
    ] = part
    return whole
