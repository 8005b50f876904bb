"""A trial in a process of its own: whatever happens to it, the search goes on.

The process is forked from a server that has TensorFlow loaded, so it starts at once, and its end
gives all memory of host and GPU back.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import functools
import logging
import math
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing import connection, forkserver
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from fcnseg.config import Config
from fcnseg.errors import FcnsegError, OutputError, one_line
from fcnseg.storage.folder_lock import FolderInUseError, locked_folder
from fcnseg.storage.whole_file import make_folder

from .trials import Outcome

_ORPHAN_SECONDS = 120.0  # a trial whose search was killed ends at its next step, with a checkpoint
_EXIT_SECONDS = 60.0  # for a process that has said what came out; then it is killed
_POLL_SECONDS = 0.2
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
# How likely the kernel chooses a process when memory is short, from -1000 to 1000: a trial before
# the search.
_OOM_SCORE = "500"

logger = logging.getLogger(__name__)


class TrialSurroundingsError(FcnsegError):
    """A trial could not run, for a reason that is not its settings, such as a full disk."""


class TrialStoppedError(FcnsegError):
    """A trial was stopped before its end, and can be resumed."""


@dataclasses.dataclass(frozen=True)
class TrialJob:
    """The work of the process of a trial.

    Attributes:
        config: All settings.
        data: Folder of the records.
        run_dir: Folder of the run, begun or not.
        until_epoch: Epoch after which it ends.
        objective: Name of the objective.
        log: File for its output.
        gpus: Identifiers of the GPUs that it sees, as CUDA_VISIBLE_DEVICES has them; None for all.
        cores: Numbers of the CPU cores that it may use; empty for all.
        threads: Threads of TensorFlow; 0 for one per core. Sums are rounded by their number, so a
            trial on some of the cores has as many as a training on all of them.
    """

    config: Config
    data: str
    run_dir: Path
    until_epoch: int
    objective: str
    log: Path
    gpus: tuple[str, ...] | None = None
    cores: tuple[int, ...] = ()
    threads: int = 0


@functools.cache
def prepared_server() -> ForkServerContext:
    """Starts the server, and gives the context whose processes have `fcnseg.training` loaded."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["fcnseg.training", __name__])
    forkserver.ensure_running()
    return context


def run_in_process(
    job: TrialJob,
    *,
    should_stop: threading.Event,
    work: Callable[[TrialJob], Outcome] | None = None,
) -> Outcome:
    """Runs a trial in a process of its own.

    Args:
        job: The trial.
        should_stop: Once set, the process is asked to write a checkpoint and to end.
        work: Function of a module that the process calls instead of the training.

    Returns:
        The outcome; a failure has its reason.

    Raises:
        TrialStoppedError: If the process was asked to stop.
        TrialSurroundingsError: If the trial could not run, as on a full disk.
    """
    started = time.monotonic()
    process, receiver = _start(job, work or train_trial)
    try:
        message, peak = _watch(process, receiver, should_stop)
    finally:
        receiver.close()
        if process.is_alive():  # it hangs at its end, or this process ends by an error of its own
            process.kill()
        process.join()
    seconds = time.monotonic() - started
    outcome = _outcome(message, process.exitcode, peak)
    if should_stop.is_set() and outcome.objective is None:
        raise TrialStoppedError(f"trial {job.run_dir.name} was stopped")
    return dataclasses.replace(outcome, seconds=seconds)


def _start(
    job: TrialJob, work: Callable[[TrialJob], Outcome]
) -> tuple[BaseProcess, connection.Connection]:
    """The process of a trial, and the connection on which it says what came out."""
    context = prepared_server()
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_main, args=(job, sender, work), name=job.run_dir.name)
    process.start()
    sender.close()  # so that the end of the process closes the connection
    return process, receiver


def _watch(
    process: BaseProcess, receiver: connection.Connection, should_stop: threading.Event
) -> tuple[Any, int | None]:
    """Waits for the end of a process; gives what it said, and its peak memory in bytes."""
    message: Any = None
    peak: int | None = None
    is_told = False
    while True:
        ready = connection.wait([receiver, process.sentinel], timeout=_POLL_SECONDS)
        peak = _peak_bytes(process.pid) or peak
        if receiver in ready:
            with contextlib.suppress(EOFError):
                message = receiver.recv()
            process.join(timeout=_EXIT_SECONDS)
            return message, peak
        if ready:
            return message, peak
        if should_stop.is_set() and not is_told:
            process.terminate()
            is_told = True


def _outcome(message: Any, exit_code: int | None, peak: int | None) -> Outcome:
    if isinstance(message, Outcome):
        return dataclasses.replace(message, peak_bytes=peak)
    if isinstance(message, TrialSurroundingsError):
        raise message
    if exit_code is not None and exit_code < 0:
        name = signal.Signals(-exit_code).name
        memory = "" if peak is None else f" at {peak / 2**30:.2f} GiB"
        hint = ", as the kernel does where memory is short" if name == "SIGKILL" else ""
        reason = f"its process was ended by {name}{hint}{memory}"
        return Outcome(None, error=reason, peak_bytes=peak)
    return Outcome(None, error=f"its process ended with status {exit_code}", peak_bytes=peak)


def _peak_bytes(pid: int | None) -> int | None:
    """The most memory that a process has had so far; None where the system does not say."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return None
    kib = [int(line.split()[1]) for line in lines if line.startswith("VmHWM:")]
    return kib[0] * 1024 if kib else None


def _main(
    job: TrialJob, sender: connection.Connection, work: Callable[[TrialJob], Outcome]
) -> None:
    """Runs in the process: does the work, and sends its outcome."""
    _end_with_parent()
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(_OOM_SCORE)
    if job.gpus is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(job.gpus)
    if job.cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, job.cores)
    _redirect_output(job.log)
    sender.send(_attempt(job, work))


def _attempt(job: TrialJob, work: Callable[[TrialJob], Outcome]) -> Outcome | FcnsegError:
    try:
        return work(job)
    except Exception as error:
        logger.exception("the trial failed")
        reason = one_line(error) or type(error).__name__
        is_full = isinstance(error, OSError) and error.errno in _NO_SPACE
        if is_full or isinstance(error, OutputError | FolderInUseError):
            return TrialSurroundingsError(f"trial {job.run_dir.name} cannot go on: {reason}")
        return Outcome(None, error=f"{type(error).__name__}: {reason}")


def train_trial(job: TrialJob) -> Outcome:
    """Trains, from where the run stopped if it has begun, and measures the objective."""
    import tensorflow as tf

    from fcnseg.records import Dataset
    from fcnseg.training import train
    from fcnseg.training.setting_checks import ignore_label

    from .objectives import measure

    tf.config.threading.set_intra_op_parallelism_threads(job.threads)
    dataset = Dataset.open(job.data)
    started, cpu_before = time.monotonic(), time.process_time()
    folder = make_folder(job.run_dir, argument="run_dir")
    with locked_folder(folder, argument="run_dir", wait_seconds=_ORPHAN_SECONDS):
        pass  # the process of a search that was killed has written its last checkpoint
    result = train(
        job.config,
        dataset,
        folder,
        resume=True,
        until_epoch=job.until_epoch,
        keep_final_state=False,
    )
    ignored = ignore_label(job.config, dataset.info)
    value = measure(job.objective, result, dataset, ignore_label=ignored)
    seconds, cpu_seconds = time.monotonic() - started, time.process_time() - cpu_before
    if not math.isfinite(value):
        outcome = Outcome(None, error=f"{job.objective} is {value}")
    else:
        outcome = Outcome(value, result.best_dice, result.best_epoch)
    return dataclasses.replace(outcome, training_seconds=seconds, training_cpu_seconds=cpu_seconds)


def _end_with_parent() -> None:
    """Asks this process to stop, as SIGTERM does, once the search has ended without it."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def wait() -> None:
        connection.wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, daemon=True).start()


def _redirect_output(log: Path) -> None:
    """Sends all output of this process to a file, that of libraries in C too."""
    with log.open("ab") as file:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
            os.dup2(file.fileno(), stream.fileno())
    logging.basicConfig(level=logging.INFO, format="%(message)s", force=True)
