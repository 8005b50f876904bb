"""A search from its command to its best configuration."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fcnseg.cli.tables import print_table
from fcnseg.config import override, write_config
from fcnseg.errors import FcnsegError, InputError
from fcnseg.records import Dataset, DatasetInfo
from fcnseg.storage.folder_lock import locked_folder
from fcnseg.storage.whole_file import make_folder, write_whole

from .trial_process import TrialStoppedError, prepared_server, wait_for_orphans

# Beside the imports below, which take as long, the server loads TensorFlow.
prepared_server()

from fcnseg.training import check_dataset, check_each_organ  # noqa: E402
from fcnseg.training.setting_checks import ignore_label  # noqa: E402

from . import cluster, roles  # noqa: E402
from .objectives import check_objective  # noqa: E402
from .oracles import ORACLES, Limits, SearchOracle  # noqa: E402
from .report import REPORT_FILE, Summary  # noqa: E402
from .space import SearchSpace  # noqa: E402
from .space_checks import checked_space  # noqa: E402
from .tables import trials_table  # noqa: E402
from .trial_checks import check_trial, devices_of  # noqa: E402
from .trials import (  # noqa: E402
    BEST_CONFIG_FILE,
    TRIALS_FILE,
    TRIALS_FOLDER,
    Progress,
    Search,
    Trial,
    best_trial,
    format_settings,
)
from .worker_devices import keep_devices, shares  # noqa: E402
from .workers import Share, TrialRunner, Worker, run_threads  # noqa: E402

if TYPE_CHECKING:
    from .search import SearchCommand

SPACES = Path(__file__).parent / "spaces"
"""The search spaces that come with fcnseg."""
_SAVE_SECONDS = 60.0  # of max_hours that a kill -9 may lose

logger = logging.getLogger(__name__)


class SearchError(FcnsegError):
    """No trial of a search succeeded."""


class SearchStoppedError(FcnsegError):
    """A search was stopped by a signal; the same command resumes it.

    Attributes:
        exit_status: Exit status that a shell reports for a process ended by the signal.
    """

    def __init__(self, received: signal.Signals, *, finished: int, output: Path) -> None:
        super().__init__(
            f"search stopped by {received.name}: {finished} trials finished, written to"
            f" {output / TRIALS_FILE}; the same command resumes it"
        )
        self.exit_status = 128 + received


class StopSignals:
    """The signals that ask a search to stop: SIGTERM and Ctrl-C.

    Attributes:
        received: The first one.
        should_stop: Set with it.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self.should_stop = threading.Event()

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Records the signals inside the block; only possible in the main thread."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        numbers = (signal.SIGTERM, signal.SIGINT)
        before = {number: signal.signal(number, self._note) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _note(self, number: int, frame: Any) -> None:
        del frame
        self.received = self.received or signal.Signals(number)
        self.should_stop.set()
        if number == signal.SIGINT:  # a second one does not wait
            signal.signal(signal.SIGINT, signal.default_int_handler)


def run_search(command: SearchCommand) -> None:
    """Runs a search, or its part of one.

    Raises:
        InputError: If an argument is wrong, or the folder is that of another search.
        SearchError: If no trial succeeded.
        SearchStoppedError: If it was stopped.
    """
    role = roles.role()
    _check_limits(command, role)
    dataset = Dataset.open(command.data)
    check_dataset(dataset, ignore_label=command.config.loss.ignore_label)
    check_each_organ(dataset, ignore_label=command.config.loss.ignore_label)
    ignored = ignore_label(command.config, dataset.info)
    check_objective(command.objective, dataset.info, ignore_label=ignored)
    parts = _shares_here(command, role)
    space = _space_of(command, dataset.info, parts)
    signals = StopSignals()
    runner = TrialRunner(
        folder=command.output,
        base=command.config,
        data=str(command.data),
        objective=command.objective,
        num_classes=dataset.info.num_classes,
        should_stop=signals.should_stop,
    )
    search, oracle = _search_of(command, space, dataset), _oracle(command, space)
    with signals.listening():
        if role == "worker":
            with _until_stopped(signals, command.output):
                cluster.work(oracle, runner, search, parts[0], retry_failed=command.retry_failed)
            return
        make_folder(command.output, argument="output")
        with locked_folder(command.output, argument="output"):
            search.begin_or_resume(command.output)
            _run(command, oracle, runner, signals, parts=parts)


def _shares_here(command: SearchCommand, role: roles.Role | None) -> list[Share]:
    """The shares of this process's workers; a chief has none."""
    if role == "chief":
        return []
    if role == "worker":
        number, count = roles.number_and_count()
        return [shares(count, command.devices)[number]]
    return shares(command.workers, command.devices)


def _run(
    command: SearchCommand,
    oracle: SearchOracle,
    runner: TrialRunner,
    signals: StopSignals,
    *,
    parts: Sequence[Share],
) -> None:
    is_chief = not parts
    for share in parts:
        keep_devices(command.output, share)
    oracle.reload(has_workers_elsewhere=is_chief)
    if command.retry_failed:
        oracle.retry_failed()
    oracle.look_ahead()  # nobody asks the chief of a search that is over
    if not oracle.is_over():
        (command.output / BEST_CONFIG_FILE).unlink(missing_ok=True)
    with _until_stopped(signals, command.output), _saving(oracle):
        if is_chief:
            cluster.serve(oracle, signals.should_stop)
        else:
            _run_here(oracle, runner, parts)
    _finish(command, oracle)


def _run_here(oracle: SearchOracle, runner: TrialRunner, parts: Sequence[Share]) -> None:
    """Runs the trials on this machine, once those of a search that was killed have ended."""
    running = (trial.root for trial in oracle.progress.trials if trial.status == "running")
    folders = [runner.folder / TRIALS_FOLDER / root for root in running]
    wait_for_orphans(folders, runner.should_stop)
    workers = [Worker(oracle, runner, share=share) for share in parts]
    for number, worker in enumerate(workers):
        worker.tuner_id = f"worker{number}"
    run_threads(workers)


@contextlib.contextmanager
def _saving(oracle: SearchOracle) -> Iterator[None]:
    """Saves the time that the block took, each minute and however it ends."""
    has_ended = threading.Event()

    def save() -> None:
        with contextlib.suppress(FcnsegError), oracle.lock:  # a full disk is named by a trial
            oracle.save()

    def save_each_minute() -> None:
        while not has_ended.wait(_SAVE_SECONDS):
            save()

    thread = threading.Thread(target=save_each_minute, daemon=True)
    thread.start()
    try:
        yield
    finally:
        has_ended.set()
        thread.join()
        save()


@contextlib.contextmanager
def _until_stopped(signals: StopSignals, output: Path) -> Iterator[None]:
    """Ends the block with `SearchStoppedError` if a signal ended it."""
    try:
        yield
    except TrialStoppedError:
        if signals.received is None:
            raise
    if signals.received is not None:
        trials = Progress.read(output).trials
        finished = sum(trial.outcome is not None for trial in trials)
        raise SearchStoppedError(signals.received, finished=finished, output=output)


def _finish(command: SearchCommand, oracle: SearchOracle) -> None:
    """Writes the report and then the best configuration, and shows the trials."""
    trials = oracle.progress.trials
    write_whole(command.output / REPORT_FILE, Summary.read(command.output).to_html())
    best = None
    if oracle.error is None:
        best = best_trial(trials, epochs=command.config.training.epochs)
    path = command.output / BEST_CONFIG_FILE
    if best is not None:
        write_config(override(command.config, best.settings), path)
    print_table(trials_table(trials, objective=command.objective))
    logger.info(f"the search is over: {oracle.ended}")
    if oracle.error is not None:
        raise oracle.error
    if best is None:
        raise SearchError(_no_best(trials))
    logger.info(f"best: trial {best.trial_id}, {format_settings(best.settings)}, written to {path}")


def _no_best(trials: Sequence[Trial]) -> str:
    failed = [trial for trial in trials if trial.status == "failed"]
    if not failed or failed[0].outcome is None:
        return "no trial has trained to the end: give max_hours more time, and the search goes on"
    return f"all {len(failed)} trials failed; the first: {failed[0].outcome.error}"


def _check_limits(command: SearchCommand, role: roles.Role | None) -> None:
    if role is not None and command.workers != 1:
        raise InputError(
            f"workers must be 1 in a search on several machines, got {command.workers}: the"
            " supervisor has a flag for it"
        )
    if command.max_trials is not None and command.max_trials < 1:
        raise InputError(f"max_trials must be at least 1, got {command.max_trials}")
    if not 0 <= command.seed < 2**32:
        raise InputError(f"seed must be from 0 to {2**32 - 1}, got {command.seed}")
    if command.max_hours is not None and not command.max_hours > 0:
        raise InputError(f"max_hours must be above 0, got {command.max_hours}")
    ends_itself = command.tuner in ("grid", "hyperband")
    if command.max_trials is None and command.max_hours is None and not ends_itself:
        raise InputError(f"max_trials or max_hours must be given for tuner {command.tuner}")


def _space_file(space: Path) -> Path:
    """The file, or that of a space of fcnseg by its name."""
    known = {path.stem: path for path in SPACES.glob("*.yaml")}
    return known.get(os.fspath(space), space)


def _space_of(command: SearchCommand, info: DatasetInfo, parts: Sequence[Share]) -> SearchSpace:
    """The space, with which the trials of this machine's workers can train."""
    devices = devices_of(parts[0]) if parts else []
    check = functools.partial(check_trial, info=info, devices=devices)
    return checked_space(SearchSpace.read(_space_file(command.space)), command.config, check=check)


def _search_of(command: SearchCommand, space: SearchSpace, dataset: Dataset) -> Search:
    return Search(
        tuner=command.tuner,
        objective=command.objective,
        seed=command.seed,
        space=space.to_mapping(),
        config=command.config,
        data=str(command.data),
        data_digest=dataset.digest,
        max_trials=command.max_trials if command.tuner == "hyperband" else None,
    )


def _oracle(command: SearchCommand, space: SearchSpace) -> SearchOracle:
    seconds = None if command.max_hours is None else command.max_hours * 3600
    return ORACLES[command.tuner](
        space,
        command.config,
        folder=command.output,
        objective=command.objective,
        limits=Limits(command.max_trials, seconds),
        seed=command.seed,
    )
