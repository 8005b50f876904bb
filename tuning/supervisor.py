"""Keeps workers of a search on several machines alive: `python -m tuning.supervisor --help`.

A worker that dies leaves its trial to its name: one that starts under the same name resumes it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import platform
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import tyro

from fcnseg.cli.command import run_command
from fcnseg.errors import FcnsegError, InputError

from .roles import COUNT_VARIABLE, NAME_VARIABLE, NUMBER_VARIABLE, check_address, check_name

_POLL_SECONDS = 0.5
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 60.0  # seconds before a restart, doubled each time
_LONG_LIFE = 600.0  # seconds after which a worker's next death is the first again
_FINAL = (0, FcnsegError.exit_status)  # done, or a mistake that another start repeats

logger = logging.getLogger(__name__)


class WorkersFailedError(FcnsegError):
    """A worker ended with an error that a restart would repeat."""


@dataclasses.dataclass(frozen=True)
class SupervisorCommand:
    """Starts workers of a search, and starts each that dies again under its name.

    The workers get KERASTUNER_TUNER_ID, and each its share of the GPUs or cores; the address of the
    chief is in the environment already.
    """

    command: tyro.conf.Positional[tuple[str, ...]]
    """Command of a worker, behind --, as -- fcnseg search --data DIR and so on."""
    workers: int = 1
    """Number of workers on this machine."""
    name: str = platform.node()
    """Name of this machine, different on each: worker 0 is NAME-0."""

    def run(self) -> None:
        """Runs the workers until all are done.

        Raises:
            InputError: If there is no command, or no chief's address in the environment, or the
                name is none of a worker.
            WorkersFailedError: If a worker ended with a mistake of the user.
        """
        if not self.command:
            raise InputError("command must follow --, got none")
        if self.workers < 1:
            raise InputError(f"workers must be at least 1, got {self.workers}")
        check_name(self.name, argument="name")
        check_address()
        stop = threading.Event()
        kept = [
            Kept(
                f"{self.name}-{number}",
                self.command,
                {NUMBER_VARIABLE: str(number), COUNT_VARIABLE: str(self.workers)},
            )
            for number in range(self.workers)
        ]
        with _stopping(kept, stop) as received:
            while any(worker.status is None for worker in kept):
                for worker in kept:
                    worker.tend(stop)
                time.sleep(_POLL_SECONDS)
        if received:
            sys.exit(128 + received[0])
        failed = [worker.name for worker in kept if worker.status != 0]
        if failed:
            raise WorkersFailedError(
                f"worker {', '.join(failed)} ended with status {_FINAL[1]}: its last line says why"
            )


class Kept:
    """A worker that is started again when it dies.

    Attributes:
        name: Its name.
        status: Exit status that it ended with for good; None while it runs.
    """

    def __init__(self, name: str, command: Sequence[str], variables: Mapping[str, str]) -> None:
        self.name = name
        self.status: int | None = None
        self._command = command
        self._variables = {**variables, NAME_VARIABLE: name}
        self._process: subprocess.Popen[bytes] | None = None
        self._started = 0.0
        self._pause = _FIRST_PAUSE
        self._due = 0.0

    def tend(self, stop: threading.Event) -> None:
        """Starts the worker if it is due, and takes note of its end."""
        if self.status is not None:
            return
        now = time.monotonic()
        if self._process is None:
            if stop.is_set():
                self.status = 0
            elif now >= self._due:
                environment = {**os.environ, **self._variables}
                self._process = subprocess.Popen(self._command, env=environment)
                self._started = now
            return
        ended = self._process.poll()
        if ended is None:
            return
        self._process = None
        if ended in _FINAL or stop.is_set():
            self.status = ended
            return
        self._pause = _FIRST_PAUSE if now - self._started > _LONG_LIFE else self._pause
        logger.warning(
            f"worker {self.name} ended with status {ended}; it starts again in {self._pause:.0f} s"
        )
        self._due = now + self._pause
        self._pause = min(2 * self._pause, _LONGEST_PAUSE)

    def terminate(self) -> None:
        """Asks the worker to stop."""
        if self._process is not None:
            self._process.terminate()


@contextlib.contextmanager
def _stopping(kept: Sequence[Kept], stop: threading.Event) -> Iterator[list[int]]:
    """Has the workers stop at a SIGTERM or Ctrl-C; gives the signals received.

    A terminal sends Ctrl-C to the workers too, which take both signals for one.
    """
    received: list[int] = []

    def pass_on(number: int, frame: Any) -> None:
        del frame
        received.append(number)
        stop.set()
        for worker in kept:
            worker.terminate()

    numbers = (signal.SIGTERM, signal.SIGINT)
    before = {number: signal.signal(number, pass_on) for number in numbers}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def main() -> None:
    """Runs the command line."""
    run_command(SupervisorCommand)


if __name__ == "__main__":
    main()
