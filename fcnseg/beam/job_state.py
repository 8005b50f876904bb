"""The state of a conversion job in its output folder: its settings, its plan, its finished shards.

Next to the shards lies a folder `.state`, deleted when the dataset is finished: `job.json` contains
the settings of the job, `plan.json` the shards it is going to write, and one completion record per
shard the contents of that shard. A shard is renamed to its final name after its record is written,
so every complete shard has a record. The marker of a finished dataset contains what `job.json`
contained.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pydantic

from fcnseg.conversion.cases import changed_since
from fcnseg.conversion.rejects import Reject
from fcnseg.conversion.shards import Shard
from fcnseg.errors import DatasetError, one_line
from fcnseg.records import (
    CASE_FILES_FILE,
    COMPLETED_FILE,
    INFO_FILE,
    REJECTS_FILE,
    DatasetInfo,
    ShardInfo,
)
from fcnseg.records.fingerprint import CaseFacts
from fcnseg.storage import files
from fcnseg.storage.file_systems import UNFINISHED
from fcnseg.storage.whole_file import make_folder, write_whole

STATE = ".state"
WARNINGS_FILE = "warnings.jsonl"
_JOB_FILE = "job.json"
_PLAN_FILE = "plan.json"
# Files of a job that converted no case; they are no dataset.
_REPORT = (REJECTS_FILE, WARNINGS_FILE, CASE_FILES_FILE)


@dataclasses.dataclass(frozen=True)
class WrittenShard:
    """A complete shard and its contents.

    Attributes:
        key: Key of the shard's work; it differs for another job and for other cases.
        split: One of `SPLITS`.
        info: The file.
        divided: Ids of the cases that are split across several records.
        cases: Facts of the cases in it.
        hu_counts: HU counts over all these cases, as `HuCounts.to_mapping` gives them.
        rejects: Cases of the shard that were rejected.
    """

    key: str
    split: str
    info: ShardInfo
    divided: tuple[str, ...]
    cases: tuple[CaseFacts, ...]
    hu_counts: dict[str, list[int]]
    rejects: tuple[Reject, ...]

    def to_json(self) -> str:
        """One JSON object."""
        return pydantic.TypeAdapter(WrittenShard).dump_json(self).decode()

    @classmethod
    def from_json(cls, text: str) -> WrittenShard:
        """Reads what `to_json` wrote."""
        return pydantic.TypeAdapter(cls).validate_json(text)


@dataclasses.dataclass(frozen=True)
class JobPlan:
    """The shards that a job is going to write.

    Attributes:
        shards: Number of shards.
        cases: Number of cases in them; the others were rejected by their headers.
        bytes: Approximate size of all shards.
    """

    shards: int
    cases: int
    bytes: int


@dataclasses.dataclass(frozen=True)
class Output:
    """An output folder, and the job that writes to it.

    Attributes:
        folder: Path on any file system.
        job: All settings that determine the bytes of the output, as JSON.
        validate_only: No shard is written, and the completion records alone show the progress.
    """

    folder: str
    job: str
    validate_only: bool = False

    @property
    def state(self) -> str:
        """Path of the folder `.state`."""
        return files.join(self.folder, STATE)

    def prepare(self, *, overwrite: bool, resume: bool) -> bool:
        """Prepares the folder for the job.

        Args:
            overwrite: Delete what an earlier run left there.
            resume: Continue an interrupted run of the same job.

        Returns:
            False if the output of the job is there already and is kept.

        Raises:
            DatasetError: If the folder contains something else, or the output of another job; the
                message names the difference.
        """
        if files.is_local(self.folder):
            make_folder(self.folder, argument="output")
        found = files.list_folder(self.folder)  # .state and COMPLETED come before shards
        finished = files.join(self.folder, COMPLETED_FILE) in found
        if finished and not overwrite and not self.validate_only:
            self._check_finished_job()
            self.tidy()  # the run that finished it may have been killed before it could
            return False
        if overwrite:
            ours = [path for path in found if self._is_ours(path)]
            if found and not ours:
                raise DatasetError(
                    f"output must be empty or of a conversion, got {self.folder} with {len(found)}"
                    " other files"
                )
            files.delete(ours)
        elif resume and found:
            self._check_same_job(found)
            self.delete_temporary()
        elif any(path not in self._paths(_REPORT) for path in found):
            raise DatasetError(
                f"output must be empty or a finished dataset, got {self.folder} with {len(found)} "
                "files: --resume continues an interrupted job, --overwrite deletes what it left"
            )
        self._write(self.state, _JOB_FILE, self.job)
        return True

    def write_plan(self, shards: Sequence[Shard]) -> None:
        """Writes the plan, from which progress is computed."""
        plan = JobPlan(
            shards=len(shards),
            cases=sum(len(shard.cases) for shard in shards),
            bytes=sum(shard.bytes for shard in shards),
        )
        self._write(self.state, _PLAN_FILE, json.dumps(dataclasses.asdict(plan)))

    def read_plan(self) -> JobPlan | None:
        """Reads the plan; None before it is written."""
        path = files.join(self.state, _PLAN_FILE)
        try:
            return JobPlan(**json.loads(files.read_text(path))) if files.exists(path) else None
        except (TypeError, ValueError):  # a plan that the disk lost in an earlier run
            return None

    def key_of(self, shard: Shard) -> str:
        """Computes the key that identifies a shard's work."""
        cases = json.dumps([dataclasses.astuple(case) for case in shard.cases])
        return hashlib.sha256(f"{self.job}\n{shard.name}\n{cases}".encode()).hexdigest()

    def note_written(self, shard: WrittenShard) -> None:
        """Writes the completion record of a shard, before the shard gets its final name."""
        self._write(self.state, _note_of(shard.info.name), shard.to_json())

    def find_written(self, shard: Shard) -> WrittenShard | None:
        """Finds the record of a shard if it is complete, of this job, and of today's files."""
        note = files.join(self.state, _note_of(shard.name))
        if not files.exists(note):
            return None
        try:
            written = WrittenShard.from_json(files.read_text(note))
        except ValueError:  # the disk lost it: the shard is written again
            return None
        if written.key != self.key_of(shard) or changed_since(note, shard.cases):
            return None
        return written if self.validate_only or self._has(written.info) else None

    def _has(self, shard: ShardInfo) -> bool:
        """Tells whether a file exists with its recorded size; a truncated one is written again."""
        return files.size(files.join(self.folder, shard.name)) == shard.bytes

    def list_notes(self) -> list[str]:
        """Paths of the completion records of shards."""
        plan, job = self._paths((_PLAN_FILE, _JOB_FILE), folder=self.state)
        found = files.list_folder(self.state)
        return [path for path in found if path.endswith(".json") and path not in (plan, job)]

    def write_report(self, name: str, text: str) -> None:
        """Writes a file of the output atomically."""
        self._write(self.folder, name, text)

    def delete_shards(self, *, but: Sequence[str]) -> None:
        """Deletes shards of an interrupted run with another plan, made from other headers."""
        kept = self._paths(but)
        found = files.list_folder(self.folder)
        files.delete([path for path in found if _is_shard(path) and path not in kept])

    def tidy(self) -> None:
        """Deletes what only a running job needs, when the output is finished."""
        self.delete_temporary()
        files.delete_folder(self.state)

    def delete_temporary(self) -> None:
        """Deletes the temporary files of attempts that ended early."""
        for folder in (self.folder, self.state):
            for unfinished in files.list_unfinished(folder):
                files.delete_folder(unfinished)

    def _check_same_job(self, found: Sequence[str]) -> None:
        path = files.join(self.state, _JOB_FILE)
        if path not in found:
            raise DatasetError(
                f"--resume continues an interrupted job, and {self.folder} holds none:"
                " --overwrite deletes what an earlier run left there"
            )
        then = _read_job(path, files.read_text(path))
        differs = _difference(then, json.loads(self.job))
        if differs:
            raise DatasetError(
                f"--resume continues the same job, but {differs} now in {self.folder}"
            )

    def _check_finished_job(self) -> None:
        then = self._finished_job()
        now = {name: value for name, value in json.loads(self.job).items() if name in then}
        differs = _difference(then, now)
        if differs:
            raise DatasetError(
                f"output holds the finished dataset of another job: {differs} now in {self.folder}:"
                " name another folder, or give --overwrite to replace it"
            )

    def _finished_job(self) -> dict[str, Any]:
        """The job of the finished dataset; another version of fcnseg is not another job."""
        marker = files.join(self.folder, COMPLETED_FILE)
        text = files.read_text(marker)
        if text:
            job = _read_job(marker, text)
            return {name: value for name, value in job.items() if name != "fcnseg"}
        # Markers were empty in older versions; the manifest then contains some of the settings.
        info = DatasetInfo.from_json(files.read_text(files.join(self.folder, INFO_FILE)))
        known = {
            "schema": info.schema_version,
            "spacing_mm": info.spacing_mm,
            "label_map": list(info.label_map["classes"].items()),
            "unlisted": info.label_map["unlisted"],
            "ignored": info.label_map["ignored"],
            "split_seed": info.seed,
            "images_only": not info.labelled,
        }
        content: dict[str, Any] = json.loads(json.dumps(known))
        return content

    def _is_ours(self, path: str) -> bool:
        """Tells whether a file in the folder is one that this job writes."""
        inner = (files.join(self.folder, UNFINISHED), files.join(self.state, ""))
        return (
            path in self._paths((COMPLETED_FILE, INFO_FILE, *_REPORT))
            or path.startswith(inner)
            or _is_shard(path)
        )

    def _paths(self, names: Sequence[str], *, folder: str | None = None) -> list[str]:
        return [files.join(folder or self.folder, name) for name in names]

    def _write(self, folder: str, name: str, text: str) -> None:
        if files.is_local(folder):
            Path(folder).mkdir(parents=True, exist_ok=True)
        write_whole(files.join(folder, name), text)


def job_text(settings: dict[str, Any]) -> str:
    """All settings that determine the bytes of an output, as JSON; equal jobs give equal text."""
    return json.dumps(settings, indent=1)


def _read_job(path: str, text: str) -> dict[str, Any]:
    """Reads the job that a file describes.

    Raises:
        DatasetError: If the file is incomplete, as after a loss of power.
    """
    try:
        return dict(json.loads(text))
    except (TypeError, ValueError) as error:
        raise DatasetError(
            f"incomplete or corrupt job state: {path}: {one_line(error)};"
            " --overwrite begins the job again"
        ) from error


def _difference(then: dict[str, Any], now: dict[str, Any], *, within: str = "") -> str | None:
    """The first setting that differs, with both values; None if all are equal."""
    for name in sorted(then.keys() | now.keys()):
        before, after = then.get(name), now.get(name)
        if before == after:
            continue
        if name == "cases":
            return "cases: others were listed, or other files, patients or splits, than are"
        if isinstance(before, dict) and isinstance(after, dict):
            return _difference(before, after, within=f"{within}{name}.")
        return f"{within}{name} was {_short(before)} and is {_short(after)}"
    return None


def _is_shard(path: str) -> bool:
    return path.endswith(".tfrecord")


def _note_of(shard_name: str) -> str:
    return shard_name.replace(".tfrecord", ".json")


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
