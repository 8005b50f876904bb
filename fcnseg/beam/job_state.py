"""The output folder while a job is at work: whose job it is, what is planned, and what is whole.

Beside the shards lies a folder `.state`, which goes when the dataset is finished: `job.json` tells
which job is at work, `plan.json` what it is going to write, and one small file for each shard what
that holds. A shard gets its name after its small file has, so whatever is whole is also known. The
marker of a finished dataset holds what `job.json` held.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pydantic

from fcnseg.conversion.rejects import Reject
from fcnseg.conversion.shards import Shard
from fcnseg.errors import DatasetError, one_line
from fcnseg.records import COMPLETED_FILE, INFO_FILE, REJECTS_FILE, DatasetInfo, ShardInfo
from fcnseg.records.fingerprint import CaseFacts
from fcnseg.storage import files
from fcnseg.storage.file_systems import UNFINISHED
from fcnseg.storage.whole_file import make_folder, write_whole

STATE = ".state"
WARNINGS_FILE = "warnings.jsonl"
_JOB_FILE = "job.json"
_PLAN_FILE = "plan.json"
_REPORT = (REJECTS_FILE, WARNINGS_FILE)


@dataclasses.dataclass(frozen=True)
class WrittenShard:
    """A file that is whole, and what is in it.

    Attributes:
        key: Tells one shard's work from any other: of another job, or of other cases.
        split: One of `SPLITS`.
        info: The file.
        divided: Ids of the cases that take several records.
        cases: Facts of the cases in it.
        hu_counts: As `HuCounts.to_mapping` gives them, of all these cases.
        rejects: Cases that should have been in it.
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
    """What a job is going to write.

    Attributes:
        shards: How many.
        cases: How many cases are in them; the others were rejected by their headers.
        bytes: About how many they take.
    """

    shards: int
    cases: int
    bytes: int


@dataclasses.dataclass(frozen=True)
class Output:
    """An output folder, and the job that writes to it.

    Attributes:
        folder: Path on any file system.
        job: What decides the bytes of the output, as JSON.
        validate_only: No shard is written, so that the small files alone tell what is done.
    """

    folder: str
    job: str
    validate_only: bool = False

    @property
    def state(self) -> str:
        """Path of the folder `.state`."""
        return files.join(self.folder, STATE)

    def prepare(self, *, overwrite: bool, resume: bool) -> bool:
        """Makes the folder ready for the job.

        Args:
            overwrite: Delete what an earlier run left there.
            resume: Go on where the same job was interrupted.

        Returns:
            False if what the job makes is there already and is to stay.

        Raises:
            DatasetError: If something else is there, or what is there is of another job; it names
                what differs.
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
            files.delete([path for path in found if self._is_ours(path)])
        elif resume and found:
            self._check_same_job(found)
            self.delete_temporary()
        elif any(path not in self._paths(_REPORT) for path in found):
            raise DatasetError(
                f"output must be empty or a finished dataset, got {self.folder} with {len(found)} "
                "files: --resume goes on with an interrupted job, --overwrite deletes what it left"
            )
        self._write(self.state, _JOB_FILE, self.job)
        return True

    def write_plan(self, shards: Sequence[Shard]) -> None:
        """Notes what is going to be written, so that progress can be told."""
        plan = JobPlan(
            shards=len(shards),
            cases=sum(len(shard.cases) for shard in shards),
            bytes=sum(shard.bytes for shard in shards),
        )
        self._write(self.state, _PLAN_FILE, json.dumps(dataclasses.asdict(plan)))

    def read_plan(self) -> JobPlan | None:
        """What is going to be written, once that is known."""
        path = files.join(self.state, _PLAN_FILE)
        try:
            return JobPlan(**json.loads(files.read_text(path))) if files.exists(path) else None
        except (TypeError, ValueError):  # of a run whose disk has lost it
            return None

    def key_of(self, shard: Shard) -> str:
        """What tells a shard's work from any other."""
        cases = json.dumps([dataclasses.astuple(case) for case in shard.cases])
        return hashlib.sha256(f"{self.job}\n{shard.name}\n{cases}".encode()).hexdigest()

    def note_written(self, shard: WrittenShard) -> None:
        """Notes what a shard holds, before it gets its name."""
        self._write(self.state, _note_of(shard.info.name), shard.to_json())

    def find_written(self, shard: Shard) -> WrittenShard | None:
        """What a shard holds, if it is whole already and of this job."""
        note = files.join(self.state, _note_of(shard.name))
        if not files.exists(note):
            return None
        try:
            written = WrittenShard.from_json(files.read_text(note))
        except ValueError:  # the disk has lost it: the shard is made again
            return None
        if written.key != self.key_of(shard):
            return None
        return written if self.validate_only or self._has(written.info) else None

    def _has(self, shard: ShardInfo) -> bool:
        """Tells whether a file is there, and of its size: a cut one is made again."""
        return files.size(files.join(self.folder, shard.name)) == shard.bytes

    def list_notes(self) -> list[str]:
        """Paths of the small files of shards."""
        plan, job = self._paths((_PLAN_FILE, _JOB_FILE), folder=self.state)
        found = files.list_folder(self.state)
        return [path for path in found if path.endswith(".json") and path not in (plan, job)]

    def write_report(self, name: str, text: str) -> None:
        """Writes a file of the output that is whole or not there."""
        self._write(self.folder, name, text)

    def delete_shards(self, *, but: Sequence[str]) -> None:
        """Deletes shards that an interrupted run planned otherwise, as headers were others then."""
        kept = self._paths(but)
        found = files.list_folder(self.folder)
        files.delete([path for path in found if _is_shard(path) and path not in kept])

    def tidy(self) -> None:
        """Deletes what only a job at work needs, when the output is finished."""
        self.delete_temporary()
        files.delete_folder(self.state)

    def delete_temporary(self) -> None:
        """Deletes what attempts that ended early left."""
        for folder in (self.folder, self.state):
            for unfinished in files.list_unfinished(folder):
                files.delete_folder(unfinished)

    def _check_same_job(self, found: Sequence[str]) -> None:
        path = files.join(self.state, _JOB_FILE)
        if path not in found:
            raise DatasetError(
                f"--resume goes on with an interrupted job, and {self.folder} holds none:"
                " --overwrite deletes what an earlier run left there"
            )
        then = _read_job(path, files.read_text(path))
        differs = _difference(then, json.loads(self.job))
        if differs:
            raise DatasetError(
                f"--resume goes on with the same job, but {differs} now in {self.folder}"
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
        """What the finished dataset was made of; a new version of fcnseg is no other job."""
        marker = files.join(self.folder, COMPLETED_FILE)
        text = files.read_text(marker)
        if text:
            job = _read_job(marker, text)
            return {name: value for name, value in job.items() if name != "fcnseg"}
        # Markers were empty once; then the manifest tells of some settings.
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
        told: dict[str, Any] = json.loads(json.dumps(known))
        return told

    def _is_ours(self, path: str) -> bool:
        """Whether a file in the folder is one that this job writes."""
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
    """What decides the bytes of an output, as JSON: equal jobs give equal text."""
    return json.dumps(settings, indent=1)


def _read_job(path: str, text: str) -> dict[str, Any]:
    """What a file says of the job that wrote it.

    Raises:
        DatasetError: If it is not whole, as after a loss of power.
    """
    try:
        return dict(json.loads(text))
    except (TypeError, ValueError) as error:
        raise DatasetError(
            f"not a whole note of a job: {path}: {one_line(error)}; --overwrite begins it again"
        ) from error


def _difference(then: dict[str, Any], now: dict[str, Any], *, within: str = "") -> str | None:
    """The first setting that differs, with both values; None where none does."""
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
