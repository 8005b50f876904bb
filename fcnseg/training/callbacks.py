"""Callbacks at the end of an epoch: validation, keeping the best network, and the history."""

from __future__ import annotations

import csv
import io
import json
import math
import time
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from fcnseg.evaluation.scores import (
    OrganScores,
    dice_where_present,
    score_organs,
    without_ignored,
)
from fcnseg.inference.segmenter import Segmenter
from fcnseg.runs.archives import check_archive
from fcnseg.storage.whole_file import atomic_write, write_whole
from fcnseg.training.preemption import StopRequest

PRESENT_DICE = "val_present_dice_"
"""Prefix, in the logs of an epoch, of an organ's Dice over the cases that have it."""

_SCORE = "validation.json"

OnCase = Callable[[dict[str, tf.Tensor], npt.NDArray[np.uint8]], None]
"""Takes a record, as `decode_record` gives it, and its mask (z, y, x)."""


class Validation(keras.callbacks.Callback):
    """Segments complete volumes and adds `val_dice` and `val_dice_<organ>` to the epoch's logs.

    An organ's score is the mean of its Dice over the cases whose reference or mask has it, so that
    a false positive where there is no such organ counts as 0; `val_dice` is the mean over organs.
    An organ in no reference has NaN. The logs also have the mean over the cases whose reference has
    it, with the prefix `PRESENT_DICE`, which tells whether the organ is lost. The last epoch always
    validates. Voxels whose reference is the ignore label are background in reference and mask. With
    a loss of patches the logs have `val_loss` too.

    Attributes:
        columns: Columns of the Dice added to the logs: `val_dice`, then one per organ.
        seconds: Time spent on validation so far.
        ends_run: The present epoch is the last, whatever its number; the loop sets it.
    """

    def __init__(
        self,
        segmenter: Segmenter,
        volumes: tf.data.Dataset,
        *,
        every: int,
        stop: StopRequest,
        ignore_label: int | None = None,
        on_case: OnCase | None = None,
        loss: Callable[[], float] | None = None,
    ) -> None:
        """Makes the callback.

        Args:
            segmenter: Segmenter of the network in training.
            volumes: Records as `make_volume_dataset` gives them.
            every: Epochs from one validation to the next.
            stop: Stop request, checked after each case.
            ignore_label: Class index of voxels to ignore; None if all count.
            on_case: Called with each record and its mask (z, y, x).
            loss: Gives the loss of patches for the present weights.
        """
        super().__init__()
        self.segmenter = segmenter
        self.volumes = volumes
        self.every = every
        self.stop = stop
        self.ignore_label = ignore_label
        self.on_case = on_case
        self.loss = loss
        organs = segmenter.info.class_names[1:]
        self.columns = ["val_dice", *(f"val_dice_{organ}" for organ in organs)]
        self.seconds = 0.0
        self.ends_run = False

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Validates if it is due, and completes the logs."""
        started = time.perf_counter()
        if self.is_due(epoch):
            by_organ = self._score_cases()
            logs = {} if logs is None else logs
            logs.update(zip(self.columns, _means(by_organ), strict=True))
            for organ, scores in zip(self.segmenter.info.class_names[1:], by_organ, strict=True):
                logs[f"{PRESENT_DICE}{organ}"] = _nan_for_none(dice_where_present(scores))
            if self.loss is not None:
                logs["val_loss"] = self.loss()
        self.seconds += time.perf_counter() - started

    def is_due(self, epoch: int) -> bool:
        """Tells whether an epoch is validated."""
        is_last = self.ends_run or epoch + 1 == self.params["epochs"]
        return bool(is_last or (epoch + 1) % self.every == 0)

    def score(self) -> list[float]:
        """Computes the values of `columns` for the present weights.

        Raises:
            TrainingStoppedError: If the run was asked to stop.
        """
        return _means(self._score_cases())

    def _score_cases(self) -> list[tuple[OrganScores, ...]]:
        """The scores of each organ, of all cases."""
        cases = []
        for record in self.volumes:
            mask = self.segmenter.segment_model_grid(record["image"]).numpy()
            pair = without_ignored(record["label"].numpy(), mask, self.ignore_label)
            cases.append(score_organs(*pair, num_classes=len(self.columns)))
            if self.on_case is not None:
                self.on_case(record, mask)
            self.stop.check()
        return list(zip(*cases, strict=True))


def _means(by_organ: Sequence[Sequence[OrganScores]]) -> list[float]:
    """The mean Dice of all organs, then that of each."""
    organs = [OrganScores.mean(scores) for scores in by_organ]
    # Without recall no case has the organ: a voxel of it in a mask would make its Dice 0.
    organs = [OrganScores() if organ.recall is None else organ for organ in organs]
    return [_nan_for_none(score.dice) for score in (OrganScores.mean(organs), *organs)]


def _nan_for_none(value: float | None) -> float:
    return math.nan if value is None else value


class KeepBest(keras.callbacks.Callback):
    """Saves the network whenever `val_dice` improves; the file is always a complete one.

    The score is in the file, which is a ZIP archive, so that no crash separates the two: a resumed
    run has to exceed the score of the existing file.

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

    def resume(self) -> None:
        """Takes the score of the network that exists, if any.

        Raises:
            InputError: If its file is broken.
        """
        if self.path.exists():
            remedy = "delete it, and --resume keeps the best network of the epochs to come"
            check_archive(self.path, what="network", remedy=remedy)
            with zipfile.ZipFile(self.path) as archive:
                score = json.loads(archive.read(_SCORE))
            self.best_dice, self.best_epoch = score["dice"], score["epoch"]

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Saves if this epoch is the best."""
        dice = (logs or {}).get("val_dice", math.nan)
        if not dice > self.best_dice:  # also skips epochs that were not validated
            return
        with atomic_write(self.path) as unfinished:
            self.network.save(unfinished)
            with zipfile.ZipFile(unfinished, "a") as archive:
                archive.writestr(_SCORE, json.dumps({"dice": dice, "epoch": epoch + 1}))
        self.best_dice, self.best_epoch = dice, epoch + 1


class HistoryFile(keras.callbacks.Callback):
    """Writes each epoch's logs as a row of a CSV file; missing values stay empty.

    Keras's CSVLogger has only the columns of the first epoch, which may have no validation.

    Attributes:
        rows: The logs of each epoch so far; a resumed run sets them.
    """

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        super().__init__()
        self.path = path
        self.columns = ["epoch", *columns]
        self.rows: list[dict[str, float]] = []

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Writes the rows so far; those of epochs to be repeated are removed."""
        del logs
        self._write()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Adds a row."""
        del epoch  # given by the number of rows
        self.rows.append({name: float(value) for name, value in (logs or {}).items()})
        self._write()

    def _write(self) -> None:
        text = io.StringIO()
        writer = csv.DictWriter(text, self.columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows({"epoch": index + 1, **row} for index, row in enumerate(self.rows))
        write_whole(self.path, text.getvalue())
