"""A folder of masks: the cases that it lacks, and the tables of all that it has."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from fcnseg.conversion.case_lists.volumes import is_dicom_image
from fcnseg.conversion.rejects import Reject
from fcnseg.errors import InputError, format_names
from fcnseg.evaluation.class_names import SNAP_FILE
from fcnseg.masks.case_outputs import CaseOutputs
from fcnseg.masks.label_tables import (
    SLICER_FILE,
    itk_snap_label_descriptions,
    slicer_colours,
)
from fcnseg.masks.organ_volumes import gather_organ_volumes
from fcnseg.runs.run_folder import check_same, find_differences
from fcnseg.storage import files
from fcnseg.storage.whole_file import write_whole

logger = logging.getLogger(__name__)

VOLUMES_FILE = "volumes.csv"


@dataclasses.dataclass(frozen=True)
class MaskFolder:
    """The masks of some cases in one folder, on any file system.

    Attributes:
        output: The folder.
        cases: By case id.
        overwrite: True to replace masks that exist already.
        resume: True to leave out cases that are complete.
    """

    output: str
    cases: Mapping[str, CaseOutputs]
    overwrite: bool = False
    resume: bool = False

    def __post_init__(self) -> None:
        if self.overwrite and self.resume:
            raise InputError("overwrite and resume exclude each other: give one of them")

    def check_dicom(self) -> None:
        """Checks that files that refer to DICOM images have images of DICOM, and their writers.

        Raises:
            InputError: If an image is of another format.
            MissingExtraError: If a package that writes the files is not installed.
        """
        for case in self.cases.values():
            if case.dicom.paths and not is_dicom_image(case.image):
                flag = "dicom_seg" if case.with_dicom_seg else "rtstruct"
                raise InputError(
                    f"{flag} must be given for images of DICOM alone, got {case.image}"
                    f" (case {case.case_id})"
                )
            case.dicom.check_packages()

    def check_free(self) -> None:
        """Checks that there are no masks yet, unless they may be replaced or kept.

        Raises:
            InputError: If there are.
        """
        written = [path for case in self.cases.values() for path in case.masks]
        written.append(self._place(VOLUMES_FILE))
        present = [path for path in written if files.exists(path)]
        if present and not (self.overwrite or self.resume):
            raise InputError(
                f"{present[0]} is there already: give --overwrite to replace masks, or --resume to"
                " leave out cases that are whole"
            )

    def check_others(self, made_with: Mapping[str, Any]) -> None:
        """Checks that complete cases in the folder that are not asked for now are of the same job.

        Args:
            made_with: Provenance of the masks.

        Raises:
            InputError: If one was made with something else: a folder is of one kind of mask.
        """
        for case in self._complete().values():
            differences = find_differences(case.made_by(), dict(made_with))
            if case.case_id not in self.cases and differences:
                raise InputError(
                    f"output holds masks of another job: {case.mask}: {format_names(differences)}:"
                    " name another folder, or delete them"
                )

    def todo(self, made_with: Mapping[str, Any]) -> dict[str, CaseOutputs]:
        """Selects the cases to segment.

        Args:
            made_with: Provenance of the masks; that of complete cases must be the same.

        Raises:
            InputError: If complete cases were made with something else.
        """
        todo = {
            case_id: case
            for case_id, case in self.cases.items()
            if not (self.resume and case.is_whole())
        }
        done = [case for case_id, case in self.cases.items() if case_id not in todo]
        for case in done:
            check_same(case.made_with(), {**made_with, **case.image_facts()}, what=case.mask)
        if done:
            logger.info("left out: %d cases that are whole", len(done))
        return todo

    def write_tables(self, class_names: tuple[str, ...]) -> None:
        """Writes the organ volumes of all complete cases, and the colour tables of viewers."""
        complete = [case.volumes for _, case in sorted(self._complete().items())]
        if not complete:
            return
        gather_organ_volumes(self._place(VOLUMES_FILE), complete, class_names)
        write_whole(self._place(SNAP_FILE), itk_snap_label_descriptions(class_names))
        write_whole(self._place(SLICER_FILE), slicer_colours(class_names))

    def _complete(self) -> dict[str, CaseOutputs]:
        """The complete cases in the folder, asked for now or not, by case id."""
        others = {
            case_id: CaseOutputs(case_id, "", self.output) for case_id in _masked_cases(self.output)
        }
        cases = {**others, **self.cases}
        return {case_id: case for case_id, case in cases.items() if case.is_whole()}

    def _place(self, name: str) -> str:
        return files.join(self.output, name)


def report_failures(reasons: Mapping[str, str | None], *, rejects: Sequence[Reject] = ()) -> None:
    """Logs the cases that failed.

    Args:
        reasons: The reason of each case's failure, None of those that did not fail, by case id.
        rejects: Cases that could not even be begun.

    Raises:
        InputError: If a case failed; the message names the first.
    """
    failures = [f"{reject.case_id}: {reject.reason} [{reject.code}]" for reject in rejects]
    failures += [f"{case_id}: {reason}" for case_id, reason in reasons.items() if reason]
    for failure in failures:
        logger.error("failed: %s", failure)
    if failures:
        count = len(reasons) + len(rejects)
        raise InputError(f"{len(failures)} of {count} volumes failed: {failures[0]}")


def _masked_cases(folder: str) -> list[str]:
    """Lists the ids of the cases with a mask and a file of volumes in a folder, if it exists."""
    if not files.is_folder(folder):
        return []
    names = files.children(folder)
    stems = [name.removesuffix(".json") for name in names if name.endswith(".json")]
    return sorted(stem for stem in stems if f"{stem}.nii.gz" in names)
