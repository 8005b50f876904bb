"""Cases that cannot be converted: each is named with a stable code, and the others go on."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path

from fcnseg.errors import FcnsegError, GeometryError, InputError, LabelError, one_line
from fcnseg.storage import files
from fcnseg.volumes.formats.dicom.files import begins_dicom
from fcnseg.volumes.formats.reading import HEADERS_ALONE

CODES = {
    "file_missing": "there is no such file",
    "unreadable": "the file is not a whole volume of its format",
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
    "scaled_image": "values span less than the noise of a CT: scaled to 0..1 or alike",
    "windowed_image": "values are those of an 8-bit picture",
    "missing_rescale": "nothing is as low as air and fat: the rescale intercept was left out",
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
    "duplicate_case": "the list has several cases of this id",
    "patient_in_two_splits": "the list has cases of this patient in several splits",
    "unexpected_error": "something else failed; `detail` says where",
}
"""What each code in the rejects file means."""

WARNINGS = {
    "padding": "what lies outside the field of view was far below air, and is air now",
    "thick_slices": "slices are far apart",
    "oblique": "the grid is turned in the patient; it is not turned back",
    "not_axial": "slices are sagittal or coronal",
    "label_moved": "the label lies elsewhere, and was taken to lie where the image lies",
    "label_resampled": "the label lies on another grid, and was brought to the image's",
    "masks_overlap": "masks overlap; the later class of the label map took the voxels",
    "dicom_series_chosen": "the folder holds several CT series, of which the largest was taken",
    "dicom_localizers_left_out": "the DICOM series holds localizers, which were left out",
    "dicom_other_frame_of_reference": "the DICOM label tells other coordinates than its image does",
    "dicom_files_left_out": "the DICOM folder holds other files, which were left out",
}
"""What each code in the warnings means; the case is converted all the same."""

ACCEPTABLE = (
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
"""Codes of what is implausible, not impossible: a user may accept it."""

COMMANDS = ("convert", "predict", "client", "evaluate")
"""The commands that read scans: `pipelines.convert_ct`, `fcnseg predict`, `serving.client`, and
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


def commands_of(code: str) -> tuple[str, ...]:
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


def how_to_accept(code: str) -> str:
    """What to do to let cases of an acceptable code pass, for `Reject.detail`."""
    return f"--accept {code} lets such cases pass"


_OF_READING: dict[type[FcnsegError], str] = {
    GeometryError: "bad_geometry",
    LabelError: "label_not_integral",
}
_HEAD = 2**20  # bytes of a remote file that hold its header, packed or not, but for DICOM


class CaseError(InputError):
    """A case breaks a rule.

    Attributes:
        code: One of `CODES`.
        file: Path of the file to blame.
        detail: More for whoever looks into it.
    """

    def __init__(self, code: str, reason: str, *, file: str, detail: str = "") -> None:
        super().__init__(reason, code=code)
        self.file = file
        self.detail = detail

    def about(self, copy: str, path: str) -> CaseError:
        """The same error about a file of which a copy was read."""
        texts = (text.replace(copy, path) for text in (str(self), self.file, self.detail))
        reason, file, detail = texts
        return CaseError(self.code or "unreadable", reason, file=file, detail=detail)


@dataclasses.dataclass(frozen=True, order=True)
class Reject:
    """One line of the rejects file.

    Attributes:
        case_id: Name of the case.
        stage: `list` (of cases), `inspect` (headers) or `convert` (voxels); or `evaluate`.
        code: One of `CODES`, for programs.
        reason: One line for people.
        file: The file to blame; empty if it is not known.
        detail: More for whoever looks into it; may be empty.
    """

    case_id: str
    stage: str
    code: str
    reason: str
    file: str
    detail: str

    @classmethod
    def of(cls, error: Exception, *, case_id: str, stage: str) -> Reject:
        """The reject that an exception means for its case."""
        if isinstance(error, CaseError):
            code = error.code or "unexpected_error"
            return cls(case_id, stage, code, str(error), error.file, error.detail)
        last = traceback.extract_tb(error.__traceback__)[-1]
        detail = f"{Path(last.filename).name}:{last.lineno} in {last.name}"
        reason = f"{type(error).__name__}: {one_line(error)}"
        return cls(case_id, stage, "unexpected_error", reason, "", detail)

    def __str__(self) -> str:
        return f"{self.reason} [{self.code}] (case {self.case_id})"

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(dataclasses.asdict(self), ensure_ascii=False)

    @classmethod
    def from_json(cls, line: str) -> Reject:
        """Reads what `to_json` wrote."""
        return cls(**json.loads(line))


def explain(error: Exception) -> str:
    """One line that says why a command does not do a case: the reason, its code, and the detail.

    Args:
        error: What the case ended with.
    """
    if isinstance(error, FcnsegError | OSError) and not isinstance(error, CaseError):
        code = getattr(error, "code", None)
        return f"{one_line(error)} [{code}]" if code else one_line(error)
    reject = Reject.of(error, case_id="", stage="")
    detail = f"; {reject.detail}" if reject.detail else ""
    return f"{reject.reason} [{reject.code}]{detail}"


@dataclasses.dataclass(frozen=True, order=True)
class CaseWarning:
    """Something odd about a case that is converted all the same.

    Attributes:
        case_id: Name of the case.
        code: One word for programs: one of `WARNINGS`, or of `CODES` where the user accepts it.
        reason: One line for people.
        file: The file to look at.
    """

    case_id: str
    code: str
    reason: str
    file: str

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(dataclasses.asdict(self), ensure_ascii=False)

    @classmethod
    def from_json(cls, line: str) -> CaseWarning:
        """Reads what `to_json` wrote."""
        return cls(**json.loads(line))


@contextlib.contextmanager
def opened(path: str, *, header_only: bool = False, beside: Sequence[str] = ()) -> Iterator[Path]:
    """A local path to read a case's volume from.

    Args:
        path: The volume, a file or a folder, on any file system.
        header_only: Headers are all that is wanted, so no more of remote files is copied; of DICOM
            all is, as it may tell of each frame in megabytes.
        beside: Paths of files in the same folder that are wanted too, where they are there.

    Yields:
        A local path.

    Raises:
        CaseError: If there is no such file, or reading it inside this context fails.
    """
    local = Path(path)
    try:
        if files.is_local(path) and not local.exists():
            raise CaseError("file_missing", f"no such file: {path}", file=path)
        head = _HEAD if header_only else None
        copied = files.local_copy(
            path, beside=[*_data_of(path), *beside], head=head, copied_whole=begins_dicom
        )
        with copied as local:
            yield local
    except CaseError as error:
        if files.is_local(path):
            raise
        raise error.about(str(local), path) from error
    except FcnsegError as error:
        code = getattr(error, "code", None) or _OF_READING.get(type(error), "unreadable")
        raise CaseError(code, str(error).replace(str(local), path), file=path) from error


def _data_of(path: str) -> list[str]:
    """The files of a store that have a header's voxels: those of its name but for the suffix."""
    stem, suffix = os.path.splitext(path)
    if files.is_local(path) or suffix.lower() not in HEADERS_ALONE:
        return []
    found = files.list_folder(files.parent(path))
    return [other for other in found if other.startswith(f"{stem}.")]
