"""Segments CT volumes with a trained network: `fcnseg predict --help`."""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import track

from fcnseg.cli.command import Location
from fcnseg.cli.image_source import ImageSource
from fcnseg.cli.quiet import load_tensorflow
from fcnseg.cli.unseen import warn_of_seen_cases
from fcnseg.conversion.case_lists.volumes import is_dicom_image
from fcnseg.conversion.cases import CaseList
from fcnseg.conversion.check_options import CheckOptions
from fcnseg.conversion.gate import Gate
from fcnseg.conversion.rejects import explain
from fcnseg.errors import InputError, format_names
from fcnseg.evaluation.class_names import SNAP_FILE
from fcnseg.inference.case_files import CaseOutputs, list_masked_cases
from fcnseg.inference.label_tables import (
    SLICER_FILE,
    itk_snap_label_descriptions,
    slicer_colours,
)
from fcnseg.inference.organ_volumes import gather_organ_volumes
from fcnseg.inference.postprocessing import NOTHING, Postprocessing
from fcnseg.records.dataset_info import Split
from fcnseg.runs import Run
from fcnseg.runs.run_folder import check_same, find_differences
from fcnseg.storage import files
from fcnseg.storage.whole_file import check_output_folder, write_whole
from fcnseg.volumes import Axis

if TYPE_CHECKING:
    from fcnseg.inference.case_prediction import CasePredictor

logger = logging.getLogger(__name__)

VOLUMES_FILE = "volumes.csv"

_MOST_DILATION = 512  # in voxels: as wide as any CT, and far slower than predicting everywhere


@dataclasses.dataclass(frozen=True)
class PredictCommand:
    """Segments CT volumes with the best networks of finished training runs."""

    run_dir: tuple[Path, ...]
    """Folder of a finished training run, always on this machine; the probabilities of several runs
    are averaged."""
    _: dataclasses.KW_ONLY
    images: Location | None = None
    """A volume of any format (docs/formats.md), a folder of DICOM slices, or a folder of either;
    it may be in an object store, such as s3://bucket/images."""
    data: Location | None = None
    """Folder of records, instead of --images: the cases of --split, or of a fold, from the files
    that they were converted from."""
    split: Split | None = None
    """Cases of --data to predict; with a fold, by default validation, which are those that a run of
    the fold has not trained on."""
    fold: int | None = None
    """Number of a fold of --data, from 0, as in training."""
    folds: int | None = None
    """Number of folds."""
    cases: Location | None = None
    """CSV file as in the conversion, instead of --images; its labels are not needed."""
    dataset: Location | None = None
    """dataset.json of the Medical Segmentation Decathlon or of nnU-Net, instead of --images: all
    images that it lists, for training too."""
    totalsegmentator: Location | None = None
    """Folder of TotalSegmentator's dataset, instead of --images: SUBJECT/ct.nii.gz."""
    output: Location
    """Folder for the masks: CASE.nii.gz, on exactly the grid of its image, and organ volumes; it
    may be in an object store."""
    overwrite: bool = False
    """Replace masks that exist already."""
    resume: bool = False
    """Skip cases that are complete, and predict the others; needs the same runs and flags as
    before."""
    probabilities: bool = False
    """Write the probability of each class too, to probabilities/CASE/."""
    dicom_seg: bool = False
    """Write each mask as a DICOM Segmentation too, CASE.seg.dcm; all images must be DICOM."""
    rtstruct: bool = False
    """Write each mask as an RT Structure Set too, CASE.rtstruct.dcm; all images must be DICOM."""
    flips: tuple[Axis, ...] = ()
    """Axes whose flips are averaged too; each doubles the time."""
    coarse_run_dir: Path | None = None
    """Coarse run: the other runs predict only where its foreground, of any organ, lies; else
    everywhere."""
    dilation_voxels: int = 3
    """Dilation of that foreground, in voxels of the coarse run."""
    postprocessing: Postprocessing = NOTHING
    accept: tuple[str, ...] = ()
    """Codes of implausible findings to accept as warnings."""

    def run(self) -> None:
        """Segments each volume; one that fails does not stop the others."""
        if self.overwrite and self.resume:
            raise InputError("overwrite and resume exclude each other: give one of them")
        if not 0 <= self.dilation_voxels <= _MOST_DILATION:
            raise InputError(
                f"dilation_voxels must be 0 to {_MOST_DILATION}, got {self.dilation_voxels}"
            )
        if len(set(self.flips)) < len(self.flips):
            raise InputError(f"flips must name each axis once, got {' '.join(self.flips)}")
        gate = Gate(CheckOptions(accept=self.accept))
        source = self._source()
        dataset = source.open_dataset()
        listed = source.list_cases(dataset)
        cases = self._outputs(listed)
        self._check_dicom(cases)
        runs = [Run.open(folder) for folder in self.run_dir]
        coarse = None if self.coarse_run_dir is None else Run.open(self.coarse_run_dir)
        made_with = self._made_with(runs, coarse)
        others = self._others(cases, made_with)
        todo = self._todo(cases, made_with)
        if dataset is not None:
            warn_of_seen_cases(runs, dataset, cases)
        predictor = self._make_predictor(runs, coarse, made_with, gate)
        check_output_folder(self.output, argument="output")
        progress = track(todo.items(), description="volumes", console=Console(stderr=True))
        reasons = {case_id: _reason_of_failure(predictor, case) for case_id, case in progress}
        self._write_tables(cases | others, predictor.segmenter.info.class_names)
        failures = [
            f"{reject.case_id}: {reject.reason} [{reject.code}]" for reject in listed.rejects
        ]
        failures += [f"{case_id}: {reason}" for case_id, reason in reasons.items() if reason]
        for failure in failures:
            logger.error("failed: %s", failure)
        if failures:
            count = len(todo) + len(listed.rejects)
            raise InputError(f"{len(failures)} of {count} volumes failed: {failures[0]}")

    def _source(self) -> ImageSource:
        """The place of the images."""
        names = [field.name for field in dataclasses.fields(ImageSource)]
        return ImageSource(**{name: getattr(self, name) for name in names})

    def _outputs(self, listed: CaseList) -> dict[str, CaseOutputs]:
        """The files that are written for each case."""
        for case in listed.cases:
            if not _is_file_name(case.case_id):
                raise InputError(
                    f"case_id must be a file name, by which masks are named, got {case.case_id!r}"
                )
        return {
            case.case_id: CaseOutputs(
                case.case_id,
                case.image,
                os.fspath(self.output),
                series_uid=case.series_uid,
                with_probabilities=self.probabilities,
                with_dicom_seg=self.dicom_seg,
                with_rtstruct=self.rtstruct,
            )
            for case in listed.cases
        }

    def _check_dicom(self, cases: Mapping[str, CaseOutputs]) -> None:
        """Checks that files that refer to DICOM images have images of DICOM, and their writers."""
        flags = {"dicom_seg": self.dicom_seg, "rtstruct": self.rtstruct}
        flag = next((name for name, is_given in flags.items() if is_given), None)
        if flag is None:
            return
        for case in cases.values():
            if not is_dicom_image(case.image):
                raise InputError(
                    f"{flag} must be given for images of DICOM alone, got {case.image}"
                    f" (case {case.case_id})"
                )
            case.dicom.check_packages()

    def _made_with(self, runs: Sequence[Run], coarse: Run | None) -> dict[str, Any]:
        """Provenance of the masks, as CASE.json contains it; images have their own entry."""
        made_with: dict[str, Any] = {
            "networks_sha256": [run.network_digest() for run in runs],
            "flips": sorted(self.flips),
            "postprocessing": dataclasses.asdict(self.postprocessing),
        }
        for name in ("probabilities", "dicom_seg", "rtstruct"):
            if getattr(self, name):
                made_with[name] = True
        if coarse is not None:
            digest = coarse.network_digest()
            made_with |= {"coarse_sha256": digest, "dilation_voxels": self.dilation_voxels}
        return made_with

    def _make_predictor(
        self, runs: Sequence[Run], coarse: Run | None, made_with: Mapping[str, Any], gate: Gate
    ) -> CasePredictor:
        load_tensorflow()
        # --help and mistakes in flags need not wait for these.
        from fcnseg.inference import Coarse, load_run, load_runs, make_segmenter
        from fcnseg.inference.case_prediction import CasePredictor

        segmenter = make_segmenter(*load_runs(runs), flips=self.flips)
        region = None
        if coarse is not None:
            region = Coarse(make_segmenter(*load_run(coarse)), self.dilation_voxels)
        return CasePredictor(segmenter, region, self.postprocessing, made_with, gate)

    def _todo(
        self, cases: Mapping[str, CaseOutputs], made_with: dict[str, Any]
    ) -> dict[str, CaseOutputs]:
        """The cases to segment."""
        for case in cases.values():
            if files.exists(case.mask) and not files.exists(case.volumes):
                raise InputError(
                    f"{case.mask} is no mask of fcnseg predict, as {files.name_of(case.volumes)} is"
                    " not beside it: it is never replaced; name another output"
                )
        written = [path for case in cases.values() for path in case.masks]
        written.append(self._place(VOLUMES_FILE))
        present = [path for path in written if files.exists(path)]
        if present and not (self.overwrite or self.resume):
            raise InputError(
                f"{present[0]} is there already: give --overwrite to replace masks, or --resume to"
                " leave out cases that are whole"
            )
        todo = {
            case_id: case
            for case_id, case in cases.items()
            if not (self.resume and case.is_whole())
        }
        done = [case for case_id, case in cases.items() if case_id not in todo]
        for case in done:
            now = {**made_with, **case.image_facts()}
            check_same(case.made_with(), now, what=case.mask)
        if done:
            logger.info("left out: %d cases that are whole", len(done))
        return todo

    def _others(
        self, cases: Mapping[str, CaseOutputs], made_with: dict[str, Any]
    ) -> dict[str, CaseOutputs]:
        """The complete cases in the output folder that are not asked for now.

        Raises:
            InputError: If one was made by other networks or flags: a folder is of one kind of mask.
        """
        others = {
            case_id: CaseOutputs(case_id, "", os.fspath(self.output))
            for case_id in list_masked_cases(self.output)
            if case_id not in cases
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

    def _place(self, name: str) -> str:
        return files.join(self.output, name)

    def _write_tables(self, cases: Mapping[str, CaseOutputs], class_names: tuple[str, ...]) -> None:
        whole = [case.volumes for _, case in sorted(cases.items()) if case.is_whole()]
        if not whole:
            return
        gather_organ_volumes(self._place(VOLUMES_FILE), whole, class_names)
        write_whole(self._place(SNAP_FILE), itk_snap_label_descriptions(class_names))
        write_whole(self._place(SLICER_FILE), slicer_colours(class_names))


def _is_file_name(case_id: str) -> bool:
    """Tells whether a case id leads to no other folder, on any system."""
    return not case_id.startswith(".") and not {"/", "\\", "\0"}.intersection(case_id)


def _reason_of_failure(predictor: CasePredictor, case: CaseOutputs) -> str | None:
    """Predicts one case; returns the reason of its failure, or None."""
    try:
        predictor.predict(case)
    except Exception as error:  # whatever one case raises, the others continue
        return explain(error)
    return None
