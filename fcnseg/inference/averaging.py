"""Class probabilities of windows: means over several networks and flips, and their time."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import tensorflow as tf

from fcnseg.volumes import Axis

PredictPatches = Callable[[tf.Tensor], tf.Tensor]
"""Maps HU (batch, z, y, x, 1) to probabilities (batch, z, y, x, classes)."""


def mean_of(predictors: Sequence[PredictPatches]) -> PredictPatches:
    """Averages the outputs of several functions; they run one after the other."""

    def predict(patches: tf.Tensor) -> tf.Tensor:
        total = predictors[0](patches)
        for predictor in predictors[1:]:
            # In parallel, each would hold its network's activations.
            with tf.control_dependencies([total]):
                total += predictor(tf.identity(patches))
        return total / len(predictors)

    return predictors[0] if len(predictors) == 1 else predict


def over_flips(predictor: PredictPatches, axes: Sequence[Axis]) -> PredictPatches:
    """Averages over all flips along some axes, no flip included: 2 to the power of the axes."""
    indices = sorted({"z": 1, "y": 2, "x": 3}[axis] for axis in axes)

    def flipped(flip: Sequence[int]) -> PredictPatches:
        return lambda patches: tf.reverse(predictor(tf.reverse(patches, flip)), flip)

    flips = (itertools.combinations(indices, count) for count in range(1, len(indices) + 1))
    return mean_of([predictor, *map(flipped, itertools.chain.from_iterable(flips))])


class Timed:
    """A function from windows to probabilities that adds up the time it takes.

    Attributes:
        seconds: The sum, float64.
    """

    def __init__(self, predictor: PredictPatches) -> None:
        """Begins with none."""
        self.predictor = predictor
        with tf.init_scope(), tf.device("CPU"):
            self.seconds = tf.Variable(0, dtype=tf.float64, trainable=False)

    def __call__(self, patches: tf.Tensor) -> tf.Tensor:
        """Computes the probabilities of windows, which are ready when the time begins."""
        with tf.control_dependencies([patches]):
            started = tf.timestamp()
        with tf.control_dependencies([started]):
            tiles = self.predictor(tf.identity(patches))
        with tf.control_dependencies([tiles]):
            self.seconds.assign_add(tf.timestamp() - started)
        return tiles
