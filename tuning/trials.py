"""The trials of a search, and the files that hold them."""

from __future__ import annotations

import dataclasses
import datetime
import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import pydantic

from fcnseg.config import Config, config_to_mapping
from fcnseg.errors import InputError, first_finding
from fcnseg.runs.run_folder import check_same
from fcnseg.storage.whole_file import make_folder, write_whole

SEARCH_FILE = "search.json"
"""The file of the settings that the search began with."""
TRIALS_FILE = "trials.json"
"""All trials so far, in the order in which they began; written whenever one begins or ends."""
BEST_CONFIG_FILE = "best.yaml"
"""Written last: a folder without it is not a finished search."""
TRIALS_FOLDER = "trials"
"""The run folder of each trial."""
OUTCOMES_FOLDER = "outcomes"
"""A file for each trial that has ended, written by its worker."""
LOGS_FOLDER = "logs"
"""The output of each trial's process."""
DEVICES_FILE = "devices.json"
"""The number of devices that each trial has."""
WORKERS_FOLDER = "workers"
"""A file for each worker on other machines, whose time is that of its last sign of life."""

Status = Literal["running", "completed", "failed"]

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The outcome of a trial, as a worker found it.

    Attributes:
        objective: Value of the objective, for the best network so far; None if the trial failed.
        val_dice: Mean validation Dice of that network.
        best_epoch: Epoch after which it was kept, from 1.
        error: Reason of a failure.
        is_by_settings: True if the settings are the reason: they break a rule, need too much
            memory, or lead to a value that is not a number.
        peak_bytes: Most memory that the trial's process has used; None where unknown.
        seconds: Wall time of the trial's process.
        training_seconds: Wall time of training and validation within it.
        training_cpu_seconds: CPU seconds of training and validation.
    """

    objective: float | None
    val_dice: float | None = None
    best_epoch: int = 0
    error: str | None = None
    is_by_settings: bool = False
    peak_bytes: int | None = None
    seconds: float = 0.0
    training_seconds: float = 0.0
    training_cpu_seconds: float = 0.0

    @classmethod
    def read(cls, path: Path) -> Outcome | None:
        """Reads the file of a trial that has ended; None if it has not."""
        return _read(path, cls) if path.exists() else None

    def write(self, path: Path) -> None:
        """Writes the file."""
        write_whole(path, _to_json(self))


@dataclasses.dataclass(frozen=True)
class Trial:
    """A training of a search, or in Hyperband one rung of it.

    Attributes:
        trial_id: The number of its run folder, and behind a dot that of its rung above the first.
        settings: Settings that differ from the base configuration, by dotted key.
        drawn: The same as the tuner has them; None for a base configuration outside the space.
        until_epoch: Epoch after which the trial ends.
        bracket: Number of its bracket in Hyperband.
        rung: Number of its rung in the bracket, from 0.
        status: State of the trial.
        began: Start time, UTC, ISO 8601.
        ended: End time.
        worker: Worker that runs it.
        outcome: What came out.
    """

    trial_id: str
    settings: dict[str, Any]
    drawn: dict[str, Any] | None
    until_epoch: int
    bracket: int | None = None
    rung: int = 0
    status: Status = "running"
    began: str = ""
    ended: str | None = None
    worker: str = ""
    outcome: Outcome | None = None

    @property
    def root(self) -> str:
        """The name of its run folder, which all its rungs share."""
        return self.trial_id.partition(".")[0]

    @property
    def objective(self) -> float | None:
        """Value of the objective; None if the trial failed or has not ended."""
        return None if self.outcome is None else self.outcome.objective

    def begun_by(self, worker: str) -> Trial:
        """The trial as it begins on a worker, or is run again."""
        return dataclasses.replace(
            self, status="running", began=now(), ended=None, worker=worker, outcome=None
        )

    def ended_with(self, outcome: Outcome) -> Trial:
        """The trial with what came out."""
        status: Status = "failed" if outcome.objective is None else "completed"
        return dataclasses.replace(self, status=status, ended=now(), outcome=outcome)


@dataclasses.dataclass(frozen=True)
class Search:
    """The settings that a search began with, which a resumed one must have too.

    Attributes:
        tuner: Name of the tuner.
        objective: Name of the objective.
        seed: Seed of the draws.
        space: The search space, by dotted key.
        config: The base configuration.
        data: Folder of the records.
        data_digest: SHA-256 of their manifest.
        max_trials: Most settings of Hyperband, whose brackets depend on it.
    """

    tuner: str
    objective: str
    seed: int
    space: dict[str, Any]
    config: Config
    data: str
    data_digest: str
    max_trials: int | None = None

    @classmethod
    def read(cls, folder: Path) -> Search:
        """Reads the file of a search.

        Raises:
            InputError: If there is none, or it is broken.
        """
        path = folder / SEARCH_FILE
        if not path.exists():
            raise InputError(f"no search in {folder}: {SEARCH_FILE} is missing")
        return _read(path, cls)

    def begin_or_resume(self, folder: Path) -> None:
        """Writes the file into a new folder, or compares it with that of the search in there.

        Raises:
            InputError: If the folder has other files, or the search in there began with something
                else; the message names the difference.
        """
        make_folder(folder, argument="output")
        path = folder / SEARCH_FILE
        if path.exists():
            check_same(
                Search.read(folder)._identity(), self._identity(), what=f"the search in {folder}"
            )
        elif any(not found.name.startswith(".") for found in folder.iterdir()):
            raise InputError(f"output must be a new or empty folder, or a search, got {folder}")
        else:
            write_whole(path, _to_json(self))  # first: only with it is the folder that of a search
        for name in (TRIALS_FOLDER, OUTCOMES_FOLDER, LOGS_FOLDER):
            make_folder(folder / name, argument="output")

    def _identity(self) -> dict[str, Any]:
        """The settings that have to stay; a copy of the records elsewhere is the same data."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        del fields["data"]
        order = ", ".join(self.space)  # each key takes the next draw
        return fields | {"config": config_to_mapping(self.config), "order of keys": order}


@dataclasses.dataclass(frozen=True)
class Progress:
    """The trials so far.

    Attributes:
        trials: The trials, in the order in which they began.
        seconds: Wall time of the search, without the time that it was stopped.
        ended: Reason for which the search is over; None while it is not.
    """

    trials: tuple[Trial, ...] = ()
    seconds: float = 0.0
    ended: str | None = None

    @classmethod
    def read(cls, folder: Path) -> Progress:
        """Reads the trials of a search; none if none has begun.

        Raises:
            InputError: If the file is broken.
        """
        path = folder / TRIALS_FILE
        return _read(path, cls) if path.exists() else cls()

    def write(self, folder: Path) -> None:
        """Writes the file atomically."""
        write_whole(folder / TRIALS_FILE, _to_json(self))


def ranked(trials: Sequence[Trial]) -> list[Trial]:
    """Sorts trials that have ended: the best first, failed ones last."""
    ended = [trial for trial in trials if trial.outcome is not None]
    return sorted(
        ended,
        key=lambda trial: math.inf if trial.objective is None else -trial.objective,
    )


def best_trial(trials: Sequence[Trial], *, epochs: int) -> Trial | None:
    """Finds the best of the trials that have trained to the end; None if there is none.

    Args:
        trials: Trials of a search.
        epochs: Epochs of a complete training.
    """
    complete = [trial for trial in ranked(trials) if trial.until_epoch >= epochs]
    return complete[0] if complete and complete[0].objective is not None else None


def format_settings(settings: Mapping[str, Any]) -> str:
    """Formats settings as one line."""
    formatted = (f"{key}={format_value(value)}" for key, value in settings.items())
    return ", ".join(formatted) or "base configuration"


def format_value(value: object) -> str:
    """Formats the value of a setting for people; files have all its digits.

    >>> format_value(0.0123456), format_value([2, 4])
    ('0.01235', '[2, 4]')
    """
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def outcome_file(folder: Path, trial_id: str) -> Path:
    """The file of a trial that has ended."""
    return folder / OUTCOMES_FOLDER / f"{trial_id}.json"


def begun_file(folder: Path, trial_id: str) -> Path:
    """The file of a trial that has begun and not ended."""
    return folder / OUTCOMES_FOLDER / f"{trial_id}.begun"


def now() -> str:
    """The time, UTC, ISO 8601."""
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")


def _read(path: Path, kind: Any) -> Any:
    try:
        return pydantic.TypeAdapter(kind).validate_json(path.read_bytes())
    except pydantic.ValidationError as error:
        raise InputError(f"{path} is incomplete or corrupt: {first_finding(error)}") from error


def _to_json(value: Any) -> str:
    return pydantic.TypeAdapter(type(value)).dump_json(value, indent=2).decode() + "\n"
