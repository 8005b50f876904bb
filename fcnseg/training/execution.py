"""Several training steps in one call of TensorFlow."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from fcnseg.training.ema import WeightAverage

Steps = Callable[[Iterator[Any], int, int], tuple[dict[str, Any], int]]
"""Takes batches, the number of the first step, counted from 1, and the number of steps. Gives the
logs of the last step done, and the number done: fewer if the loss was not finite."""


def make_steps(model: keras.Model, average: WeightAverage, *, most: int) -> Steps:
    """Makes the function that trains.

    Python's work between two steps is then done once for several. Keras's own `steps_per_execution`
    does not stop at a loss that is not finite, and takes as many batches in each call.

    Args:
        model: Compiled model, with its last `train_step`.
        average: EMA of the weights, updated after each step with a finite loss.
        most: Maximum number of steps per call.
    """
    strategy = model.distribute_strategy
    of_replica: Callable[..., Any] = model.train_step
    if model.jit_compile:
        of_replica = tf.function(of_replica, jit_compile=True, reduce_retracing=True)

    def mean(value: Any) -> tf.Tensor:
        return tf.reduce_mean(tf.stack(strategy.experimental_local_results(value)), axis=0)

    def step(batches: Iterator[Any]) -> dict[str, Any]:
        return tf.nest.map_structure(mean, strategy.run(of_replica, args=(next(batches),)))

    @tf.function
    def steps(
        batches: Iterator[Any], shares: tf.Tensor, count: tf.Tensor
    ) -> tuple[dict[str, Any], tf.Tensor]:
        logs, done = step(batches), tf.constant(1)
        while done < count and tf.math.is_finite(logs["loss"]):
            average.move(shares[done - 1])
            logs = step(batches)
            done += 1
        if tf.math.is_finite(logs["loss"]):
            average.move(shares[done - 1])
        return logs, done

    def run(batches: Iterator[Any], first: int, count: int) -> tuple[dict[str, Any], int]:
        # Always the same number of shares, so that TensorFlow builds one graph.
        shares = np.array([average.share(first + n) for n in range(most)], np.float32)
        logs, done = steps(batches, tf.constant(shares), tf.constant(count))
        return logs, int(done)

    return run
