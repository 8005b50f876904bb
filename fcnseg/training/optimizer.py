"""Optimizers and their learning-rate schedules."""

from __future__ import annotations

import math
from typing import Any

import keras
import tensorflow as tf

from fcnseg.config import TrainingConfig
from fcnseg.networks.addons import find_class, is_of_addons

_LAMB_EPSILON = 1e-6  # You et al. 2020 and tensorflow-addons; Keras has 1e-7


def build_optimizer(settings: TrainingConfig) -> keras.optimizers.Optimizer:
    """Builds the optimizer that a configuration names, with its schedule and wrapper.

    Raises:
        ConfigError: If this line of Keras has no such optimizer or wrapper.
    """
    options: dict[str, Any] = {}
    if settings.optimizer == "adamw":
        options = {"weight_decay": settings.weight_decay}
    if settings.optimizer == "sgd":
        options = {"momentum": settings.momentum, "nesterov": True}
    if settings.optimizer == "lamb":
        options = {"epsilon": _LAMB_EPSILON}
    optimizer, wrapper = optimizer_classes(settings)
    optimizer = optimizer(make_schedule(settings), **options)
    if wrapper is not None:
        optimizer = wrapper(optimizer, **_wrapper_options(settings))
    if settings.precision == "mixed_float16":
        optimizer = keras.mixed_precision.LossScaleOptimizer(optimizer)
    return optimizer


def optimizer_classes(settings: TrainingConfig) -> tuple[Any, Any]:
    """Finds the classes of the optimizer and of its wrapper, None if there is none.

    Raises:
        ConfigError: If this line of Keras does not have them.
    """
    name = settings.optimizer_wrapper
    wrapper = None if name == "none" else find_class("training.optimizer_wrapper", name)
    if not is_wrapped(settings):
        wrapper = None
    optimizer = find_class("training.optimizer", settings.optimizer, wrapped=wrapper is not None)
    return optimizer, wrapper


def is_wrapped(settings: TrainingConfig) -> bool:
    """Tells whether a wrapper of tensorflow-addons is around the optimizer."""
    name = settings.optimizer_wrapper
    return name != "none" and is_of_addons("training.optimizer_wrapper", name)


def keeps_average(settings: TrainingConfig) -> bool:
    """Tells whether a wrapper of tensorflow-addons keeps an average of the weights."""
    return is_wrapped(settings) and settings.optimizer_wrapper != "lookahead"


def restart_slots(model: keras.Model, settings: TrainingConfig) -> None:
    """Sets the slow or average weights of a wrapper, if any, to the model's present weights."""
    if is_wrapped(settings):
        name = "average" if keeps_average(settings) else "slow"
        for weight in model.trainable_weights:
            model.optimizer.get_slot(weight, name).assign(weight)


def first_average_step(settings: TrainingConfig) -> int:
    """Number, from 1, of the step after which a wrapper first has an average of the weights."""
    return first_swa_step(settings) if settings.optimizer_wrapper == "swa" else 1


def first_swa_step(settings: TrainingConfig) -> int:
    """Number, from 1, of the step after which swa first averages: the last of an epoch."""
    epoch = max(1, math.ceil(settings.swa_start * settings.epochs))
    return epoch * settings.steps_per_epoch


def _wrapper_options(settings: TrainingConfig) -> dict[str, Any]:
    if settings.optimizer_wrapper == "lookahead":
        return {"sync_period": settings.lookahead_steps}
    if settings.optimizer_wrapper == "swa":
        first = first_swa_step(settings) - 1  # it counts the steps before
        return {"start_averaging": first, "average_period": settings.steps_per_epoch}
    return {"average_decay": settings.ema_decay, "dynamic_decay": True}


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
