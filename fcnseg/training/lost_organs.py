"""Organs that a run can learn, and organs that it is losing."""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

import keras

from fcnseg.config import Config, LossConfig, override
from fcnseg.config.sections import SETTINGS_OF_LOSS
from fcnseg.errors import ConfigError, DatasetError
from fcnseg.evaluation import LOST_DICE
from fcnseg.training.callbacks import PRESENT_DICE

logger = logging.getLogger(__name__)

FEW_CASES = 3
"""Training cases below which an organ is warned of: fewer cannot show how patients differ."""

_VALIDATIONS = 3  # validations in a row; batch norm's averages may spoil a single one
_LEARNT = 0.5  # mean of the organs that are found, above which more training is not the answer


@dataclasses.dataclass(frozen=True)
class TrainingOrgan:
    """An organ in the training cases.

    Attributes:
        name: Class name.
        cases: Cases that have a voxel of it.
        voxels: Its voxels in all of them.
    """

    name: str
    cases: int
    voxels: int

    def __str__(self) -> str:
        return f"{self.name} ({self.voxels} voxels in {self.cases} training cases)"


def count_organs(
    class_names: Sequence[str], class_voxels: Sequence[Sequence[int]]
) -> tuple[TrainingOrgan, ...]:
    """Counts the cases and voxels of each organ.

    Args:
        class_names: Class names in order, background first.
        class_voxels: For each training case, the voxels of each class.
    """
    return tuple(
        TrainingOrgan(name, sum(n[k] > 0 for n in class_voxels), sum(n[k] for n in class_voxels))
        for k, name in enumerate(class_names)
        if k > 0
    )


def check_organs(organs: Sequence[TrainingOrgan], *, source: str) -> None:
    """Checks that each organ can be learnt, and warns of those in few cases.

    Args:
        organs: Organs of the training cases.
        source: Description of the training cases, for the error.

    Raises:
        DatasetError: If an organ has no voxel; the message names all such organs.
    """
    missing = [organ.name for organ in organs if organ.voxels == 0]
    if missing:
        raise DatasetError(
            f"{source} have no voxel of {', '.join(missing)}: take the class out of the label map,"
            " or put cases that have it into the train split"
        )
    few = [organ for organ in organs if organ.cases < FEW_CASES]
    if few:
        logger.warning(f"organs in fewer than {FEW_CASES} cases: {', '.join(map(str, few))}")


class LostOrgans(keras.callbacks.Callback):
    """Warns of organs whose validation Dice stays at about 0 while others are learnt.

    An organ is lost if its Dice is below 0.05 in three validations in a row, the last included, and
    the mean Dice of the organs that are found, of 0.05 or more, is above 0.5 in the last. The Dice
    is that over the cases that have the organ: false positives in others do not count. Each is
    warned of once, and again if it was found in between. `lost_organs`, their number, is added to
    the logs of epochs with validation.

    Attributes:
        names: Organs that are lost at present.
        warned: Organs that have been warned of.
        rows: Logs of the epochs so far, as `Validation` completes them; a resumed run sets them.
    """

    def __init__(self, organs: Sequence[TrainingOrgan], config: Config) -> None:
        """Makes the callback.

        Args:
            organs: Organs of the training cases.
            config: Configuration of the run; the advice in the warning depends on it.
        """
        super().__init__()
        self.organs = organs
        self.advice = _advice(config)
        self.rows: list[dict[str, float]] = []
        self.names: tuple[str, ...] = ()
        self.warned: set[str] = set()
        self._not_found_since: set[str] = set()  # the warning

    def resume(self, rows: Sequence[Mapping[str, float]]) -> None:
        """Takes the logs of the finished epochs, whose warnings were given then."""
        for row in rows:
            self._add(row)

    def not_found_in(self, epoch: int) -> tuple[str, ...]:
        """Names the organs whose validation Dice was about 0 in an epoch, counted from 1."""
        row = self.rows[epoch - 1]
        return tuple(organ.name for organ in self.organs if _dice(row, organ.name) < LOST_DICE)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Warns if the epoch was validated and an organ is newly lost."""
        del epoch
        for organ in self._add(logs or {}):
            logger.warning(self._warning(organ))
        if logs is not None and "val_dice" in logs:
            logs["lost_organs"] = len(self.names)

    def warn_of_best(self, epoch: int) -> None:
        """Warns of organs that the best epoch did not find, unless they have been warned of.

        A run of fewer than three validations gives no other warning.

        Args:
            epoch: The best epoch, from 1.
        """
        names = set(self.not_found_in(epoch)) - self.warned
        if names:
            organs = ", ".join(str(organ) for organ in self.organs if organ.name in names)
            is_learnt = self._are_others_learnt(self.rows[epoch - 1])
            logger.warning(
                f"lost organs, of a validation Dice below {LOST_DICE} in epoch {epoch}, the best:"
                f" {organs}; try {self.advice if is_learnt else 'more training.epochs'}"
            )

    def _add(self, row: Mapping[str, float]) -> list[TrainingOrgan]:
        """Adds the logs of an epoch, and gives the organs that are newly lost."""
        self.rows.append(dict(row))
        if "val_dice" not in row:
            return []
        self.names = self._lost()
        self._not_found_since = {
            name for name in self._not_found_since if not _dice(row, name) >= LOST_DICE
        }
        names = set(self.names) - self._not_found_since
        self._not_found_since |= names
        self.warned |= names
        return [organ for organ in self.organs if organ.name in names]

    def _lost(self) -> tuple[str, ...]:
        validated = [row for row in self.rows if "val_dice" in row]
        if len(validated) < _VALIDATIONS:
            return ()
        return tuple(organ.name for organ in self.organs if self._is_lost(organ.name, validated))

    def _is_lost(self, name: str, validated: Sequence[Mapping[str, float]]) -> bool:
        recent = [_dice(row, name) for row in validated[-_VALIDATIONS:]]
        if not all(dice < LOST_DICE for dice in recent):  # NaN: in no validation case
            return False
        return self._are_others_learnt(validated[-1])

    def _are_others_learnt(self, row: Mapping[str, float]) -> bool:
        dices = [_dice(row, organ.name) for organ in self.organs]
        found = [dice for dice in dices if dice >= LOST_DICE]
        return bool(found) and sum(found) / len(found) > _LEARNT

    def _warning(self, organ: TrainingOrgan) -> str:
        best = max(_dice(row, organ.name) for row in self.rows if "val_dice" in row)
        fell = f" after {best:.2f}" if best >= LOST_DICE else ""
        return (
            f"losing {organ}: validation Dice below {LOST_DICE} in the last {_VALIDATIONS}"
            f" validations{fell}, while other organs are learnt; try {self.advice}"
        )


def _dice(row: Mapping[str, float], organ: str) -> float:
    """An organ's Dice over the validation cases that have it; earlier checkpoints have no such."""
    return row.get(f"{PRESENT_DICE}{organ}", row.get(f"val_dice_{organ}", math.nan))


def _advice(config: Config) -> str:
    """Names settings that help small organs and that the run can have, but does not."""
    balance = LossConfig().class_balance  # more is worse (docs/training.md)
    settings: dict[str, Any] = {}
    if "class_balance" not in SETTINGS_OF_LOSS[config.loss.name]:
        settings["loss.name"] = "dice_cross_entropy"
    elif config.loss.class_balance < balance:
        settings["loss.class_balance"] = balance
    if not config.model.deep_supervision:
        settings["model.deep_supervision"] = 1
    if not config.training.warmup:
        settings["training.warmup_steps"] = 50
    advice = [f"{key}={value}" for key, value in settings.items() if _takes(config, key, value)]
    advice.append(f"a training.learning_rate below {config.training.learning_rate:g}")
    if config.patches.foreground_fraction < 1:
        advice.append(f"a patches.foreground_fraction above {config.patches.foreground_fraction:g}")
    return ", ".join(advice)


def _takes(config: Config, key: str, value: Any) -> bool:
    """Tells whether a configuration is valid with a setting changed."""
    try:
        override(config, {key: value})
    except ConfigError:
        return False
    return True
