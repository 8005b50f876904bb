"""Workers: each takes a trial from the oracle, runs it in a process of its own, and so on."""

from __future__ import annotations

import dataclasses
import json
import logging
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras_tuner
from keras_tuner.engine import base_tuner
from keras_tuner.engine import trial as kt_trial

from fcnseg.config import Config, override
from fcnseg.errors import FcnsegError, one_line
from fcnseg.runs.run_folder import CHECKPOINT_FILE

from . import memory
from .begins import count_deaths, noted_begin
from .oracles import SETTINGS, UNTIL_EPOCH, SearchOracle
from .trial_process import TrialJob, run_in_process
from .trials import (
    LOGS_FOLDER,
    TRIALS_FOLDER,
    WORKERS_FOLDER,
    Outcome,
    begun_file,
    format_settings,
    outcome_file,
)

_IDLE_SECONDS = 0.5
_MOST_DEATHS = 3  # of workers in one trial, which has written no checkpoint between them
_STATUS = kt_trial.TrialStatus

logger = logging.getLogger(__name__)


class _EndError(keras_tuner.errors.FatalError):
    """Ends a worker; KerasTuner takes other exceptions for a failed trial."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(str(cause))
        self.cause = cause


@dataclasses.dataclass(frozen=True)
class Share:
    """The part of a machine that a worker has.

    Attributes:
        gpus: Identifiers of its GPUs; None for all that there are.
        cores: Numbers of its CPU cores; empty for all.
        threads: Threads of TensorFlow, as many as the machine has cores; 0 for one per core.
        memory_bytes: Memory of its GPU, or its share of the machine's; None if unknown.
    """

    gpus: tuple[str, ...] | None = None
    cores: tuple[int, ...] = ()
    threads: int = 0
    memory_bytes: int | None = None


@dataclasses.dataclass(frozen=True)
class TrialRunner:
    """Runs trials of a search.

    Attributes:
        folder: Folder of the search.
        base: Base configuration.
        data: Folder of the records.
        objective: Name of the objective.
        num_classes: Classes of the records, background included.
        should_stop: Once set, trials write a checkpoint and end.
        work: Function that the process of a trial calls instead of the training.
    """

    folder: Path
    base: Config
    data: str
    objective: str
    num_classes: int
    should_stop: threading.Event
    work: Callable[[TrialJob], Outcome] | None = None

    def run(
        self, trial_id: str, settings: dict[str, Any], until_epoch: int, share: Share
    ) -> Outcome:
        """Runs a trial, unless its outcome is there already, and writes the outcome.

        Raises:
            TrialStoppedError: If it was stopped.
            TrialSurroundingsError: If it could not run, as on a full disk.
            OutputError: If its begin or its outcome cannot be written.
        """
        path = outcome_file(self.folder, trial_id)
        outcome = Outcome.read(path)  # its worker was killed before it could report
        if outcome is None:
            logger.info(f"trial {trial_id} until epoch {until_epoch}: {format_settings(settings)}")
            begun = begun_file(self.folder, trial_id)
            deaths = count_deaths(begun, self._checkpoint(trial_id))
            with noted_begin(begun, deaths=deaths):
                outcome = (
                    self._run(trial_id, settings, until_epoch, share)
                    if deaths < _MOST_DEATHS
                    else Outcome(None, error=f"its worker died {deaths} times")
                )
                outcome.write(path)
            if outcome.objective is None:
                logger.warning(f"trial {trial_id} failed: {outcome.error}")
                if outcome.is_by_settings:  # else it resumes after a repair
                    self._checkpoint(trial_id).unlink(missing_ok=True)
            else:
                logger.info(f"trial {trial_id}: {self.objective} {outcome.objective:.4f}")
        return outcome

    def _run(
        self, trial_id: str, settings: dict[str, Any], until_epoch: int, share: Share
    ) -> Outcome:
        root = trial_id.partition(".")[0]
        try:
            config = override(self.base, settings)
            needed = memory.needed_bytes(config, num_classes=self.num_classes)
        except FcnsegError as error:
            reason = f"{type(error).__name__}: {one_line(error)}"
            return Outcome(None, error=reason, is_by_settings=True)
        if share.memory_bytes is not None:
            refusal = memory.refusal(needed, share.memory_bytes)
            if refusal is not None:
                return Outcome(None, error=refusal, is_by_settings=True)
        job = TrialJob(
            config=config,
            data=self.data,
            run_dir=self.folder / TRIALS_FOLDER / root,
            until_epoch=until_epoch,
            objective=self.objective,
            log=self.folder / LOGS_FOLDER / f"{root}.log",
            begun=begun_file(self.folder, trial_id),
            gpus=share.gpus,
            cores=share.cores,
            threads=share.threads,
        )
        return run_in_process(job, should_stop=self.should_stop, work=self.work)

    def _checkpoint(self, trial_id: str) -> Path:
        root = trial_id.partition(".")[0]
        return self.folder / TRIALS_FOLDER / root / CHECKPOINT_FILE


class Worker(base_tuner.BaseTuner):
    """A worker in KerasTuner's sense, which may be one thread of many, or a process of its own."""

    def __init__(self, oracle: SearchOracle, runner: TrialRunner, *, share: Share) -> None:
        # KerasTuner resumes from a file with the worker's name in this folder; there is none.
        super().__init__(oracle=oracle, directory=str(runner.folder), project_name=WORKERS_FOLDER)
        self.runner = runner
        self.share = share
        self._is_idle = False

    def save(self) -> None:
        """Saves nothing: the oracle has all the state there is."""

    def pre_create_trial(self) -> None:
        """Waits for a while if there was no trial to run."""
        if self.runner.should_stop.is_set():
            raise keras_tuner.errors.FatalError("stopped")
        if self._is_idle:
            self.runner.should_stop.wait(_IDLE_SECONDS)
        self._is_idle = True

    def on_trial_begin(self, trial: Any) -> None:
        """Notes that there is a trial."""
        del trial
        self._is_idle = False

    def run_trial(self, trial: Any, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Runs a trial; gives nothing, as the oracle reads the outcome's file."""
        del args, kwargs
        values = trial.hyperparameters.values
        settings = json.loads(values[SETTINGS])
        try:
            outcome = self.runner.run(
                trial.trial_id, settings, int(values[UNTIL_EPOCH]), self.share
            )
        except Exception as error:
            raise _EndError(error) from error
        is_failed = outcome.objective is None
        trial.status = _STATUS.FAILED if is_failed else _STATUS.COMPLETED
        return {}

    def _try_run_and_update_trial(self, trial: Any, *args: Any, **kwargs: Any) -> None:
        """Runs a trial; KerasTuner's own prints a traceback for each that failed."""
        self.run_trial(trial, *args, **kwargs)


def run_worker(worker: Worker) -> None:
    """Runs trials until there are no more, or the search is stopped.

    Raises:
        TrialStoppedError: If it was stopped in a trial.
        TrialSurroundingsError: If a trial could not run, as on a full disk.
    """
    try:
        worker.search(verbose=0)
    except _EndError as end:
        raise end.cause from end
    except keras_tuner.errors.FatalError:
        if not worker.runner.should_stop.is_set():
            raise


def run_threads(workers: Sequence[Worker]) -> None:
    """Runs workers in a thread each until there are no more trials; an error ends them all.

    Raises:
        TrialStoppedError: If the search is stopped.
        TrialSurroundingsError: If a trial could not run, as on a full disk.
        OutputError: If the list of trials cannot be written.
    """
    errors: list[BaseException] = []

    def run(worker: Worker) -> None:
        try:
            run_worker(worker)
        except BaseException as error:
            errors.append(error)
            worker.runner.should_stop.set()

    threads = [
        threading.Thread(target=run, args=(worker,), name=worker.tuner_id, daemon=True)
        for worker in workers
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        while thread.is_alive():  # with a time, so that signals reach the main thread
            thread.join(timeout=_IDLE_SECONDS)
    if errors:
        raise errors[0]
