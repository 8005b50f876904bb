"""The exponential moving average (EMA) of the weights, which is often better than the weights."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

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
        copies = [self._strategy.experimental_local_results(weight) for weight in self._weights]
        before = [[copy.numpy() for copy in of_weight] for of_weight in copies]
        for weight, average in zip(self._weights, self.averages, strict=True):
            weight.assign(tf.convert_to_tensor(average))
        try:
            yield
        finally:
            for of_weight, values in zip(copies, before, strict=True):
                for copy, value in zip(of_weight, values, strict=True):
                    copy.assign(value)
