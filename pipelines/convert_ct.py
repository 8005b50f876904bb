"""Converts CT volumes and their labels to training records: options, graph, main."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence

import apache_beam as beam
import tyro
from apache_beam.options.pipeline_options import (
    DirectOptions,
    PipelineOptions,
    StandardOptions,
    WorkerOptions,
)
from apache_beam.portability.api import beam_provision_api_pb2
from apache_beam.runners.portability.fn_api_runner import fn_runner
from apache_beam.runners.portability.portable_runner import JobServiceHandle

from fcnseg.command import program_name, run_or_exit
from fcnseg.conversion import files
from fcnseg.conversion.cases import Case, cases_from_folders, read_cases_csv
from fcnseg.conversion.preprocessing import Preprocessing
from fcnseg.conversion.rejects import Reject
from fcnseg.conversion.shards import SizedCase
from fcnseg.conversion.splits import check_fractions
from fcnseg.conversion.transforms import FinishDataset, InspectCases, Only, PlanShards, WriteShards
from fcnseg.errors import DatasetError, InputError
from fcnseg.records import COMPLETED_FILE, INFO_FILE, REJECTS_FILE, DatasetInfo
from fcnseg.volumes import LabelMap

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class ConvertCt:
    """Converts CT volumes and their labels to sharded training records.

    Every other flag goes to Apache Beam. Without one the job runs in this process; with
    `--direct_num_workers 4` in four, and with `--runner FlinkRunner`, `DataflowRunner` ... on a
    cluster. The output is the same to the byte.

    A case that cannot be converted is written to rejects.jsonl with its reason, the others go on,
    and the exit status tells. Paths may be local or gs://, s3://, hdfs:// where Beam opens them.
    """

    label_map: str
    """YAML file: the classes in order, each with the ids that make it."""
    output: str
    """Folder for records, dataset_info.json, rejects.jsonl and, last, COMPLETED."""
    cases: str | None = None
    """CSV file: case_id,image,label[,patient_id][,split]; its paths are relative to its folder."""
    images: str | None = None
    """Folder of CT volumes, instead of --cases; nnU-Net's suffix _0000 is understood."""
    labels: str | None = None
    """Folder of label volumes with the names of the images."""
    spacing_mm: tuple[float, float, float] = (1.5, 1.5, 1.5)  # TotalSegmentator's full resolution
    """Z Y X of the records: every case is resampled to it."""
    validation_fraction: float = 0.2
    """Share of patients for validation; patients, not cases, are split, by a hash of their id."""
    test_fraction: float = 0.0
    """Share of patients for testing."""
    split_seed: int = 0
    """Another seed makes other splits."""
    shard_mib: int = 128
    """Size of a file of records, about: the unit of work and of shuffling."""
    max_reject_fraction: float = 0.0
    """Share of cases that may be rejected before the exit status says so."""
    overwrite: bool = False
    """Delete what an earlier run left in the output folder."""

    def run(self, beam_args: Sequence[str] = ()) -> None:
        """Runs the job and waits for it.

        Args:
            beam_args: Flags for Beam.

        Raises:
            InputError: If an argument, the list of cases or the label map breaks a rule.
            DatasetError: If the output folder is in use, no case is good, or more are rejected
                than allowed.
        """
        self.check()
        output = files.absolute(self.output)
        cases = self.list_cases()
        with files.local_copy(self.label_map) as path:
            preprocessing = Preprocessing(LabelMap.read(path), self.spacing_mm)
        options = beam_options(beam_args)
        if not self.make_room(output):
            logger.info(f"{output} is complete already; --overwrite makes it anew")
            return
        try:
            with beam.Pipeline(runner=local_runner(options), options=options) as pipeline:
                self.build(pipeline, cases, preprocessing, output=output)
        finally:
            files.delete_temporary(output)
        report(output, cases=len(cases), max_reject_fraction=self.max_reject_fraction)

    def check(self) -> None:
        """Checks the flags that need no file.

        Raises:
            InputError: If one is out of range, or two do not go together.
        """
        if (self.cases is None) == (self.images is None and self.labels is None):
            raise InputError("cases come from --cases or from --images and --labels, one of both")
        if (self.images is None) != (self.labels is None):
            raise InputError("--images and --labels go together")
        check_fractions(
            validation_fraction=self.validation_fraction, test_fraction=self.test_fraction
        )
        if self.shard_mib <= 0:
            raise InputError(f"shard_mib must be positive, got {self.shard_mib}")
        if not 0 <= self.max_reject_fraction <= 1:
            raise InputError(
                f"max_reject_fraction must be from 0 to 1, got {self.max_reject_fraction}"
            )

    def list_cases(self) -> list[Case]:
        """The cases that the flags name."""
        if self.cases is not None:
            return read_cases_csv(self.cases)
        return cases_from_folders(str(self.images), str(self.labels))

    def build(
        self,
        pipeline: beam.Pipeline,
        cases: list[Case],
        preprocessing: Preprocessing,
        *,
        output: str,
    ) -> None:
        """Adds the graph of the job to a pipeline."""
        seed = self.split_seed
        inspected = (
            pipeline
            | "Cases" >> beam.Create(cases)
            | "Inspect"
            >> InspectCases(
                preprocessing,
                validation_fraction=self.validation_fraction,
                test_fraction=self.test_fraction,
                seed=seed,
            )
        )
        written = (
            inspected
            | "Sound" >> Only(SizedCase)
            | "Plan" >> PlanShards(shard_bytes=self.shard_mib * 2**20, seed=seed)
            | "Write" >> WriteShards(preprocessing, output=output)
        )
        rejected = inspected | "Rejected" >> Only(Reject)
        _ = (
            (rejected, written)
            | "Outcomes" >> beam.Flatten()
            | FinishDataset(preprocessing, output=output, seed=seed)
        )

    def make_room(self, output: str) -> bool:
        """Sees to it that the output folder can be written to.

        Returns:
            False if a finished dataset is there already and is to stay.

        Raises:
            DatasetError: If something else is there.
        """
        found = files.list_folder(output)  # COMPLETED sorts before, and is deleted before, shards
        if not self.overwrite and files.join(output, COMPLETED_FILE) in found:
            return False
        if found and not self.overwrite:
            raise DatasetError(
                f"output must be empty or a finished dataset, got {output} with {len(found)} files:"
                " --overwrite deletes what an earlier run left there"
            )
        files.delete([path for path in found if _is_ours(path, output)])
        return True


def _is_ours(path: str, output: str) -> bool:
    """Whether a file in the output folder is one that this job writes."""
    name = path.removeprefix(files.join(output, ""))
    ours = (COMPLETED_FILE, INFO_FILE, REJECTS_FILE)
    return name in ours or name.startswith(f"{files.TEMPORARY}/") or name.endswith(".tfrecord")


def beam_options(beam_args: Sequence[str]) -> PipelineOptions:
    """Reads the flags that are not our own.

    Raises:
        InputError: If one is unknown to Beam too; a named runner may know more, so it decides.
    """
    options = PipelineOptions(list(beam_args))
    if options.view_as(StandardOptions).runner is None:
        parsers: list = []
        PipelineOptions([]).get_all_options(add_extra_args_fn=parsers.append)
        unknown = parsers[0].parse_known_args(beam_args)[1]
        if unknown:
            raise InputError(f"unknown flag: {' '.join(unknown)} (--help lists the known ones)")
    return options


def local_runner(options: PipelineOptions) -> beam.runners.PipelineRunner | None:
    """The runner of this machine, in one process or several; None if the user names another.

    Beam's own choice, `DirectRunner`, first fetches the runner Prism from the network.
    """
    if options.view_as(StandardOptions).runner is not None:
        return None
    direct = options.view_as(DirectOptions)
    if direct.direct_num_workers != 1 and direct.direct_running_mode == "in_memory":
        direct.direct_running_mode = "multi_processing"  # in memory only one would work
    worker = options.view_as(WorkerOptions)
    worker.default_sdk_harness_log_level = worker.default_sdk_harness_log_level or "ERROR"
    # As DirectRunner does without Prism: the flags reach the workers, as file systems need.
    encoded = JobServiceHandle.encode_pipeline_options(options.get_all_options())
    provision = beam_provision_api_pb2.ProvisionInfo(pipeline_options=encoded)
    return fn_runner.FnApiRunner(provision_info=fn_runner.ExtendedProvisionInfo(provision))


def report(output: str, *, cases: int, max_reject_fraction: float) -> None:
    """Tells what became of the cases.

    Raises:
        DatasetError: If none is good, or more are rejected than allowed.
    """
    rejects_file = files.join(output, REJECTS_FILE)
    rejects = [Reject.from_json(line) for line in files.read_text(rejects_file).splitlines()]
    if len(rejects) < cases:
        info = DatasetInfo.from_json(files.read_text(files.join(output, INFO_FILE)))
        for split, content in info.splits.items():
            size = sum(shard.bytes for shard in content.shards) / 1e6
            logger.info(
                f"{split}: cases {content.cases}, shards {len(content.shards)}, {size:.1f} MB"
            )
        logger.info(f"records are in {output}")
    if not rejects:
        return
    told = f"rejected {len(rejects)} of {cases} cases, see {rejects_file}; first: {rejects[0]}"
    if len(rejects) == cases or len(rejects) > max_reject_fraction * cases:
        raise DatasetError(told)
    logger.warning(told)


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command."""
    logging.getLogger("apache_beam").setLevel(logging.ERROR)  # its INFO is for Beam's developers
    run_or_exit(lambda: _parse_and_run(argv))


def _parse_and_run(argv: Sequence[str] | None) -> None:
    command, beam_args = tyro.cli(
        ConvertCt,
        prog=program_name(),
        args=argv,
        use_underscores=True,
        return_unknown_args=True,
        config=(tyro.conf.FlagCreatePairsOff,),
    )
    command.run(beam_args)


if __name__ == "__main__":
    main()
