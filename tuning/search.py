"""Searches for a configuration with high validation Dice: `python -m tuning.search --help`."""

from __future__ import annotations

import dataclasses
import gc
import json
import logging
import time
from pathlib import Path
from typing import Annotated, Any, Literal

import keras
import keras_tuner
import tyro
from rich.console import Console
from rich.table import Table

from fcnseg.command import run_command
from fcnseg.config import Config, override, write_config
from fcnseg.errors import FcnsegError, InputError, one_line
from fcnseg.training import TrainingStoppedError, check_dataset, train
from tuning.space import SearchSpace

BEST_CONFIG_FILE = "best.yaml"
"""Written last: a folder without it is not a finished search."""
TRIALS_FILE = "trials.json"
TRIALS_FOLDER = "trials"

_ORACLES = {
    "random": keras_tuner.oracles.RandomSearchOracle,
    "bayesian": keras_tuner.oracles.BayesianOptimizationOracle,
}
_OBJECTIVE = keras_tuner.Objective("val_dice", "max")

logger = logging.getLogger(__name__)


class SearchError(FcnsegError):
    """No trial of a search succeeded."""


@dataclasses.dataclass(frozen=True)
class Trial:
    """One training of a search.

    Attributes:
        trial_id: Also the name of its run folder.
        settings: What was tried, by dotted key.
        val_dice: Its best validation Dice, None if it failed.
        error: Why it failed.
        seconds: Wall time.
    """

    trial_id: str
    settings: dict[str, Any]
    val_dice: float | None
    error: str | None
    seconds: float


class SearchStoppedError(FcnsegError):
    """A search was stopped by a signal.

    Attributes:
        exit_status: What a shell reports of a process that the signal ended.
    """

    def __init__(self, stopped: TrainingStoppedError, output: Path) -> None:
        super().__init__(f"stopped by {stopped.received.name}; trials so far are in {output}")
        self.exit_status = stopped.exit_status


class ConfigTuner(keras_tuner.Tuner):
    """Trains one configuration after the other as its oracle draws them.

    Attributes:
        finished: The trials so far.
    """

    def __init__(
        self,
        oracle: keras_tuner.Oracle,
        base: Config,
        space: SearchSpace,
        *,
        data: Path,
        output: Path,
    ) -> None:
        super().__init__(oracle=oracle, directory=output, project_name="keras_tuner")
        self.base = base
        self.space = space
        self.data = data
        self.output = output
        self.finished: list[Trial] = []

    def run_trial(self, trial: Any, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Trains; one that fails, for lack of memory or whatever else, is a failed trial."""
        del args, kwargs
        settings = self.space.settings(trial.hyperparameters.values)
        logger.info(f"trial {trial.trial_id}: {_told(settings)}")
        started = time.perf_counter()
        val_dice, message = None, None
        try:
            config = override(self.base, settings)
            run_dir = self.output / TRIALS_FOLDER / trial.trial_id
            val_dice = train(config, self.data, run_dir).best_dice
        except TrainingStoppedError as error:
            raise keras_tuner.errors.FatalError(str(error)) from error
        except Exception as error:
            message = f"{type(error).__name__}: {one_line(error)}"
            logger.warning(f"trial {trial.trial_id} failed: {message}")
            raise keras_tuner.errors.FailedTrialError(message) from error
        finally:
            seconds = time.perf_counter() - started
            self.finished.append(Trial(trial.trial_id, settings, val_dice, message, seconds))
            keras.backend.clear_session()
            gc.collect()
        return {_OBJECTIVE.name: val_dice}


@dataclasses.dataclass(frozen=True)
class SearchCommand:
    """Trains with settings drawn from a search space and writes the best configuration found."""

    data: Path
    """Folder of records that pipelines.convert_ct wrote."""
    config: str
    """What is not searched: a YAML file, or the name of a preset."""
    space: Path
    """YAML file: dotted keys with {choice: [..]}, {float: [low, high], log: true} or {int: ..}."""
    max_trials: int
    """Trainings at most."""
    output: Path
    """Folder for trials/, trials.json and, last, best.yaml; must be empty or new."""
    oracle: Literal["random", "bayesian"] = "random"
    """Draws settings at random, or near those that did well."""
    seed: int = 0
    """Of the draws; the seed of each training is training.seed."""
    settings: Annotated[Config, tyro.conf.arg(name="")] = Config()
    """Each flag overrides one value of the configuration."""

    def run(self) -> None:
        """Searches, shows the trials and writes the best configuration."""
        if self.max_trials < 1:
            raise InputError(f"max_trials must be at least 1, got {self.max_trials}")
        space = SearchSpace.read(self.space)
        space.check(self.settings)
        check_dataset(self.data)
        if self.output.exists() and (not self.output.is_dir() or any(self.output.iterdir())):
            raise InputError(f"output must be a new or empty folder, got {self.output}")
        trials = self.search(space)
        Console().print(trials_table(trials))
        content = [dataclasses.asdict(trial) for trial in trials]
        (self.output / TRIALS_FILE).write_text(json.dumps(content, indent=2) + "\n")
        best = trials[0]
        if best.val_dice is None:
            raise SearchError(f"all {len(trials)} trials failed; the first: {best.error}")
        write_config(override(self.settings, best.settings), self.output / BEST_CONFIG_FILE)
        logger.info(f"best: {_told(best.settings)}, written to {self.output / BEST_CONFIG_FILE}")

    def search(self, space: SearchSpace) -> list[Trial]:
        """Runs the trials; the best comes first, those that failed last."""
        oracle = _ORACLES[self.oracle](
            objective=_OBJECTIVE,
            max_trials=self.max_trials,
            seed=self.seed,
            hyperparameters=space.hyperparameters(),
            max_consecutive_failed_trials=self.max_trials + 1,  # no number of failures is the end
        )
        tuner = ConfigTuner(oracle, self.settings, space, data=self.data, output=self.output)
        try:
            tuner.search(verbose=0)
        except keras_tuner.errors.FatalError as error:
            if isinstance(error.__cause__, TrainingStoppedError):
                raise SearchStoppedError(error.__cause__, self.output) from error
            raise
        return sorted(
            tuner.finished, key=lambda trial: (trial.val_dice is None, -(trial.val_dice or 0))
        )


def trials_table(trials: list[Trial]) -> Table:
    """The trials as a table, in the order given."""
    table = Table("trial", *trials[0].settings, "val_dice", "seconds", title="Trials")
    for trial in trials:
        result = "failed" if trial.val_dice is None else f"{trial.val_dice:.4f}"
        shown = [json.dumps(value) for value in trial.settings.values()]
        table.add_row(trial.trial_id, *shown, result, f"{trial.seconds:.1f}")
    return table


def _told(settings: dict[str, Any]) -> str:
    return ", ".join(f"{key}={value}" for key, value in settings.items())


def main() -> None:
    """The command line."""
    run_command(SearchCommand)


if __name__ == "__main__":
    main()
