"""The steps and epochs of a run, from wherever it stands.

Keras's `fit` begins with whole epochs only; a run that goes on begins where it was stopped.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
import math
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import keras
import tensorflow as tf

from fcnseg.config import TrainingConfig
from fcnseg.errors import FcnsegError
from fcnseg.training.callbacks import HistoryFile, KeepBest, Validation
from fcnseg.training.checkpoints import Checkpoints, RunProgress
from fcnseg.training.ema import WeightAverage
from fcnseg.training.execution import Steps, make_steps
from fcnseg.training.organs import LostOrgans
from fcnseg.training.preemption import StopRequest, TrainingStoppedError
from fcnseg.training.tensorboard import TensorBoardEvents

logger = logging.getLogger(__name__)


class LossError(FcnsegError, ArithmeticError):
    """The loss is not a finite number: nothing can be learnt any more."""


@dataclasses.dataclass
class TrainingLoop:
    """Trains a compiled model.

    Attributes:
        model: Compiled, with the state that `make_state` makes.
        make_patches: Gives the batches from a step on, as `make_training_dataset` does.
        settings: Epochs, steps and checkpoints.
        checkpoints: Of the model's variables.
        validation: Called first when an epoch ends,
        lost: then this,
        best: then this,
        history: then this,
        events: and then this, if there is one.
        average: Of the weights; it is what is validated and kept.
        stop: Looked at after each call that does steps; validation looks at it too.
        progress: How far the run has come.
    """

    model: keras.Model
    make_patches: Callable[..., tf.data.Dataset]
    settings: TrainingConfig
    checkpoints: Checkpoints
    validation: Validation
    lost: LostOrgans
    best: KeepBest
    history: HistoryFile
    events: TensorBoardEvents | None
    average: WeightAverage
    stop: StopRequest
    progress: RunProgress

    def resume(self) -> None:
        """Goes back to the checkpoint, if there is one."""
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
        logger.info(f"goes on after step {restored.step}")

    def run(self) -> None:
        """Trains to the end.

        Raises:
            TrainingStoppedError: If the run is told to stop; it has written a checkpoint.
            LossError: If the loss is not a finite number.
        """
        strategy = self.model.distribute_strategy
        patches = self.make_patches(start_step=self.progress.step)
        batches = iter(strategy.experimental_distribute_dataset(patches))
        callbacks = self._callbacks()
        with self.stop.listening():
            callbacks.on_train_begin()
            try:
                for epoch in range(len(self.progress.epochs), self.settings.epochs):
                    if self._has_lost_patience():
                        break
                    self._epoch(epoch, batches, callbacks)
            except TrainingStoppedError:
                self.checkpoints.save(self.progress)
                logger.info(f"wrote a checkpoint of step {self.progress.step}")
                raise
            callbacks.on_train_end()

    def _epoch(
        self, epoch: int, batches: Iterator[Any], callbacks: keras.callbacks.CallbackList
    ) -> None:
        steps = self.settings.steps_per_epoch
        if self.progress.step == epoch * steps:
            self.model.reset_metrics()
        callbacks.on_epoch_begin(epoch)
        while self.progress.step < (epoch + 1) * steps:
            self._steps(self.progress.step - epoch * steps, batches, callbacks)
        started = time.perf_counter()
        logs = floats_of(self.model.get_metrics_result())
        with self.average.applied():
            callbacks.on_epoch_end(epoch, logs)
        self._advance(started, epochs=tuple(self.history.rows))
        if self.validation.is_due(epoch):
            self.checkpoints.save(self.progress)

    def _steps(
        self, number: int, batches: Iterator[Any], callbacks: keras.callbacks.CallbackList
    ) -> None:
        """As many steps as one call may do, the first of that number in its epoch."""
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
        if self.progress.step % self.settings.checkpoint_every == 0:
            self.checkpoints.save(self.progress)

    @functools.cached_property
    def _do_steps(self) -> Steps:
        return make_steps(self.model, self.average, most=self.settings.steps_per_execution)

    def _check_loss(self, loss: float, *, step: int) -> None:
        """Ends the run at the step at which the mean of the epoch is no longer a number."""
        if math.isfinite(loss):
            return
        patches = self.make_patches(start_step=step - 1, with_case_ids=True)
        batch = patches.take(1).get_single_element()
        cases = [case_id.decode() for case_id in batch[-1].numpy()]
        raise LossError(f"the loss is {loss} at step {step}, of patches of {', '.join(cases)}")

    def _has_lost_patience(self) -> bool:
        since_best = self.progress.epochs[self.best.best_epoch :]
        validations = sum("val_dice" in logs for logs in since_best)
        return 0 < self.settings.patience <= validations

    def _advance(self, started: float, **changes: Any) -> None:
        self.progress = dataclasses.replace(
            self.progress,
            seconds=self.progress.seconds + time.perf_counter() - started,
            validation_seconds=self.validation.seconds,
            **changes,
        )

    def _callbacks(self) -> keras.callbacks.CallbackList:
        return keras.callbacks.CallbackList(
            # What one adds to the logs is seen by the next, and by the progress bar last.
            [self.validation, self.lost, self.best, self.history, *filter(None, [self.events])],
            add_progbar=True,
            model=self.model,
            epochs=self.settings.epochs,
            steps=self.settings.steps_per_epoch,
            verbose=1 if sys.stdout.isatty() else 2,  # the moving bar would fill a log file
        )


def floats_of(results: dict[str, Any]) -> dict[str, float]:
    """Results of metrics as plain numbers; those of one that gives several stand on their own."""
    logs: dict[str, float] = {}
    for name, value in results.items():
        logs |= floats_of(value) if isinstance(value, dict) else {name: float(value)}
    return logs
