"""A folder of masks: the cases that it lacks, and the tables of all that it has."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from typing import Any

from fcnseg.conversion.case_lists.volumes import is_dicom_image
from fcnseg.conversion.cases import CaseList
from fcnseg.conversion.rejects import Reject
from fcnseg.errors import InputError, format_names
from fcnseg.evaluation.class_names import SNAP_FILE
from fcnseg.masks.case_outputs import CaseOutputs, list_masked_cases
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
        rejects: Entries of the list of cases that are no cases.
        overwrite: True to replace masks that exist already.
        resume: True to leave out cases that are complete.
    """

    output: str
    cases: Mapping[str, CaseOutputs]
    rejects: tuple[Reject, ...] = ()
    overwrite: bool = False
    resume: bool = False

    def __post_init__(self) -> None:
        if self.overwrite and self.resume:
            raise InputError("overwrite and resume exclude each other: give one of them")

    @classmethod
    def of(
        cls, listed: CaseList, output: str, *, overwrite: bool, resume: bool, **files: bool
    ) -> MaskFolder:
        """Makes the folder of listed cases.

        Args:
            listed: The cases, and entries that are none.
            output: The folder, on any file system.
            overwrite: True to replace masks that exist already.
            resume: True to leave out cases that are complete.
            files: Files to write beside masks: fields of `CaseOutputs` that begin with `with_`.

        Raises:
            InputError: If a case id is no file name, or both flags are set.
        """
        for case in listed.cases:
            if not _is_file_name(case.case_id):
                raise InputError(
                    f"case_id must be a file name, by which masks are named, got {case.case_id!r}"
                )
        cases = {
            case.case_id: CaseOutputs(
                case.case_id, case.image, output, series_uid=case.series_uid, **files
            )
            for case in listed.cases
        }
        return cls(output, cases, listed.rejects, overwrite, resume)

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
            InputError: If there are, or one is an image or a label, which is never replaced.
        """
        for case in self.cases.values():
            if files.exists(case.mask) and not files.exists(case.volumes):
                raise InputError(
                    f"{case.mask} is no mask of fcnseg, as {files.name_of(case.volumes)} is not"
                    " beside it: it is never replaced; name another output"
                )
        written = [path for case in self.cases.values() for path in case.masks]
        written.append(self._place(VOLUMES_FILE))
        present = [path for path in written if files.exists(path)]
        if present and not (self.overwrite or self.resume):
            raise InputError(
                f"{present[0]} is there already: give --overwrite to replace masks, or --resume to"
                " leave out cases that are complete"
            )

    def todo(self, made_with: dict[str, Any]) -> dict[str, CaseOutputs]:
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
            logger.info("left out: %d cases that are complete", len(done))
        return todo

    def others(self, made_with: dict[str, Any]) -> dict[str, CaseOutputs]:
        """Finds the complete cases in the folder that are not among these.

        Args:
            made_with: Provenance of the masks.

        Raises:
            InputError: If one was made with something else: a folder is of one kind of mask.
        """
        others = {
            case_id: CaseOutputs(case_id, "", self.output)
            for case_id in list_masked_cases(self.output)
            if case_id not in self.cases
        }
        others = {case_id: case for case_id, case in others.items() if case.is_whole()}
        for case in others.values():
            differences = find_differences(case.made_by(), made_with)
            if differences:
                raise InputError(
                    f"output holds masks of another job: {case.mask}: {format_names(differences)}:"
                    " name another folder, or delete them"
                )
        return others

    def write_tables(
        self, class_names: tuple[str, ...], *, others: Mapping[str, CaseOutputs]
    ) -> None:
        """Writes the organ volumes of all complete cases, and the colour tables of viewers.

        Args:
            class_names: By class id, background first.
            others: The cases of `others`.
        """
        cases = sorted({**self.cases, **others}.items())
        whole = [case.volumes for _, case in cases if case.is_whole()]
        if not whole:
            return
        gather_organ_volumes(self._place(VOLUMES_FILE), whole, class_names)
        write_whole(self._place(SNAP_FILE), itk_snap_label_descriptions(class_names))
        write_whole(self._place(SLICER_FILE), slicer_colours(class_names))
        logger.info("%d masks are in %s", len(whole), self.output)

    def report_failures(self, reasons: Mapping[str, str | None]) -> None:
        """Logs the cases that failed, and the entries that are no cases.

        Args:
            reasons: The reason of each case's failure, None of those that did not fail, by case id.

        Raises:
            InputError: If there are any; the message names the first.
        """
        failures = [f"{each.case_id}: {each.reason} [{each.code}]" for each in self.rejects]
        failures += [f"{case_id}: {reason}" for case_id, reason in reasons.items() if reason]
        for failure in failures:
            logger.error("failed: %s", failure)
        if failures:
            count = len(reasons) + len(self.rejects)
            raise InputError(f"{len(failures)} of {count} volumes failed: {failures[0]}")

    def _place(self, name: str) -> str:
        return files.join(self.output, name)


def _is_file_name(case_id: str) -> bool:
    """Tells whether a case id leads to no other folder, on any system."""
    return not case_id.startswith(".") and not {"/", "\\", "\0"}.intersection(case_id)
