"""Checkpoints: one file with all that a run needs to resume as if it had never stopped.

A checkpoint replaces the last one atomically. Of a mirrored variable each replica's value is kept:
batch norm's moving means may differ between them, and sums of metrics always do.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from fcnseg.errors import InputError, one_line
from fcnseg.runs.archives import check_archive
from fcnseg.runs.run_folder import check_same
from fcnseg.storage.whole_file import atomic_write

_PROGRESS = "progress"
# What is true of checkpoints that do not say it.
_EARLIER = {"keras": 3}


@dataclasses.dataclass(frozen=True)
class RunProgress:
    """Progress of a run, besides its variables.

    The position in the data follows from `step`, since a batch follows from the seed and its
    number.

    Attributes:
        started: Start time, UTC, ISO 8601.
        step: Number of finished steps.
        epochs: The logs of each finished epoch.
        seconds: Wall time so far, without the time that the run was stopped.
        validation_seconds: Wall time of validation within it.
    """

    started: str
    step: int = 0
    epochs: tuple[dict[str, float], ...] = ()
    seconds: float = 0.0
    validation_seconds: float = 0.0


@dataclasses.dataclass(frozen=True)
class Checkpoints:
    """The checkpoint of a run.

    Attributes:
        path: The file.
        variables: All variables that training changes, always in the same order.
        strategy: Strategy in whose scope the variables were created.
        identity: Settings that must be the same when the run is resumed, by name.
    """

    path: Path
    variables: Sequence[tf.Variable]
    strategy: tf.distribute.Strategy
    identity: dict[str, Any]

    def save(self, progress: RunProgress) -> None:
        """Saves variables and progress atomically."""
        content = json.dumps({"identity": self.identity, "run": dataclasses.asdict(progress)})
        arrays: dict[str, Any] = {_PROGRESS: np.array(content)}
        for index, variable in enumerate(self.variables):
            for replica, part in enumerate(self._parts(variable)):
                arrays[f"{index}_{replica}"] = part.numpy()
        with atomic_write(self.path) as unfinished:
            np.savez(unfinished, **arrays)

    def restore(self) -> RunProgress | None:
        """Restores the variables.

        Returns:
            The progress of the run; None if there is no checkpoint yet.

        Raises:
            InputError: If the checkpoint is broken, or of another run.
        """
        if not self.path.exists():
            return None
        remedy = "delete it, and --resume begins the run again"
        check_archive(self.path, what="checkpoint", remedy=remedy)
        try:
            # Opened here: numpy leaves a broken archive open.
            with self.path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                content = json.loads(arrays[_PROGRESS].item())
                run = f"the run in {self.path.parent}"
                check_same(self._with_earlier(content["identity"]), self.identity, what=run)
                self._assign(arrays)
        except InputError:
            raise
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"incomplete or corrupt checkpoint: {self.path}: {one_line(error)}; {remedy}"
            ) from error
        progress = content["run"]
        return RunProgress(**{**progress, "epochs": tuple(progress["epochs"])})

    def _with_earlier(self, identity: dict[str, Any]) -> dict[str, Any]:
        earlier = {name: value for name, value in _EARLIER.items() if name in self.identity}
        return {**earlier, **identity}

    def _assign(self, arrays: Any) -> None:
        for index, variable in enumerate(self.variables):
            for replica, part in enumerate(self._parts(variable)):
                part.assign(arrays[f"{index}_{replica}"])

    def _parts(self, variable: tf.Variable) -> tuple[tf.Variable, ...]:
        """A variable's copy on each replica."""
        parts: tuple[tf.Variable, ...] = self.strategy.experimental_local_results(variable)
        return parts
