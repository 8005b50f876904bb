"""The steps and epochs of a run, from its present state.

Keras's `fit` starts only with complete epochs; a resumed run starts at the step where it was
stopped.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import keras
import tensorflow as tf

from fcnseg.config import TrainingConfig
from fcnseg.errors import FcnsegError
from fcnseg.training.callbacks import HistoryFile, KeepBest, Validation
from fcnseg.training.checkpoints import Checkpoints, RunProgress
from fcnseg.training.ema import Average
from fcnseg.training.epoch_line import EpochLine
from fcnseg.training.lost_organs import LostOrgans
from fcnseg.training.preemption import StopRequest, TrainingStoppedError
from fcnseg.training.step import Steps, TrainingStep, make_steps
from fcnseg.training.strategy import distributed
from fcnseg.training.tensorboard import TensorBoardEvents

logger = logging.getLogger(__name__)


class LossError(FcnsegError, ArithmeticError):
    """The loss is not a finite number: training cannot continue."""


@dataclasses.dataclass
class TrainingLoop:
    """Trains a compiled model.

    Attributes:
        step: The training step, with the model.
        make_patches: Makes the batches from a step on, as `make_training_dataset` does.
        settings: Epochs, steps and checkpoints.
        checkpoints: Checkpoints of the model's variables.
        validation: Validation, the first callback at the end of an epoch.
        lost: Warnings of lost organs, the second callback.
        best: Saving of the best network, the third callback.
        history: History file, the fourth callback.
        events: TensorBoard events, the last callback; None for none.
        average: Average of the weights, which is validated and saved.
        stop: Stop request, checked after each call that runs steps, and during validation.
        progress: Progress of the run.
    """

    step: TrainingStep
    make_patches: Callable[..., tf.data.Dataset]
    settings: TrainingConfig
    checkpoints: Checkpoints
    validation: Validation
    lost: LostOrgans
    best: KeepBest
    history: HistoryFile
    events: TensorBoardEvents | None
    average: Average
    stop: StopRequest
    progress: RunProgress

    @property
    def model(self) -> keras.Model:
        """The compiled model."""
        return self.step.model

    def resume(self) -> None:
        """Restores the checkpoint, if there is one."""
        restored = self.checkpoints.restore()
        if restored is None:
            return
        self.progress = restored
        self.best.resume()
        self.history.rows = list(restored.epochs)
        self.lost.resume(restored.epochs)
        if self.events is not None:
            self.events.epochs = len(restored.epochs)
        self.validation.seconds = restored.validation_seconds
        logger.info(f"resumes after step {restored.step}")

    def run(self, *, until_epoch: int | None = None) -> None:
        """Trains to the end, or to an epoch, with a checkpoint there.

        Args:
            until_epoch: Epoch to stop after, from 1.

        Raises:
            TrainingStoppedError: If the run was asked to stop; it has written a checkpoint.
            LossError: If the loss is not a finite number.
        """
        strategy = self.model.distribute_strategy
        patches = self.make_patches(start_step=self.progress.step)
        batches = distributed(patches, strategy)
        line = EpochLine()
        callbacks = self._callbacks(line)
        with self.stop.listening(), contextlib.closing(line):
            callbacks.on_train_begin()
            try:
                for epoch in range(len(self.progress.epochs), until_epoch or self.settings.epochs):
                    if self.is_finished():
                        break
                    self._epoch(epoch, batches, callbacks)
                self._save_unvalidated()
            except TrainingStoppedError:
                self.checkpoints.save(self.progress)
                logger.info(f"wrote a checkpoint of step {self.progress.step}")
                raise
            callbacks.on_train_end()

    def is_finished(self) -> bool:
        """Tells whether the run has trained all its epochs, or lost its patience or its time."""
        has_all = len(self.progress.epochs) >= self.settings.epochs
        is_late = self._is_out_of_time() and self._is_validated()
        return has_all or self._has_lost_patience() or is_late

    def _save_unvalidated(self) -> None:
        """Writes the checkpoint of a stop between two validations."""
        epochs = len(self.progress.epochs)
        if epochs and not self.is_finished() and not self.validation.is_due(epochs - 1):
            self.checkpoints.save(self.progress)

    def _epoch(
        self, epoch: int, batches: Iterator[Any], callbacks: keras.callbacks.CallbackList
    ) -> None:
        steps = self.settings.steps_per_epoch
        if self.progress.step == epoch * steps:
            self.model.reset_metrics()
        callbacks.on_epoch_begin(epoch)
        while self.progress.step < (epoch + 1) * steps:
            self.run_steps(self.progress.step - epoch * steps, batches, callbacks)
        self.validation.ends_run = self._is_out_of_time()
        is_limited = self.settings.time_limit_hours > 0
        if is_limited and self.validation.is_due(epoch) and not self._is_checkpoint_due():
            # Steps that are repeated may be faster or slower: without it the time could be over in
            # another epoch than that of the best network.
            self.checkpoints.save(self.progress)
        started = time.perf_counter()
        logs = floats_of(self.model.get_metrics_result())
        with self.average.applied():
            callbacks.on_epoch_end(epoch, logs)
        self._advance(started, epochs=tuple(self.history.rows))
        if self.validation.is_due(epoch):
            self.checkpoints.save(self.progress)

    def run_steps(
        self, number: int, batches: Iterator[Any], callbacks: keras.callbacks.CallbackList
    ) -> None:
        """Runs the steps of one call of TensorFlow.

        Args:
            number: Number of the first within its epoch, from 0.
            batches: The batches, distributed over the devices.
            callbacks: Callbacks that see the last step.

        Raises:
            TrainingStoppedError: If the run was asked to stop.
            LossError: If the loss is not a finite number.
        """
        started = time.perf_counter()
        callbacks.on_train_batch_begin(number)
        count = min(
            self.settings.steps_per_execution,
            self.settings.steps_per_epoch - number,
            self.settings.checkpoint_every - self.progress.step % self.settings.checkpoint_every,
        )
        logs, done = self._do_steps(batches, self.progress.step + 1, count)
        self._check_loss(float(logs["loss"]), step=self.progress.step + done)
        callbacks.on_train_batch_end(number + done - 1, logs)
        self._advance(started, step=self.progress.step + done)
        self.stop.check()
        if self._is_checkpoint_due():
            self.checkpoints.save(self.progress)

    @functools.cached_property
    def _do_steps(self) -> Steps:
        return make_steps(self.step, self.average)

    def _is_checkpoint_due(self) -> bool:
        """Tells whether `run_steps` writes a checkpoint after the last step."""
        return self.progress.step % self.settings.checkpoint_every == 0

    def _check_loss(self, loss: float, *, step: int) -> None:
        """Ends the run at the step at which the mean of the epoch is no longer finite."""
        if math.isfinite(loss):
            return
        patches = self.make_patches(start_step=step - 1, with_case_ids=True)
        _, case_ids = patches.take(1).get_single_element()
        cases = [case_id.decode() for case_id in case_ids.numpy()]
        raise LossError(f"the loss is {loss} at step {step}, of patches of {', '.join(cases)}")

    def _has_lost_patience(self) -> bool:
        if not self.best.best_epoch:  # there is none yet, or its file was deleted
            return False
        since_best = self.progress.epochs[self.best.best_epoch :]
        validations = sum("val_dice" in logs for logs in since_best)
        return 0 < self.settings.patience <= validations

    def _is_out_of_time(self) -> bool:
        return 0 < self.settings.time_limit_hours * 3600 <= self.progress.seconds

    def _is_validated(self) -> bool:
        """Tells whether the last step ended an epoch that was validated."""
        epochs = self.progress.epochs
        ends_epoch = self.progress.step == len(epochs) * self.settings.steps_per_epoch
        return bool(epochs) and ends_epoch and "val_dice" in epochs[-1]

    def _advance(self, started: float, **changes: Any) -> None:
        self.progress = dataclasses.replace(
            self.progress,
            seconds=self.progress.seconds + time.perf_counter() - started,
            validation_seconds=self.validation.seconds,
            **changes,
        )

    def _callbacks(self, line: EpochLine) -> keras.callbacks.CallbackList:
        events = [] if self.events is None else [self.events]
        return keras.callbacks.CallbackList(
            # Each sees what the ones before add to the logs.
            [self.validation, self.lost, self.best, self.history, *events, line],
            model=self.model,
            epochs=self.settings.epochs,
            steps=self.settings.steps_per_epoch,
        )


def floats_of(results: dict[str, Any]) -> dict[str, float]:
    """Converts results of metrics to plain numbers; a metric with several gives several."""
    logs: dict[str, float] = {}
    for name, value in results.items():
        logs |= floats_of(value) if isinstance(value, dict) else {name: float(value)}
    return logs
