"""Errors of workers that end a job, reduced to one line if the cause is known."""

from __future__ import annotations

import contextlib
import re
import signal
import threading
from collections.abc import Iterator

import grpc

from fcnseg.errors import FcnsegError, OutputError

# Beam passes the error of a worker on as text, between its traceback and the step.
_OF_WORKER = re.compile(
    r"fcnseg\.errors\.OutputError: (.*?)(?: \[while running .*)?$", re.MULTILINE
)
# Beam raises this in a thread of its own, where a worker process of the local runner ended early.
_ENDED = re.compile(r"Worker subprocess exited with return code (-?\d+)")


class WorkerError(FcnsegError, RuntimeError):
    """A worker process of a job ended before its work was done."""


@contextlib.contextmanager
def naming_failures() -> Iterator[None]:
    """Turns the failure of a worker into its original error, if it could not write, or was killed.

    Raises:
        OutputError: If a worker could not write, as on a full disk.
        WorkerError: If a worker process ended early, as when the system ends it to free memory.
    """
    with _noting_ended_workers() as statuses:
        try:
            with _naming_full_disks():
                yield
        except FcnsegError:
            raise
        except Exception as error:
            if not statuses:
                raise
            raise WorkerError(
                f"a worker of the job {_described(statuses[0])}; --resume continues the job,"
                " and fewer --direct_num_workers need less memory"
            ) from error


@contextlib.contextmanager
def _noting_ended_workers() -> Iterator[list[int]]:
    """Collects the exit statuses of workers that end early, in place of their tracebacks."""
    statuses: list[int] = []
    before = threading.excepthook

    def note(failure: threading.ExceptHookArgs) -> None:
        ended = _ENDED.search(str(failure.exc_value))
        if ended:
            statuses.append(int(ended[1]))
        elif not isinstance(failure.exc_value, grpc.RpcError):  # its connection is lost too
            before(failure)

    threading.excepthook = note
    try:
        yield statuses
    finally:
        if threading.excepthook is note:  # a Ctrl-C puts another in its place
            threading.excepthook = before


def _described(status: int) -> str:
    if status >= 0:
        return f"ended with status {status}"
    name = signal.Signals(-status).name
    return f"was ended by {name}" + ", as when memory runs out" * (-status == signal.SIGKILL)


@contextlib.contextmanager
def _naming_full_disks() -> Iterator[None]:
    try:
        yield
    except OutputError as error:
        raise OutputError(str(error).partition(" [while running ")[0]) from error
    except FcnsegError:
        raise
    except Exception as error:
        messages = _OF_WORKER.findall(str(error))
        if not messages:
            raise
        raise OutputError(messages[-1]) from error
