"""Optimizers and their learning-rate schedules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from fcnseg.config import TrainingConfig

_OPTIMIZERS: dict[str, Callable[..., keras.optimizers.Optimizer]] = {
    "adam": keras.optimizers.Adam,
    "adamw": keras.optimizers.AdamW,
    "sgd": keras.optimizers.SGD,
}


def build_optimizer(settings: TrainingConfig) -> keras.optimizers.Optimizer:
    """Builds the optimizer that a configuration names, with its schedule."""
    options: dict[str, Any] = {}
    if settings.optimizer == "adamw":
        options = {"weight_decay": settings.weight_decay}
    if settings.optimizer == "sgd":
        options = {"momentum": settings.momentum, "nesterov": True}
    optimizer = _OPTIMIZERS[settings.optimizer](make_schedule(settings), **options)
    if settings.precision == "mixed_float16":
        optimizer = keras.mixed_precision.LossScaleOptimizer(optimizer)
    return optimizer


def make_schedule(
    settings: TrainingConfig,
) -> float | keras.optimizers.schedules.LearningRateSchedule:
    """Makes the learning-rate schedule: warm-up, then the named schedule to the end of the run."""
    steps = settings.epochs * settings.steps_per_epoch - settings.warmup
    schedules = keras.optimizers.schedules
    rate = settings.learning_rate
    schedule: Any = rate
    if settings.schedule == "cosine":
        schedule = schedules.CosineDecay(rate, steps)
    elif settings.schedule == "poly":
        schedule = schedules.PolynomialDecay(rate, steps, 0.0, power=settings.poly_power)
    elif settings.schedule == "step":
        first = [round(part * steps) for part in settings.milestones]
        # Keras takes the last step of each rate, not the first. In a short run intervals may be
        # empty, or milestones the same.
        last = sorted({step - 1 for step in first if step > 0})
        lowered = [sum(step <= begin for step in first) for begin in (0, *(n + 1 for n in last))]
        rates = [rate * settings.gamma**count for count in lowered]
        schedule = schedules.PiecewiseConstantDecay(last, rates) if last else rates[0]
    return WarmUp(schedule, settings.warmup) if settings.warmup else schedule


@keras.saving.register_keras_serializable(package="fcnseg")
class WarmUp(keras.optimizers.schedules.LearningRateSchedule):
    """Linear warm-up of the learning rate, followed by another schedule.

    Args:
        schedule: The schedule that follows; a number for a constant rate.
        steps: Number of warm-up steps; the first has 1 / `steps` of the rate.
    """

    def __init__(
        self, schedule: float | keras.optimizers.schedules.LearningRateSchedule, steps: int
    ) -> None:
        super().__init__()
        self.schedule = schedule
        self.steps = steps

    def __call__(self, step: Any) -> tf.Tensor:
        """Gives the rate at a step."""
        step = tf.cast(step, tf.float32)
        rising = self._then(tf.constant(0.0)) * (step + 1) / self.steps
        after = self._then(tf.maximum(step - self.steps, 0))
        return tf.where(step < self.steps, rising, after)

    def get_config(self) -> dict[str, Any]:
        """The arguments."""
        schedule = self.schedule
        if callable(schedule):
            schedule = keras.saving.serialize_keras_object(schedule)
        return {"schedule": schedule, "steps": self.steps}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> WarmUp:
        """Builds it from its arguments."""
        schedule = config["schedule"]
        if isinstance(schedule, dict):
            schedule = keras.saving.deserialize_keras_object(schedule)
        return cls(schedule, config["steps"])

    def _then(self, step: tf.Tensor) -> tf.Tensor:
        rate = self.schedule(step) if callable(self.schedule) else self.schedule
        return tf.convert_to_tensor(rate, tf.float32)
