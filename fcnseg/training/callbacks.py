"""What happens when an epoch ends: validation, keeping the best network, and a row of history."""

from __future__ import annotations

import csv
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from fcnseg.evaluation.scores import OrganScores, score_organs
from fcnseg.inference.segmenter import Segmenter
from fcnseg.whole_file import written_whole


class Validation(keras.callbacks.Callback):
    """Segments whole volumes and adds `val_dice` and `val_dice_<organ>` to the epoch's logs.

    An organ's score is the mean of its Dice over the cases that have it, `val_dice` the mean over
    organs; what no truth and no mask has is NaN. The last epoch always validates.

    Attributes:
        columns: What it adds to the logs: `val_dice`, then one an organ.
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
        organs = segmenter.info.class_names[1:]
        self.columns = ["val_dice", *(f"val_dice_{organ}" for organ in organs)]
        self.seconds = 0.0

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Validates if it is time to, and completes the logs."""
        started = time.perf_counter()
        if (epoch + 1) % self.every == 0 or epoch + 1 == self.params["epochs"]:
            scores = self.score()
            if logs is not None:
                logs.update(zip(self.columns, scores, strict=True))
        self.seconds += time.perf_counter() - started

    def score(self) -> list[float]:
        """The values of `columns` for the network as it is."""
        cases = []
        for record in self.volumes:
            mask = self.segmenter.segment_model_grid(record["image"])
            truth = record["label"].numpy()
            cases.append(score_organs(truth, mask.numpy(), num_classes=len(self.columns)))
        organs = [OrganScores.mean(scores) for scores in zip(*cases, strict=True)]
        scores = [OrganScores.mean(organs), *organs]
        return [math.nan if score.dice is None else score.dice for score in scores]


class KeepBest(keras.callbacks.Callback):
    """Saves the network whenever `val_dice` is better than ever; the file is always a whole one.

    Attributes:
        best_dice: The best `val_dice` so far.
        best_epoch: Its epoch, from 1.
    """

    def __init__(self, path: Path, network: keras.Model) -> None:
        """Makes the callback.

        Args:
            path: The file.
            network: The part of the model in training that predicts.
        """
        super().__init__()
        self.path = path
        self.network = network
        self.best_dice = -math.inf
        self.best_epoch = 0

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Saves if this epoch is the best."""
        dice = (logs or {}).get("val_dice", math.nan)
        if not dice > self.best_dice:  # nor if this epoch was not validated
            return
        with written_whole(self.path) as unfinished:
            self.network.save(unfinished)
        self.best_dice, self.best_epoch = dice, epoch + 1


class HistoryFile(keras.callbacks.Callback):
    """Writes each epoch's logs as a row of a CSV file; what an epoch does not have stays empty.

    Keras's CSVLogger knows only the columns of the first epoch, which may have no validation.
    """

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        super().__init__()
        self.path = path
        self.columns = ["epoch", *columns]

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Writes the names of the columns."""
        del logs
        self._write(dict(zip(self.columns, self.columns, strict=True)), mode="w")

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Adds the row."""
        self._write({"epoch": epoch + 1, **(logs or {})}, mode="a")

    def _write(self, row: dict[str, Any], *, mode: str) -> None:
        with open(self.path, mode, newline="", encoding="utf-8") as file:
            csv.DictWriter(file, self.columns, extrasaction="ignore").writerow(row)
