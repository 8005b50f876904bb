"""A network with its optimizer, loss and metric, and all variables that training changes."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Sequence

import keras
import tensorflow as tf

from fcnseg.config import Config
from fcnseg.losses import OrganDice, build_loss, level_weights
from fcnseg.networks.build import build_fcn
from fcnseg.networks.keras_compat import (
    build_optimizer_state,
    optimizer_variables,
    random_states,
    tensorflow_variables,
)
from fcnseg.training.optimizer import build_optimizer
from fcnseg.volumes import Shape


def build_compiled(config: Config, *, class_names: Sequence[str]) -> keras.Model:
    """Builds the network with its optimizer, loss and metric, in the current strategy's scope."""
    settings = config.training
    model = build_fcn(
        config.model,
        num_classes=len(class_names),
        precision=settings.precision,
        supervised=True,
    )
    loss = build_loss(config.loss)
    levels = len(model.outputs)
    weights = level_weights(levels, config.loss.level_weights)
    model.compile(
        optimizer=build_optimizer(settings),
        loss=loss if levels == 1 else [loss] * levels,
        loss_weights=None if levels == 1 else weights,
        metrics=[OrganDice(class_names, ignore_label=config.loss.ignore_label)],
        jit_compile=settings.jit_compile,
    )
    return model


def make_state(model: keras.Model, *, size: Shape, label_size: Shape) -> None:
    """Creates the variables that Keras would create on the first batch.

    Args:
        model: Compiled model, in the current strategy's scope.
        size: Voxels (z, y, x) of a patch.
        label_size: Voxels (z, y, x) of its label.
    """
    batch = tf.zeros((1, *size, 1)), tf.zeros((1, *label_size), tf.uint8)
    with _without_warnings():  # of a call that is eager: for one, its graph would take longer
        model.distribute_strategy.run(model.test_step, args=(batch,))
    model.reset_metrics()
    build_optimizer_state(model.optimizer, model.trainable_variables)


@contextlib.contextmanager
def _without_warnings() -> Iterator[None]:
    """Keeps TensorFlow from logging warnings inside."""
    logger = tf.get_logger()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def state_of(model: keras.Model) -> list[tf.Variable]:
    """All variables that training changes, always in the same order.

    These are the weights, the states of dropout's random generators, the optimizer's with its step
    count, and the sums of the epoch's metrics.

    Args:
        model: Model after `make_state`.
    """
    of_metrics = [variable for metric in model.metrics for variable in metric.variables]
    of_model = [*model.variables, *random_states(model)]
    variables = [*of_model, *optimizer_variables(model.optimizer), *of_metrics]
    return tensorflow_variables({id(each): each for each in variables}.values())
