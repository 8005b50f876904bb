"""Searches for a configuration with high validation Dice: `fcnseg search --help`."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import json
import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import keras
import keras_tuner
from rich.console import Console
from rich.table import Table

from fcnseg.cli.command import ConfigFlags, Location, run_command
from fcnseg.config import Config, override, write_config
from fcnseg.errors import FcnsegError, InputError, one_line
from fcnseg.records import Dataset
from fcnseg.storage.whole_file import make_folder, write_whole
from fcnseg.training import TrainingStoppedError, check_dataset, check_each_organ, train

from .space import SearchSpace

BEST_CONFIG_FILE = "best.yaml"
"""Written last: a folder without it is not a finished search."""
TRIALS_FILE = "trials.json"
"""Written after each trial."""
TRIALS_FOLDER = "trials"

_ORACLES = {
    "random": keras_tuner.oracles.RandomSearchOracle,
    "bayesian": keras_tuner.oracles.BayesianOptimizationOracle,
}
_OBJECTIVE = keras_tuner.Objective("val_dice", "max")

logger = logging.getLogger(__name__)


class SearchError(FcnsegError):
    """No trial of a search succeeded."""


class SearchStoppedError(FcnsegError):
    """A search was stopped by a signal; the current trial is neither finished nor failed.

    Attributes:
        exit_status: Exit status that a shell reports for a process ended by the signal.
    """

    def __init__(
        self, received: signal.Signals, *, finished: int, max_trials: int, output: Path
    ) -> None:
        where = f", written to {output / TRIALS_FILE}" if finished else ""
        super().__init__(
            f"search stopped by {received.name}: {finished} of {max_trials} trials finished{where}"
        )
        self.exit_status = 128 + received


class _Stopped(BaseException):
    """A signal; as it is no `Exception`, KerasTuner does not treat it as a failed trial."""

    def __init__(self, received: signal.Signals) -> None:
        super().__init__(received.name)
        self.received = received


@dataclasses.dataclass(frozen=True)
class Trial:
    """One training run of a search.

    Attributes:
        trial_id: Id, and name of its run folder.
        settings: Settings tried, by dotted key.
        val_dice: Best validation Dice, None if it failed.
        error: Reason of its failure.
        seconds: Wall time.
    """

    trial_id: str
    settings: dict[str, Any]
    val_dice: float | None
    error: str | None
    seconds: float


class ConfigTuner(keras_tuner.Tuner):
    """Trains one configuration after the other as its oracle proposes them.

    Attributes:
        finished: The trials so far; each is also in `TRIALS_FILE` as soon as it is finished.
    """

    def __init__(
        self,
        oracle: keras_tuner.Oracle,
        base: Config,
        space: SearchSpace,
        *,
        data: str | os.PathLike[str],
        output: Path,
    ) -> None:
        super().__init__(oracle=oracle, directory=output, project_name="keras_tuner")
        self.base = base
        self.space = space
        self.data = data
        self.output = output
        self.finished: list[Trial] = []

    def run_trial(self, trial: Any, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Trains; a failure, out of memory or any other, is a failed trial."""
        del args, kwargs
        settings = self.space.settings(trial.hyperparameters.values)
        logger.info(f"trial {trial.trial_id}: {_format(settings)}")
        started = time.perf_counter()
        val_dice, message = None, None
        try:
            config = override(self.base, settings)
            run_dir = self.output / TRIALS_FOLDER / trial.trial_id
            val_dice = train(config, self.data, run_dir).best_dice
        except TrainingStoppedError as error:
            raise _Stopped(error.received) from error
        except Exception as error:
            message = f"{type(error).__name__}: {one_line(error)}"
            logger.warning(f"trial {trial.trial_id} failed: {message}")
            raise keras_tuner.errors.FailedTrialError(message) from error
        finally:
            if val_dice is not None or message is not None:
                seconds = time.perf_counter() - started
                self._finish(Trial(trial.trial_id, settings, val_dice, message, seconds))
            keras.backend.clear_session()
            gc.collect()
        return {_OBJECTIVE.name: val_dice}

    def _finish(self, trial: Trial) -> None:
        self.finished.append(trial)
        content = [dataclasses.asdict(each) for each in ranked(self.finished)]
        write_whole(self.output / TRIALS_FILE, json.dumps(content, indent=2) + "\n")


@dataclasses.dataclass(frozen=True)
class SearchCommand:
    """Searches for a configuration: trains with settings from a search space, keeps the best."""

    data: Location
    """Folder of records that `fcnseg convert` wrote, which may be in an object store."""
    config: ConfigFlags
    """Base configuration, for all that is not searched; each flag overrides one of its values."""
    space: Path
    """YAML file: dotted keys with {choice: [..]}, {float: [low, high], log: true} or {int: ..}."""
    max_trials: int
    """Maximum number of trainings."""
    output: Path
    """Folder for trials/, trials.json and, written last, best.yaml; must be empty or new."""
    oracle: Literal["random", "bayesian"] = "random"
    """Search algorithm: settings at random, or close to those with a high Dice."""
    seed: int = 0
    """Seed of the draws; the seed of each training is training.seed."""

    def run(self) -> None:
        """Searches, shows the trials and writes the best configuration."""
        if self.max_trials < 1:
            raise InputError(f"max_trials must be at least 1, got {self.max_trials}")
        space = SearchSpace.read(self.space)
        space.check(self.config)
        dataset = Dataset.open(self.data)
        check_dataset(dataset)
        check_each_organ(dataset, ignore_label=self.config.loss.ignore_label)
        if self.output.exists() and (not self.output.is_dir() or any(self.output.iterdir())):
            raise InputError(f"output must be a new or empty folder, got {self.output}")
        make_folder(self.output, argument="output")
        trials = self.search(space)
        Console().print(trials_table(trials))
        best = trials[0]
        if best.val_dice is None:
            raise SearchError(f"all {len(trials)} trials failed; the first: {best.error}")
        write_config(override(self.config, best.settings), self.output / BEST_CONFIG_FILE)
        logger.info(f"best: {_format(best.settings)}, written to {self.output / BEST_CONFIG_FILE}")

    def search(self, space: SearchSpace) -> list[Trial]:
        """Runs the trials; returns the best first, failed ones last.

        Raises:
            SearchStoppedError: If the process receives a SIGTERM, or a Ctrl-C during a training.
        """
        oracle = _ORACLES[self.oracle](
            objective=_OBJECTIVE,
            max_trials=self.max_trials,
            seed=self.seed,
            hyperparameters=space.hyperparameters(),
            max_consecutive_failed_trials=self.max_trials + 1,  # any number of failures is allowed
        )
        tuner = ConfigTuner(oracle, self.config, space, data=self.data, output=self.output)
        try:
            with _ending_on_sigterm():
                tuner.search(verbose=0)
        except _Stopped as stop:
            raise SearchStoppedError(
                stop.received,
                finished=len(tuner.finished),
                max_trials=self.max_trials,
                output=self.output,
            ) from stop
        return ranked(tuner.finished)


def ranked(trials: list[Trial]) -> list[Trial]:
    """Sorts trials, the best first and failed ones last."""
    return sorted(trials, key=lambda trial: (trial.val_dice is None, -(trial.val_dice or 0)))


def trials_table(trials: list[Trial]) -> Table:
    """Formats the trials as a table, in the order given."""
    table = Table("trial", *trials[0].settings, "val_dice", "seconds", title="Trials")
    for trial in trials:
        result = "failed" if trial.val_dice is None else f"{trial.val_dice:.4f}"
        shown = [json.dumps(value) for value in trial.settings.values()]
        table.add_row(trial.trial_id, *shown, result, f"{trial.seconds:.1f}")
    return table


@contextlib.contextmanager
def _ending_on_sigterm() -> Iterator[None]:
    """Ends the block with `_Stopped` on a SIGTERM, except a training, which stops by itself."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread receives signals
        return

    def end(*_: object) -> None:
        raise _Stopped(signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _format(settings: dict[str, Any]) -> str:
    return ", ".join(f"{key}={value}" for key, value in settings.items())


def main() -> None:
    """Runs the command line."""
    run_command(SearchCommand)


if __name__ == "__main__":
    main()
