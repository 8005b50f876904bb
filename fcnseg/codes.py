"""Stable codes, for programs, of all that can be wrong or odd with a case; each is listed here.

The types make a misspelt code a type error.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Literal

RejectCode = Literal[
    "file_missing",
    "unreadable",
    "unknown_format",
    "missing_extra",
    "not_scalar",
    "bad_geometry",
    "bad_affine",
    "qform_sform_disagree",
    "orientation_unknown",
    "spacing_unknown",
    "not_finite",
    "too_large",
    "spacing_implausible",
    "field_of_view_implausible",
    "sheared_grid",
    "constant_image",
    "scaled_image",
    "windowed_image",
    "missing_rescale",
    "no_tissue",
    "shape_mismatch",
    "grid_mismatch",
    "dicom_no_series",
    "dicom_not_ct",
    "dicom_localizer",
    "dicom_mixed_sizes",
    "dicom_mixed_orientations",
    "dicom_duplicate_slice",
    "dicom_missing_slice",
    "dicom_uneven_slices",
    "dicom_bad_rescale",
    "dicom_mixed_scans",
    "dicom_gantry_tilt",
    "dicom_not_seg",
    "segments_overlap",
    "label_not_integral",
    "label_negative",
    "label_ids_unknown",
    "label_empty",
    "masks_missing",
    "mask_ambiguous",
    "mask_not_binary",
    "class_names_differ",
    "duplicate_case",
    "patient_in_two_splits",
    "unexpected_error",
]
"""A rule that a case breaks."""

WarningCode = Literal[
    "padding",
    "thick_slices",
    "oblique",
    "not_axial",
    "label_moved",
    "label_resampled",
    "masks_overlap",
    "dicom_series_chosen",
    "dicom_localizers_left_out",
    "dicom_other_frame_of_reference",
    "dicom_files_left_out",
]
"""A fact about a case that is converted all the same."""

if TYPE_CHECKING:
    Code = RejectCode | WarningCode
else:  # a manifest may hold codes of a later version
    Code = str

CODES: dict[RejectCode, str] = {
    "file_missing": "there is no such file",
    "unreadable": "the file is incomplete, corrupt, or not of its format",
    "unknown_format": "the name of the file is of no format that is read",
    "missing_extra": "the format needs a package that is not installed; `reason` says which extra",
    "not_scalar": "the voxels are colours or vectors",
    "bad_geometry": "the file holds not one three-dimensional volume",
    "bad_affine": "the affine is singular, or holds NaN or infinity",
    "qform_sform_disagree": "a NIfTI header gives the volume two places or sizes",
    "orientation_unknown": "the header does not say how the axes lie in the patient",
    "spacing_unknown": "the header does not say the size of a voxel",
    "not_finite": "a voxel is NaN or infinite",
    "too_large": "the volume has more voxels than max_case_voxels allows",
    "spacing_implausible": "voxels are smaller or larger than those of any CT",
    "field_of_view_implausible": "the volume is smaller or larger than any CT",
    "sheared_grid": "the axes of the volume do not stand at right angles",
    "constant_image": "all voxels are the same",
    "scaled_image": "values span less than the noise of a CT: scaled to 0..1, or a label",
    "windowed_image": "values are those of an 8-bit picture, or of a label",
    "missing_rescale": "values are too high for HU: the rescale intercept was left out, or alike",
    "no_tissue": "nothing is as high as tissue",
    "shape_mismatch": "image and label differ in shape",
    "grid_mismatch": "image and label differ in spacing, origin or direction",
    "dicom_no_series": "the folder holds no DICOM, or not the series that was asked for",
    "dicom_not_ct": "the DICOM images are of another modality than CT",
    "dicom_localizer": "the DICOM series is of localizers alone",
    "dicom_mixed_sizes": "the slices differ in rows, columns or pixel spacing",
    "dicom_mixed_orientations": "the slices lie in different directions",
    "dicom_duplicate_slice": "two slices have one position",
    "dicom_missing_slice": "a slice is missing between two others",
    "dicom_uneven_slices": "the slices are unevenly spaced",
    "dicom_bad_rescale": "slices lack the rescale values that others have, or have impossible ones",
    "dicom_mixed_scans": "slices of several scans, patients or frames of reference are mixed",
    "dicom_gantry_tilt": "the slices are shifted against each other, as by a tilted gantry",
    "dicom_not_seg": "the DICOM label is not one segmentation object",
    "segments_overlap": "the label keeps overlapping segments, which make no label map",
    "label_not_integral": "the label holds fractions",
    "label_negative": "the label holds negative ids",
    "label_ids_unknown": "the label holds ids that the label map does not list",
    "label_empty": "the label shows no organ of the label map",
    "masks_missing": "a folder of masks lacks one that the label map names",
    "mask_ambiguous": "a folder of masks has two files of one name",
    "mask_not_binary": "a mask holds several values other than 0",
    "class_names_differ": "a mask names other classes than the label map",
    "duplicate_case": "the list has several cases of this id, or patients of this image",
    "patient_in_two_splits": "the list has cases of this patient in several splits",
    "unexpected_error": "something else failed; `detail` says where",
}
"""The meaning of each code in the rejects file."""

WARNINGS: dict[WarningCode, str] = {
    "padding": "what lies outside the field of view was far below air, and is air now",
    "thick_slices": "slices are far apart",
    "oblique": "the grid is turned in the patient; it is not turned back",
    "not_axial": "slices are sagittal or coronal",
    "label_moved": "the label lies elsewhere, and was taken to lie where the image lies",
    "label_resampled": "the label lies on another grid, and was brought to the image's",
    "masks_overlap": "masks overlap; the later class of the label map took the voxels",
    "dicom_series_chosen": "the folder holds several CT series, of which the largest was taken",
    "dicom_localizers_left_out": "the DICOM series holds localizers, which were left out",
    "dicom_other_frame_of_reference": "the DICOM label has other coordinates than its image",
    "dicom_files_left_out": "the DICOM folder holds other files, which were left out",
}
"""The meaning of each code in the warnings; the case is converted all the same."""

MEANINGS: dict[Code, str] = {**CODES, **WARNINGS}  # type: ignore[dict-item]  # keys are invariant
"""The meaning of each code."""

ACCEPTABLE: tuple[RejectCode, ...] = (
    "orientation_unknown",
    "spacing_unknown",
    "spacing_implausible",
    "field_of_view_implausible",
    "sheared_grid",
    "constant_image",
    "scaled_image",
    "windowed_image",
    "missing_rescale",
    "no_tissue",
    "dicom_mixed_scans",
    "label_empty",
)
"""Codes of findings that are implausible but not impossible: a user may accept them."""

COMMANDS = ("convert", "predict", "client", "evaluate")
"""The commands that read scans: `fcnseg convert`, `fcnseg predict`, `fcnseg segment`, and
`fcnseg evaluate`, which reads images where `--images` is given."""

_OF_LISTS = {"patient_in_two_splits"}
_OF_LABELS = {
    "duplicate_case",
    "shape_mismatch",
    "grid_mismatch",
    "dicom_not_seg",
    "segments_overlap",
    "label_not_integral",
    "label_negative",
    "label_ids_unknown",
    "label_empty",
    "masks_missing",
    "mask_ambiguous",
    "mask_not_binary",
    "label_moved",
    "label_resampled",
    "masks_overlap",
    "dicom_other_frame_of_reference",
}
_OF_MASKS = {"class_names_differ"}


def commands_of(code: Code) -> tuple[str, ...]:
    """The commands of `COMMANDS` that give a code of `CODES` or `WARNINGS`.

    >>> commands_of("label_empty")
    ('convert', 'evaluate')
    """
    if code in _OF_LISTS:
        return ("convert",)
    if code in _OF_MASKS:
        return ("evaluate",)
    if code in _OF_LABELS:
        return ("convert", "evaluate")
    return COMMANDS


def how_to_accept(code: RejectCode) -> str:
    """Advice for `Reject.detail`: how to accept cases with an acceptable code."""
    return f"--accept {code} lets such cases pass"


@dataclasses.dataclass(frozen=True, order=True)
class Finding:
    """A fact about a volume or a case that is unusual but usable.

    Attributes:
        code: Stable code for programs.
        reason: One line for people.
    """

    code: Code
    reason: str
