"""What happens at the end of an epoch: validation on whole volumes, and keeping the best network."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from fcnseg.evaluation.scores import OrganScores, score_organs
from fcnseg.inference.segmenter import Segmenter


class Validation(keras.callbacks.Callback):
    """Segments whole volumes and adds `val_dice` and `val_dice_<organ>` to the epoch's logs.

    An organ's score is the mean of its Dice over the cases that have it, `val_dice` the mean over
    organs. In an epoch without validation all of them are NaN, so that each epoch has the same
    columns. The last epoch always validates.

    Attributes:
        seconds: Time that validation has taken so far.
    """

    def __init__(self, segmenter: Segmenter, volumes: tf.data.Dataset, *, every: int) -> None:
        """Makes the callback.

        Args:
            segmenter: Of the network in training.
            volumes: Records as `make_volume_dataset` gives them.
            every: Epochs from one validation to the next.
        """
        super().__init__()
        self.segmenter = segmenter
        self.volumes = volumes
        self.every = every
        self.seconds = 0.0

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Validates if it is time to, and completes the logs."""
        started = time.perf_counter()
        is_due = (epoch + 1) % self.every == 0 or epoch + 1 == self.params["epochs"]
        organs = self.segmenter.info.class_names[1:]
        dice = self.score() if is_due else dict.fromkeys(organs, math.nan)
        seen = [value for value in dice.values() if not math.isnan(value)]
        if logs is not None:
            logs["val_dice"] = sum(seen) / len(seen) if seen else math.nan
            logs.update({f"val_dice_{name}": value for name, value in dice.items()})
        self.seconds += time.perf_counter() - started

    def score(self) -> dict[str, float]:
        """Mean Dice over cases by organ; NaN for an organ that is in no truth and no mask."""
        names = self.segmenter.info.class_names
        cases = []
        for record in self.volumes:
            mask = self.segmenter.segment_model_grid(record["image"])
            truth = record["label"].numpy()
            cases.append(score_organs(truth, mask.numpy(), num_classes=len(names)))
        means = [OrganScores.mean(scores).dice for scores in zip(*cases, strict=True)]
        return {
            name: math.nan if dice is None else dice
            for name, dice in zip(names[1:], means, strict=True)
        }


class KeepBest(keras.callbacks.Callback):
    """Saves the network whenever `val_dice` is better than ever; the file is always a whole one.

    Attributes:
        best_dice: The best `val_dice` so far.
        best_epoch: Its epoch, from 1.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.best_dice = -math.inf
        self.best_epoch = 0

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Saves if this epoch is the best."""
        dice = (logs or {})["val_dice"]
        if not dice > self.best_dice:  # also where it is NaN
            return
        unfinished = self.path.with_name(f".unfinished-{self.path.name}")
        self.model.save(unfinished)
        unfinished.replace(self.path)
        self.best_dice, self.best_epoch = dice, epoch + 1
