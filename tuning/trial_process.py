"""A trial in a process of its own: whatever happens to it, the search goes on.

The process is forked from a server that has TensorFlow loaded, so it starts at once, and its end
gives all memory of host and GPU back.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
import math
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from multiprocessing import connection, forkserver, resource_tracker
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from fcnseg.config import Config
from fcnseg.errors import (
    NO_SPACE,
    ConfigError,
    FcnsegError,
    InputError,
    ModelError,
    OutputError,
    one_line,
)
from fcnseg.runs.archives import check_archive
from fcnseg.runs.run_folder import CHECKPOINT_FILE
from fcnseg.storage.folder_lock import FolderInUseError, locked_folder
from fcnseg.storage.whole_file import make_folder, naming_output

from .trials import Outcome

# A trial whose search was killed ends at its next step, with a checkpoint; the first step of a
# large network is compiled for minutes.
_ORPHAN_SECONDS = 1800.0
_EXIT_SECONDS = 60.0  # for a process that has said what came out; then it is killed
_POLL_SECONDS = 0.2
_SIGNAL_SECONDS = 0.5  # in which a signal for the whole group reaches the search too
_MOST_STOPS = 3  # by a signal that the search does not receive
_STOPPED = (-signal.SIGTERM, -signal.SIGINT)  # exit codes
# The start of a process asks for the ends of all others, which can be read only once.
_PROCESSES = threading.Lock()
# An error of memory is that of a network or a batch; of arithmetic, that of a loss.
_BY_SETTINGS = (ConfigError, ModelError, MemoryError, ArithmeticError)
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
        begun: File to delete if the search ends suddenly and the trial does not; None for none.
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
    begun: Path | None = None
    gpus: tuple[str, ...] | None = None
    cores: tuple[int, ...] = ()
    threads: int = 0


@functools.cache
def prepared_server() -> ForkServerContext:
    """Starts the server, and gives the context whose processes have `fcnseg.training` loaded."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["fcnseg.training", __name__])
    with _blocked_sigterm():
        forkserver.ensure_running()
    return context


@contextlib.contextmanager
def _blocked_sigterm() -> Iterator[None]:
    """Has no SIGTERM reach the server of processes, which starts in the block.

    A SIGTERM for the whole group, as from Slurm or systemd, is for the trials: they write their
    checkpoints, and the server ends with the search.
    """
    resource_tracker.ensure_running()  # its start ends the block
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


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
    name = f"trial {job.run_dir.name}"
    for _ in range(_MOST_STOPS):
        outcome = _run_once(job, should_stop, work or train_trial)
        has_ended = outcome is not None and outcome.objective is not None
        if not has_ended and should_stop.wait(_SIGNAL_SECONDS):
            raise TrialStoppedError(f"{name} was stopped")
        if outcome is not None:
            return dataclasses.replace(outcome, seconds=time.monotonic() - started)
        logger.warning(f"{name} was stopped by a signal, but not the search: it is run again")
    return Outcome(None, error=f"its process was stopped by a signal {_MOST_STOPS} times")


def _run_once(
    job: TrialJob, should_stop: threading.Event, work: Callable[[TrialJob], Outcome]
) -> Outcome | None:
    """Runs a trial until its process ends; gives None if it was stopped, but did not fail."""
    process, receiver = _start(job, work)
    try:
        message, peak = _watch(process, receiver, should_stop)
    finally:
        receiver.close()
        with _PROCESSES:
            if process.is_alive():  # it hangs, or this process ends by an error of its own
                process.kill()
        connection.wait([process.sentinel])
        with _PROCESSES:
            process.join()
    return _outcome(message, process.exitcode, peak)


def _start(
    job: TrialJob, work: Callable[[TrialJob], Outcome]
) -> tuple[BaseProcess, connection.Connection]:
    """The process of a trial, and the connection on which it says what came out."""
    context = prepared_server()
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_main, args=(job, sender, work), name=job.run_dir.name)
    with _PROCESSES, _blocked_sigterm():
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
            connection.wait([process.sentinel], timeout=_EXIT_SECONDS)
            return message, peak
        if ready:
            return message, peak
        if should_stop.is_set() and not is_told:
            process.terminate()
            is_told = True


def _outcome(message: Any, exit_code: int | None, peak: int | None) -> Outcome | None:
    if isinstance(message, TrialStoppedError) or (message is None and exit_code in _STOPPED):
        return None
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
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    _end_with_parent(job.begun)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(_OOM_SCORE)
    if job.gpus is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(job.gpus)
    if job.cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, job.cores)
    sender.send(_attempt(job, work))


def _attempt(job: TrialJob, work: Callable[[TrialJob], Outcome]) -> Outcome | FcnsegError:
    try:
        _redirect_output(job.log)
        return work(job)
    except TrialStoppedError as error:
        return error
    except Exception as error:
        logger.exception("the trial failed")
        reason = one_line(error) or type(error).__name__
        is_full = isinstance(error, OSError) and error.errno in NO_SPACE
        if is_full or isinstance(error, OutputError | FolderInUseError):
            return TrialSurroundingsError(f"trial {job.run_dir.name} cannot go on: {reason}")
        return Outcome(
            None,
            error=f"{type(error).__name__}: {reason}",
            is_by_settings=isinstance(error, _BY_SETTINGS),
        )


def wait_for_orphans(run_dirs: Iterable[Path], should_stop: threading.Event) -> None:
    """Waits until the trials of a search that was killed have ended, and left their GPUs.

    Args:
        run_dirs: Run folders of the trials.
        should_stop: Ends the waiting.
    """
    begun = [run_dir for run_dir in run_dirs if run_dir.exists()]
    deadline = time.monotonic() + _ORPHAN_SECONDS
    if not all(map(_is_free, begun)):
        logger.info("waiting for the last checkpoints of the search that was killed")
    while not all(map(_is_free, begun)) and time.monotonic() < deadline:
        if should_stop.wait(_POLL_SECONDS):
            return


def _is_free(run_dir: Path) -> bool:
    try:
        with locked_folder(run_dir, argument="run_dir"):
            return True
    except FolderInUseError:
        return False


def train_trial(job: TrialJob) -> Outcome:
    """Trains, from where the run stopped if it has begun, and measures the objective."""
    import tensorflow as tf

    from fcnseg.records import Dataset
    from fcnseg.training import TrainingStoppedError, train
    from fcnseg.training.setting_checks import ignore_label

    from .objectives import measure

    tf.config.threading.set_intra_op_parallelism_threads(job.threads)
    dataset = Dataset.open(job.data)
    started, cpu_before = time.monotonic(), time.process_time()
    folder = make_folder(job.run_dir, argument="run_dir")
    with locked_folder(folder, argument="run_dir", wait_seconds=_ORPHAN_SECONDS):
        pass  # the process of a search that was killed has written its last checkpoint
    _drop_broken(folder / CHECKPOINT_FILE)
    try:
        result = train(
            job.config,
            dataset,
            folder,
            resume=True,
            until_epoch=job.until_epoch,
            keep_final_state=False,
        )
    except TrainingStoppedError as error:
        raise TrialStoppedError(str(error)) from error
    ignored = ignore_label(job.config, dataset.info)
    value = measure(job.objective, result, dataset, ignore_label=ignored)
    seconds, cpu_seconds = time.monotonic() - started, time.process_time() - cpu_before
    if not math.isfinite(value):
        reason = f"{job.objective} is {value}"
        outcome = Outcome(None, error=reason, is_by_settings=True)
    else:
        outcome = Outcome(value, result.best_dice, result.best_epoch)
    return dataclasses.replace(outcome, training_seconds=seconds, training_cpu_seconds=cpu_seconds)


def _drop_broken(checkpoint: Path) -> None:
    """Deletes a checkpoint that a disk has damaged: the trial begins again, and ends the same."""
    if not checkpoint.exists():
        return
    try:
        check_archive(checkpoint, what="checkpoint", remedy="the trial begins again")
    except InputError as error:
        logger.warning(str(error))
        checkpoint.unlink()


def _end_with_parent(begun: Path | None) -> None:
    """Asks this process to stop, as SIGTERM does, once the search has ended without it.

    The note of the trial's begin is deleted, as it did not take the search down with it.
    """
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def wait() -> None:
        connection.wait([parent.sentinel])
        if begun is not None:
            with contextlib.suppress(OSError):
                begun.unlink(missing_ok=True)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, daemon=True).start()


def _redirect_output(log: Path) -> None:
    """Sends all output of this process to a file, that of libraries in C too."""
    with naming_output(log), log.open("ab") as file:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
            os.dup2(file.fileno(), stream.fileno())
    logging.basicConfig(level=logging.INFO, format="%(message)s", force=True)
