"""Cases to evaluate: matching of their files, and the scores of one case."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from fcnseg.codes import Code, Finding
from fcnseg.conversion.case_lists.folders import volumes_in
from fcnseg.conversion.case_lists.volumes import list_volumes
from fcnseg.conversion.cases import Case
from fcnseg.conversion.check_options import CheckOptions
from fcnseg.conversion.gate import Gate
from fcnseg.conversion.labels import LabelReader, find_in_counts
from fcnseg.conversion.rejects import CaseError, CaseWarning, opened
from fcnseg.errors import GeometryError, InputError, format_names
from fcnseg.evaluation.class_names import label_map_of_mask, names_beside, read_class_names
from fcnseg.evaluation.scores import Classes, OrganScores, score_organs, without_ignored
from fcnseg.storage.files import is_local
from fcnseg.volumes import (
    Geometry,
    LabelMap,
    Volume,
    case_id_of,
    check_same_voxels,
    read_label,
    to_canonical,
    turn_like,
)

logger = logging.getLogger(__name__)

PathLike = str | os.PathLike[str]


@dataclasses.dataclass(frozen=True)
class CaseFiles:
    """The files of one case, on any file system.

    Attributes:
        case_id: Name of the case.
        mask: The predicted mask.
        label: The reference: a volume, or a folder of binary masks.
        image: The CT volume, if it is to be drawn.
        series_uid: The DICOM series of the image; by default that with the most slices.
        wrong: A missing or ambiguous file; such a case is refused when it is read.
    """

    case_id: str
    mask: PathLike
    label: PathLike
    image: PathLike | None = None
    series_uid: str | None = None
    wrong: Finding | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class CaseVolumes:
    """One case in memory: class indices of reference and mask, HU of the image, on one grid.

    Voxels that the label map ignores are background in reference and mask.

    Attributes:
        case_id: Name of the case.
        reference: Class indices of the reference.
        mask: Class indices of the prediction.
        image: HU.
        label_sha256: Digest of the classes of the reference, before voxels are ignored.
        warnings: Oddities of the files.
    """

    case_id: str
    reference: Volume
    mask: Volume
    image: Volume | None = None
    label_sha256: str = ""
    warnings: tuple[CaseWarning, ...] = ()

    def scores(
        self, tolerances_mm: Mapping[str, float], *, threads: int = 1
    ) -> dict[str, OrganScores]:
        """Computes the scores by organ.

        Args:
            tolerances_mm: The organs in the order of their class indices, the background left
                out, each with the tolerance of its surface Dice.
            threads: Number of surfaces computed concurrently.

        Raises:
            MissingExtraError: If surface-distance is not installed.
        """
        scores = score_organs(
            self.reference.array,
            self.mask.array,
            num_classes=len(tolerances_mm) + 1,
            spacing=self.reference.spacing,
            tolerances_mm=list(tolerances_mm.values()),
            threads=threads,
        )
        return dict(zip(tolerances_mm, scores, strict=True))


def pair_files(
    masks: PathLike, labels: PathLike, images: PathLike | None = None
) -> list[CaseFiles]:
    """Finds the label, and the image if a folder of images is given, of each mask by its name.

    Labels and images without a mask are skipped, and such labels are logged: a run may predict some
    cases of many. A label is a volume, a DICOM segmentation, or a folder of binary masks, as in the
    conversion.

    The folders may be on any file system.

    Raises:
        InputError: If a folder is missing or contains no volume, or a file is the mask and the
            label of a case.
    """
    by_mask = list_volumes(masks)
    by_label = volumes_in(os.fspath(labels))
    by_image = None if images is None else list_volumes(images)
    found = [
        _files_of(case_id, mask, by_label.get(case_id, []), by_image, (labels, images))
        for case_id, mask in by_mask.items()
    ]
    _check_two_files(found)
    unscored = sorted(by_label.keys() - by_mask.keys())
    if unscored:
        logger.warning(
            f"{len(unscored)} of {len(by_label)} labels have no mask and are not scored:"
            f" {format_names(unscored)}"
        )
    return found


def pair_masks(masks: PathLike, cases: Iterable[Case]) -> list[CaseFiles]:
    """Finds the masks of some cases by their ids; masks of other cases are skipped.

    Args:
        masks: Folder of the masks, on any file system.
        cases: The cases, with labels.

    Raises:
        InputError: If the folder is missing or contains no volume, or a file is the mask and the
            label of a case.
    """
    by_mask = list_volumes(masks)
    found = []
    for case in cases:
        mask = by_mask.get(case_id_of(f"{case.case_id}.nii.gz"))
        wrong = None
        if mask is None:
            wrong = Finding("file_missing", f"no mask in {masks} of case {case.case_id}")
        found.append(
            CaseFiles(
                case.case_id,
                mask or masks,
                case.label or "",
                case.image,
                series_uid=case.series_uid,
                wrong=wrong,
            )
        )
    _check_two_files(found)
    return found


def _check_two_files(cases: Iterable[CaseFiles]) -> None:
    """Checks that no label is scored against itself, which gives a Dice of 1."""
    for case in cases:
        if case.wrong is None and _is_same_file(case.mask, case.label):
            raise InputError(
                f"mask and label must be two files, got {case.mask} for both (case {case.case_id})"
            )


def _is_same_file(first: PathLike, second: PathLike) -> bool:
    if not (is_local(first) and is_local(second)):
        return first == second
    with contextlib.suppress(OSError):  # one is not there, which is said when it is read
        return Path(first).samefile(second)
    return False


def _files_of(
    case_id: str,
    mask: str,
    labels: Sequence[str],
    by_image: Mapping[str, str] | None,
    folders: tuple[PathLike, PathLike | None],
) -> CaseFiles:
    """The files of a case, or the reason why they cannot be matched."""
    image = None if by_image is None else by_image.get(case_id)
    wrong = None
    if not labels:
        wrong = Finding("file_missing", f"no label in {folders[0]} for mask {mask}")
    elif len(labels) > 1:
        wrong = Finding("duplicate_case", f"a mask must have one label, got {format_names(labels)}")
    elif by_image is not None and image is None:
        wrong = Finding("file_missing", f"no image in {folders[1]} for mask {mask}")
    label = labels[0] if labels else mask
    return CaseFiles(case_id, mask, label, image, wrong=wrong)


def read_case(
    files: CaseFiles, label_map: LabelMap, checks: CheckOptions | None = None
) -> CaseVolumes:
    """Reads one case.

    Args:
        files: The files of the case. The ids of the mask mean the classes that the mask names,
            inside it or in the files next to it; if it names none, they are class indices.
        label_map: Maps the label's ids to class indices.
        checks: Accepted implausible inputs, as in the conversion.

    Returns:
        Reference, mask and image on the grid of the mask file.

    Raises:
        CaseError: If a file is missing, unreadable or implausible, the mask names other classes,
            or they do not lie on one grid; `code` says which.
    """
    checks = checks or CheckOptions()
    if files.wrong is not None:
        raise CaseError(files.wrong.code, files.wrong.reason, file=str(files.mask))
    mask, warnings = _read_mask(files, label_map.class_names, checks)
    label, odd = _read_label(files, label_map, mask.geometry, checks)
    warnings += odd
    image = None
    if files.image is not None:
        image, odd = _read_image(files, mask.geometry, checks)
        warnings += odd
    reference, predicted = without_ignored(label, mask.array, label_map.ignore_label)
    return CaseVolumes(
        files.case_id,
        mask.with_array(reference),
        mask.with_array(predicted),
        image,
        label_sha256=_digest(mask.with_array(label)),
        warnings=tuple(warnings),
    )


def _read_mask(
    files: CaseFiles, class_names: Sequence[str], checks: CheckOptions
) -> tuple[Volume, list[CaseWarning]]:
    """Reads the mask as indices of these classes."""
    path = os.fspath(files.mask)
    with opened(path, beside=names_beside(path)) as copy:
        mask = read_label(copy)
        warnings = Gate(checks).judge(mask.findings, case_id=files.case_id, file=path)
        names = read_class_names(copy, mask.header)
        label_map = label_map_of_mask(path, names, class_names)
        return mask.with_array(label_map.apply(mask.array)), warnings


def _read_label(
    files: CaseFiles, label_map: LabelMap, grid: Geometry, checks: CheckOptions
) -> tuple[Classes, list[CaseWarning]]:
    label = os.fspath(files.label)
    reader = LabelReader(label_map, checks, reference="mask")
    classes, findings = reader.read(label, grid)
    counts = np.bincount(classes.ravel(), minlength=label_map.num_classes)
    findings += find_in_counts(counts[: label_map.num_classes])
    return classes, Gate(checks).judge(findings, case_id=files.case_id, file=label)


def _read_image(
    files: CaseFiles, grid: Geometry, checks: CheckOptions
) -> tuple[Volume, list[CaseWarning]]:
    gate, path = Gate(checks), os.fspath(files.image or "")
    case_id, series_uid = files.case_id, files.series_uid
    gate.inspect(path, case_id=case_id, series_uid=series_uid)
    image, warnings = gate.read(path, case_id=case_id, series_uid=series_uid)
    try:
        check_same_voxels(
            grid, image.geometry, tolerance_mm=checks.geometry_tolerance_mm, names=("mask", "image")
        )
    except GeometryError as error:
        code: Code = "grid_mismatch" if grid.shape == image.shape else "shape_mismatch"
        raise CaseError(code, str(error), file=path) from error
    return turn_like(image, grid), warnings


def _digest(label: Volume) -> str:
    """SHA-256 of the classes (z, y, x) in canonical orientation; the same for equal labels."""
    array = np.ascontiguousarray(to_canonical(label).array.astype("<u2"))
    return hashlib.sha256(f"{array.shape}".encode() + array.tobytes()).hexdigest()
