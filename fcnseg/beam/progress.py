"""Progress of a job, computed from its output folder and therefore independent of the runner.

Its granularity is a shard: cases count when their shard is complete. Bytes of shards in progress
are counted where the output is local.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console

from fcnseg.beam.job_state import JobPlan, Output, WrittenShard
from fcnseg.storage import files

logger = logging.getLogger(__name__)

# Seconds between two scans of the output folder.
_LINE_SECONDS = 60.0  # with a log line each
_LOOK_SECONDS = 1.0
_REMOTE_LOOK_SECONDS = 15.0  # each lists a folder of an object store


@dataclasses.dataclass(frozen=True)
class JobProgress:
    """Progress of a job.

    Attributes:
        cases: Number of cases listed.
        done: Number of cases in complete shards, rejected ones included.
        rejected: Number of rejected cases.
        shards: Numbers of complete and of planned shards.
        mb_per_second: Throughput of records since the job began; None if none are written.
        seconds_left: Estimated time until the plan is done; None while it is unknown.
    """

    cases: int
    done: int
    rejected: int
    shards: tuple[int, int]
    mb_per_second: float | None
    seconds_left: float | None

    def __str__(self) -> str:
        rate = "" if self.mb_per_second is None else f", {self.mb_per_second:.1f} MB/s"
        left = "" if self.seconds_left is None else f", {_duration(self.seconds_left)} left"
        return (
            f"cases {self.done} of {self.cases}, rejected {self.rejected}, shards"
            f" {self.shards[0]} of {self.shards[1]}{rate}{left}"
        )


class Watch:
    """Watches an output folder; each completion record is read once."""

    def __init__(self, output: Output, *, cases: int) -> None:
        """Starts watching.

        Args:
            output: The folder.
            cases: Number of cases listed.
        """
        self.output = output
        self.cases = cases
        self.plan: JobPlan | None = None
        self._shards: dict[str, WrittenShard] = {}
        self._began: tuple[float, int] | None = None  # seconds, work that was done already

    def look(self, now: float | None = None) -> JobProgress | None:
        """Computes the progress of the job; None while headers are read and nothing is planned.

        Args:
            now: Seconds of a monotonic clock.
        """
        now = time.monotonic() if now is None else now
        self.plan = self.plan or self.output.read_plan()
        if self.plan is None:
            return None
        for path in self.output.list_notes():
            if path not in self._shards:
                self._shards[path] = WrittenShard.from_json(files.read_text(path))
        done, planned = self._work(self.plan)
        self._began = self._began or (now, done)
        per_second = (done - self._began[1]) / max(now - self._began[0], 1e-9)
        rejected = self.cases - self.plan.cases
        rejected += sum(len(shard.rejects) for shard in self._shards.values())
        return JobProgress(
            cases=self.cases,
            done=rejected + sum(len(shard.cases) for shard in self._shards.values()),
            rejected=rejected,
            shards=(len(self._shards), self.plan.shards),
            mb_per_second=None if self.output.validate_only else per_second / 1e6,
            seconds_left=max(planned - done, 0) / per_second if per_second > 0 else None,
        )

    def _work(self, plan: JobPlan) -> tuple[int, int]:
        """Finished and planned work: bytes of records, or shards if no records are written."""
        if self.output.validate_only:
            return len(self._shards), plan.shards
        written = sum(shard.info.bytes for shard in self._shards.values())
        return written + self._bytes_on_the_way(), plan.bytes

    def _bytes_on_the_way(self) -> int:
        """Bytes of incomplete files; 0 in an object store, where they are not visible."""
        if not files.is_local(self.output.folder):
            return 0
        folders = files.list_unfinished(self.output.folder)
        return sum(sum(files.list_sizes(folder).values()) for folder in folders)


@contextmanager
def shown(output: Output, *, cases: int, every_s: float | None = None) -> Iterator[None]:
    """Shows the progress of a job while the block runs: one live line, or a line a minute.

    Args:
        output: Output folder of the job.
        cases: Number of cases listed.
        every_s: Seconds between two scans of the folder; by default a minute without a terminal,
            otherwise 1, or 15 in an object store.
    """
    watch = Watch(output, cases=cases)
    console = Console(stderr=True)
    if not console.is_terminal:
        with _repeated(lambda: _log(watch), every_s or _LINE_SECONDS):
            yield
        return
    seconds = every_s or (_LOOK_SECONDS if files.is_local(output.folder) else _REMOTE_LOOK_SECONDS)
    with (
        console.status(f"reading the headers of {cases} cases") as status,
        _repeated(lambda: _update(watch, status.update), seconds),
    ):
        yield


def _log(watch: Watch) -> None:
    logger.info(str(watch.look() or f"reading the headers of {watch.cases} cases"))


def _update(watch: Watch, update: Callable[[str], None]) -> None:
    progress = watch.look()
    if progress is not None:
        update(str(progress))


@contextmanager
def _repeated(work: Callable[[], None], seconds: float) -> Iterator[None]:
    """Calls a function every few seconds in a thread of its own while the block runs."""
    over = threading.Event()

    def repeat() -> None:
        while not over.wait(seconds):
            with contextlib.suppress(Exception):  # an error in the display must not end the job
                work()

    thread = threading.Thread(target=repeat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes}:{seconds:02d} min"
