"""The exponential moving average (EMA) of the weights, which is often better than the weights."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import keras
import tensorflow as tf


class WeightAverage:
    """The exponential moving average of weights over the steps of training.

    In the first steps TensorFlow's decay is lower, so that the initial weights are forgotten soon.

    Attributes:
        averages: Variables, one per weight; they belong to the state of a run.
    """

    def __init__(
        self, weights: Sequence[tf.Variable], *, decay: float, strategy: tf.distribute.Strategy
    ) -> None:
        """Starts with the present weights.

        Args:
            weights: Weights of the network, moving means of batch norm included; created in the
                strategy.
            decay: EMA decay; 0 for no average.
            strategy: Its scope holds the averages too.
        """
        self._weights = list(weights) if decay else []
        self._strategy = strategy
        with strategy.scope():
            self._updates = tf.Variable(0, trainable=False)
            self._ema = tf.train.ExponentialMovingAverage(decay, num_updates=self._updates)
            self._ema.apply(self._weights)
        self.averages: list[tf.Variable] = [self._ema.average(each) for each in self._weights]

    def update(self, step: tf.Tensor) -> None:
        """Updates the averages with the weights after a step int32 (), counted from 1."""
        if self._weights:
            self._updates.assign(step)
            with self._strategy.scope():
                self._ema.apply(self._weights)

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Sets the weights to the average inside the block, and back after it."""
        with _replaced(self._weights, self.averages, self._strategy):
            yield


class OptimizerAverage:
    """The averages of trainable weights that a wrapper of tensorflow-addons keeps.

    Attributes:
        averages: None, since they belong to the state of the optimizer.
    """

    averages: tuple[tf.Variable, ...] = ()

    def __init__(self, model: keras.Model, *, first_step: int) -> None:
        """Takes the averages from the optimizer.

        Args:
            model: Compiled model, with the state of its optimizer.
            first_step: Number, from 1, of the step after which there are averages.
        """
        self._model = model
        self._first_step = first_step

    def update(self, step: tf.Tensor) -> None:
        """Does nothing: the optimizer has updated them in the step."""
        del step

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Sets the weights to the average inside the block, if there is one, and back after it."""
        model = self._model
        has_averages = int(tf.convert_to_tensor(model.optimizer.iterations)) >= self._first_step
        weights = model.trainable_weights if has_averages else []
        averages = [model.optimizer.get_slot(weight, "average") for weight in weights]
        with _replaced(weights, averages, model.distribute_strategy):
            yield


Average = WeightAverage | OptimizerAverage
"""An average of the weights, which is validated and saved in their place."""


@contextlib.contextmanager
def _replaced(
    weights: Sequence[tf.Variable],
    averages: Sequence[tf.Variable],
    strategy: tf.distribute.Strategy,
) -> Iterator[None]:
    copies = [strategy.experimental_local_results(weight) for weight in weights]
    before = [[copy.numpy() for copy in of_weight] for of_weight in copies]
    for weight, average in zip(weights, averages, strict=True):
        weight.assign(tf.convert_to_tensor(average))
    try:
        yield
    finally:
        for of_weight, values in zip(copies, before, strict=True):
            for copy, value in zip(of_weight, values, strict=True):
                copy.assign(value)
