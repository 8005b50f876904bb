"""Converts CT volumes and their labels to training records: options, graph, main."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
from collections.abc import Sequence
from typing import Any

from fcnseg import __version__
from fcnseg.beam.job_state import Output, job_text
from fcnseg.beam.progress import shown
from fcnseg.beam.quiet_beam import beam
from fcnseg.beam.shard_writer import ShardWriter
from fcnseg.beam.transforms import FinishDataset, InspectCases, Only, PlanShards, WriteShards
from fcnseg.cli.command import parse_known, run_or_exit
from fcnseg.conversion.case_source import CaseSource
from fcnseg.conversion.cases import Case, CaseList
from fcnseg.conversion.check_options import CheckOptions, OnMismatch
from fcnseg.conversion.dataset_cases import add_case_files, check_unchanged, note_case_files
from fcnseg.conversion.preprocessing import Preprocessing
from fcnseg.conversion.rejects import Reject
from fcnseg.conversion.shards import SizedCase
from fcnseg.conversion.splits import check_fractions, with_splits
from fcnseg.errors import InputError
from fcnseg.records import CASE_FILES_FILE, SCHEMA_VERSION
from fcnseg.storage import files
from fcnseg.storage.file_urls import local_path
from fcnseg.volumes import LabelMap

from .failures import naming_failures
from .label_map_file import LabelMapFile
from .report import report_complete, report_dataset, report_validation
from .runner_setup import prepared_runner
from .runners import beam_options

logger = logging.getLogger(__name__)

_SOURCES = ("cases", "images", "labels", "dataset", "totalsegmentator", "label_map")
_PATHS = (*_SOURCES, "output", "write_label_map")


@dataclasses.dataclass(frozen=True)
class ConvertCt:
    """Converts CT volumes and their labels to sharded training records.

    Every other flag goes to Apache Beam. Without one the job runs in this process; with
    `--direct_num_workers 4` in four, and with `--runner FlinkRunner`, `DataflowRunner` ... on a
    cluster. The output is the same to the byte.

    A case that cannot be converted is written to rejects.jsonl with its reason, the others
    continue, and the exit status reports it. Paths may be local, also as file:///, or gs://, s3://,
    hdfs:// with the extra of the store.
    """

    output: str
    """Folder for records, dataset_info.json, case_files.csv, rejects.jsonl and, written last,
    COMPLETED."""
    cases: str | None = None
    """CSV file: case_id,image,label[,patient_id][,split][,series_uid]; its paths are relative to
    its folder. An image may be a folder of DICOM files."""
    images: str | None = None
    """Folder of CT volumes, instead of --cases; nnU-Net's suffix _0000 is understood."""
    labels: str | None = None
    """Folder of label volumes with the names of the images."""
    dataset: str | None = None
    """dataset.json of the Medical Segmentation Decathlon or of nnU-Net, instead of --cases."""
    totalsegmentator: str | None = None
    """Folder of TotalSegmentator's dataset, instead of --cases: SUBJECT/ct.nii.gz and
    SUBJECT/segmentations/NAME.nii.gz; the splits in meta.csv hold."""
    label_map: str | None = None
    """YAML file: the classes in order, each with its ids. Without it --dataset and
    --totalsegmentator give the names."""
    classes: tuple[str, ...] = ()
    """Masks of --totalsegmentator that become classes, in this order, instead of all."""
    write_label_map: str | None = None
    """YAML file to write the label map to that the job takes."""
    images_only: bool = False
    """Convert images without labels, or ignore their labels."""
    spacing_mm: tuple[float, float, float] = (1.5, 1.5, 1.5)  # TotalSegmentator's full resolution
    """Spacing Z Y X of the records: every case is resampled to it."""
    validation_fraction: float = 0.2
    """Share of patients for validation; patients, not cases, are split, by a hash of their id."""
    test_fraction: float = 0.0
    """Share of patients for testing."""
    split_seed: int = 0
    """Seed of the splits."""
    geometry_tolerance_mm: float = CheckOptions.geometry_tolerance_mm
    """Largest distance of a corner of the label from the image's."""
    on_mismatch: OnMismatch = CheckOptions.on_mismatch
    """Handling of a label on another grid: reject the case; resample_label; or trust_image, which
    gives a label of the same shape and direction the position of the image."""
    max_case_voxels: int = CheckOptions.max_case_voxels
    """Maximum number of voxels; a larger image is rejected by its header, before it is read."""
    accept: tuple[str, ...] = ()
    """Codes of implausible findings to accept as warnings."""
    shard_mib: int = 128
    """Approximate size of a file of records: the unit of work and of shuffling."""
    max_record_mib: int = 512
    """Size above which a case is split across several records: protobuf's limit is 2048."""
    max_reject_fraction: float = 0.0
    """Share of rejected cases above which the exit status reports a failure."""
    validate_only: bool = False
    """Check everything, but write only the report: rejects.jsonl and warnings.jsonl."""
    overwrite: bool = False
    """Delete what an earlier run left in the output folder, and replace the file of
    --write_label_map."""
    resume: bool = False
    """Resume an interrupted run of the same job: only missing shards are written."""

    def run(self, beam_args: Sequence[str] = ()) -> None:
        """Runs the job and waits for it.

        Args:
            beam_args: Flags for Beam.

        Raises:
            InputError: If an argument, the list of cases or the label map breaks a rule.
            DatasetError: If the output folder is in use or contains the output of another job, no
                case is valid, or more are rejected than allowed.
        """
        given = {name: getattr(self, name) for name in _PATHS}
        paths: dict[str, Any] = {name: path and local_path(path) for name, path in given.items()}
        dataclasses.replace(self, **paths)._run(beam_args)

    def _run(self, beam_args: Sequence[str]) -> None:
        options = beam_options(beam_args, known=[field.name for field in dataclasses.fields(self)])
        self.check()
        preprocessing = self.preprocessing()
        cases = self.list_cases(preprocessing.label_map)
        label_map_file = LabelMapFile(
            self.write_label_map, preprocessing.label_map, overwrite=self.overwrite
        )
        output = Output(
            files.absolute(self.output),
            job_text(self.job(cases, preprocessing)),
            validate_only=self.validate_only,
        )
        is_complete = not output.prepare(overwrite=self.overwrite, resume=self.resume)
        label_map_file.write()
        if is_complete:
            self._report_complete(output.folder, cases)
            return
        if not self.validate_only:
            note_case_files(output.folder, self.divided(cases))
        try:
            with (
                naming_failures(),
                prepared_runner(options) as runner,
                shown(output, cases=len(cases)),
                beam.Pipeline(runner=runner, options=options) as pipeline,
            ):
                self.build(pipeline, cases, preprocessing, output=output)
        finally:
            output.delete_temporary()
        output.tidy()
        self._report(output.folder, cases=len(cases))

    def divided(self, cases: CaseList) -> tuple[Case, ...]:
        """The valid entries of a list, each with its split."""
        return with_splits(
            cases.cases,
            validation_fraction=self.validation_fraction,
            test_fraction=self.test_fraction,
            seed=self.split_seed,
        )

    def _report_complete(self, folder: str, cases: CaseList) -> None:
        """Reports that the output is there already; an earlier version's gets its case files."""
        check_unchanged(folder, cases.cases)
        if add_case_files(folder, self.divided(cases)):
            logger.info(
                f"added {CASE_FILES_FILE}: the files of the cases, for fcnseg predict --data"
            )
        most = self.max_reject_fraction
        report_complete(folder, cases=len(cases), max_reject_fraction=most)

    def _report(self, folder: str, *, cases: int) -> None:
        """Reports what is in the output, and raises an error if too many cases are rejected."""
        most = self.max_reject_fraction
        if self.validate_only:
            report_validation(folder, cases=cases, max_reject_fraction=most)
            return
        fractions = {"validation": self.validation_fraction, "test": self.test_fraction}
        splits = ["train", *(name for name, fraction in fractions.items() if fraction)]
        report_dataset(folder, cases=cases, max_reject_fraction=most, splits=splits)

    def check(self) -> None:
        """Checks the flags that need no file.

        Raises:
            InputError: If one is out of range, or two do not go together.
        """
        self.source()
        check_fractions(
            validation_fraction=self.validation_fraction, test_fraction=self.test_fraction
        )
        for name in ("shard_mib", "max_record_mib"):
            if getattr(self, name) <= 0:
                raise InputError(f"{name} must be positive, got {getattr(self, name)}")
        if not 0 <= self.max_reject_fraction <= 1:
            raise InputError(
                f"max_reject_fraction must be from 0 to 1, got {self.max_reject_fraction}"
            )
        if self.overwrite and (self.resume or self.validate_only):
            raise InputError("--overwrite goes with neither --resume nor --validate_only")

    def source(self) -> CaseSource:
        """The place of the cases and of the label map.

        Raises:
            InputError: If the flags do not name it in exactly one way.
        """
        given = {name: getattr(self, name) for name in _SOURCES}
        return CaseSource(**given, classes=self.classes, labelled=not self.images_only)

    def preprocessing(self) -> Preprocessing:
        """Makes the preprocessing, the same for every case."""
        checks = CheckOptions(
            geometry_tolerance_mm=self.geometry_tolerance_mm,
            on_mismatch=self.on_mismatch,
            max_case_voxels=self.max_case_voxels,
            accept=self.accept,
        )
        return Preprocessing(self.source().read_label_map(), self.spacing_mm, checks)

    def list_cases(self, label_map: LabelMap) -> CaseList:
        """Lists the cases that the flags name."""
        return self.source().list_cases(label_map)

    def job(self, cases: CaseList, preprocessing: Preprocessing) -> dict[str, Any]:
        """The settings that determine the bytes of the output: equal jobs write equal files."""
        rows = dataclasses.astuple(cases)
        settings = dataclasses.asdict(preprocessing)
        settings["label_map"] = list(preprocessing.label_map.to_mapping()["classes"].items())
        names = ["validation_fraction", "test_fraction", "split_seed", "shard_mib"]
        names += ["max_record_mib", "images_only", "validate_only"]
        return {
            "fcnseg": __version__,
            "schema": SCHEMA_VERSION,
            "cases": hashlib.sha256(json.dumps(rows).encode()).hexdigest(),
            **settings,
            "unlisted": preprocessing.label_map.unlisted,
            "ignored": list(preprocessing.label_map.ignored),
            **{name: getattr(self, name) for name in names},
        }

    def build(
        self,
        pipeline: beam.Pipeline,
        cases: CaseList,
        preprocessing: Preprocessing,
        *,
        output: Output,
    ) -> None:
        """Adds the graph of the job to a pipeline."""
        seed = self.split_seed
        inspected = (
            pipeline
            | "Cases" >> beam.Create(self.divided(cases))
            | "Inspect" >> InspectCases(preprocessing)
        )
        written = (
            inspected
            | "Sound" >> Only(SizedCase)
            | "Plan" >> PlanShards(output, shard_bytes=self.shard_mib * 2**20, seed=seed)
            | "Write"
            >> WriteShards(ShardWriter(preprocessing, output, self.max_record_mib * 2**20))
        )
        rejected = inspected | "Rejected" >> Only(Reject)
        listed_wrong = pipeline | "Listed wrong" >> beam.Create(cases.rejects)
        _ = (
            (listed_wrong, rejected, written)
            | "Outcomes" >> beam.Flatten()
            | FinishDataset(preprocessing, output, seed=seed, labelled=not self.images_only)
        )


def main(argv: Sequence[str] | None = None, *, prog: str | None = None) -> None:
    """Runs the command.

    Args:
        argv: Arguments instead of the process's own.
        prog: Name in the help text, by default that of the module that runs.
    """
    logging.getLogger("apache_beam").setLevel(logging.ERROR)  # its INFO is for Beam's developers

    def work() -> None:
        command, beam_args = parse_known(ConvertCt, argv, prog=prog)
        command.run(beam_args)

    run_or_exit(work)


if __name__ == "__main__":
    main()
