"""A loss at each resolution of the decoder, in training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from fcnseg.errors import ConfigError


def level_weights(levels: int, weights: Sequence[float] = ()) -> list[float]:
    """Computes the weight of each output's loss, with sum 1.

    Args:
        levels: Number of outputs, full resolution first.
        weights: Relative weights; by default each is half of the one before. nnU-Net (Isensee et
            al. 2021) does the same, except for the last one, which gets the weight 0: its coarsest
            output learns nothing.

    Returns:
        One weight per output.

    Raises:
        ConfigError: If there is not one weight per output.
    """
    weights = weights or [0.5**level for level in range(levels)]
    if len(weights) != levels or not sum(weights) > 0:
        raise ConfigError(
            f"level_weights must be one number an output, not all 0,"
            f" got {list(weights)} for {levels} outputs"
        )
    return [weight / sum(weights) for weight in weights]


def shrink_label(label: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Resamples the label (batch, z, y, x) to the grid of logits, by nearest neighbour.

    Centres half way between two voxels take the lower and the upper one in turn, so that organs do
    not move.
    """
    shrunk = tf.cast(label, tf.float32)  # exact, and a GPU has no kernel to gather uint8
    for axis in (1, 2, 3):
        length, size = tf.shape(shrunk)[axis], tf.shape(logits)[axis]
        number = tf.range(size)
        # The centre of voxel i, (i + 1/2) length / size, in integers.
        centre = (2 * number + 1) * length
        is_half_way = tf.cast(centre % (2 * size) == 0, tf.int32)
        places = centre // (2 * size) - is_half_way * (1 - number % 2)
        shrunk = tf.gather(shrunk, places, axis=axis)
    return tf.ensure_shape(tf.cast(shrunk, label.dtype), logits.shape[:-1])


@keras.saving.register_keras_serializable(package="fcnseg")
class DeeplySupervised(keras.Model):
    """A network with several outputs, full resolution first, each with a loss of its own.

    Lee et al. 2015 (arXiv 1409.5185): layers with a loss close by learn sooner. In `fit` each
    output is compared with the same label, resampled to its own grid, and metrics see the first
    output alone. Compile it with one loss per output:

        model.compile(loss=[loss] * levels, loss_weights=level_weights(levels), metrics=...)

    The network for prediction is the first output: `keras.Model(model.input, model.outputs[0])`.
    """

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        **kwargs: Any,
    ) -> tf.Tensor:
        """Computes the weighted sum of the outputs' losses, for one label (batch, z, y, x)."""
        labels = [shrink_label(y, logits) for logits in y_pred]
        return super().compute_loss(x, labels, y_pred, sample_weight, **kwargs)

    def compute_metrics(
        self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None
    ) -> dict[str, Any]:
        """Computes the logs, with metrics of the first output."""
        logs: dict[str, Any] = super().compute_metrics(x, y, y_pred[0], sample_weight)
        return logs
