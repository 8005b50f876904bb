"""The base of losses on overlaps of regions: sums per class, and the mean over classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import keras
import tensorflow as tf

from fcnseg.losses.voxels import (
    counted_voxels,
    for_each_sample,
    sum_over_replicas,
    sum_over_voxels,
    weights_of_classes,
)

OverlapWeights = Literal["uniform", "simple", "square"] | Sequence[float]
"""Weight of each class: its frequency to the power of 0, -1 or -2, or a number each."""

_POWERS = {"uniform": 0, "simple": 1, "square": 2}


class OverlapLoss(keras.losses.Loss):
    """1 minus the weighted mean over classes of an overlap index, which a subclass defines.

    With probabilities p = softmax(logits) and the one-hot reference g, the sums over the voxels n
    that are not ignored are

        S_k = sum_n p_nk g_nk    P_k = sum_n p_nk    G_k = sum_n g_nk
        loss = sum_k w_k (1 - index(S_k, P_k, G_k)) / sum_k w_k

    With f_k = G_k / sum_j G_j the share of class k, w_k is 1 (`uniform`), 1 / f_k (`simple`) or 1 /
    f_k^2 (`square`), as in Shen et al. 2018 (arXiv 1801.05912), or a given number. An absent class
    has weight 0; if no class has a weight, the loss is 0.

    Args:
        class_weights: `uniform`, `simple`, `square`, or a number for each class, background first.
        batch_dice: True for sums over the global batch, that is over all replicas; else they are
            over each sample, and Keras takes the mean over samples.
        include_background: True if class 0 is one of the classes k.
        ignore_label: The class index of voxels to ignore.
        **kwargs: Those of every Keras loss.
    """

    def __init__(
        self,
        class_weights: OverlapWeights = "uniform",
        *,
        batch_dice: bool = True,
        include_background: bool = True,
        ignore_label: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.class_weights = class_weights if isinstance(class_weights, str) else [*class_weights]
        self.batch_dice = batch_dice
        self.include_background = include_background
        self.ignore_label = ignore_label

    def index(self, shared: tf.Tensor, predicted: tf.Tensor, true: tf.Tensor) -> tf.Tensor:
        """Computes the overlap of each class, from 0 to 1, from its sums S, P and G."""
        raise NotImplementedError

    def call(self, y_true: tf.Tensor, y_pred: tf.Tensor) -> tf.Tensor:
        """Computes the loss of a batch.

        Args:
            y_true: Class indices (batch, z, y, x) of any type.
            y_pred: Logits (batch, z, y, x, classes).

        Returns:
            float32 (batch,): the loss of each sample, or that of the batch for each.
        """
        probabilities = tf.nn.softmax(tf.cast(y_pred, tf.float32))
        classes, counts = counted_voxels(y_true, self.ignore_label)
        reference = tf.one_hot(classes, y_pred.shape[-1])
        if self.ignore_label is not None:
            probabilities *= counts[..., tf.newaxis]
            reference *= counts[..., tf.newaxis]
        sums = tf.stack(
            [sum_over_voxels(v) for v in (probabilities * reference, probabilities, reference)]
        )
        if self.batch_dice:
            sums = sum_over_replicas(tf.reduce_sum(sums, axis=1, keepdims=True))
        shared, predicted, true = tf.unstack(sums)  # (batch, classes), or (1, classes)
        weights = self._weights(true, y_pred)
        shortfall = tf.reduce_sum(weights * (1 - self.index(shared, predicted, true)), axis=-1)
        loss = tf.math.divide_no_nan(shortfall, tf.reduce_sum(weights, axis=-1))
        return for_each_sample(loss, y_true)

    def _weights(self, true: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        """Weight of each class, with the shape of its voxels `true`."""
        present = tf.cast(true > 0, tf.float32)
        if isinstance(self.class_weights, str):
            frequencies = tf.math.divide_no_nan(true, tf.reduce_sum(true, -1, keepdims=True))
            power = _POWERS[self.class_weights]
            weights = tf.math.divide_no_nan(present, frequencies**power)
        else:
            weights = present * weights_of_classes(self.class_weights, logits)
        if self.include_background:
            return weights
        return weights * tf.cast(tf.range(tf.shape(weights)[-1]) > 0, tf.float32)

    def get_config(self) -> dict[str, Any]:
        """The arguments."""
        return {
            **super().get_config(),
            "class_weights": self.class_weights,
            "batch_dice": self.batch_dice,
            "include_background": self.include_background,
            "ignore_label": self.ignore_label,
        }
