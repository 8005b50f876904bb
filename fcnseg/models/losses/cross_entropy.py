"""The cross-entropy of voxels and its mean."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from fcnseg.models.losses.voxels import (
    ClassWeights,
    counted_voxels,
    for_each_sample,
    sum_over_replicas,
    sum_over_voxels,
    weights_of_classes,
)


@keras.saving.register_keras_serializable(package="fcnseg")
class CrossEntropyLoss(keras.losses.Loss):
    """The weighted mean over voxels of -log p of the true class.

        loss = sum_n w_n (-log p_n) / sum_n w_n

    with p_n the softmax of voxel n at its true class, w_n the weight of that class, and the sums
    over the voxels of the global batch, that is of all replicas. Only the ratios of the weights
    matter; it is PyTorch's `cross_entropy` with `weight` and `ignore_index`.

    Args:
        class_weights: `uniform`, or a number for each class, background first.
        ignore_label: The class index of voxels that count nowhere.
        name: Of the loss.
        **kwargs: As of every Keras loss.
    """

    def __init__(
        self,
        class_weights: ClassWeights = "uniform",
        *,
        ignore_label: int | None = None,
        name: str = "cross_entropy",
        **kwargs: Any,
    ) -> None:
        super().__init__(name=name, **kwargs)
        self.class_weights = class_weights if isinstance(class_weights, str) else [*class_weights]
        self.ignore_label = ignore_label

    def call(self, y_true: tf.Tensor, y_pred: tf.Tensor) -> tf.Tensor:
        """The loss of a batch.

        Args:
            y_true: Class indices (batch, z, y, x) of any type.
            y_pred: Logits (batch, z, y, x, classes).

        Returns:
            float32 (batch,), the batch's for each sample.
        """
        values, weights = self.of_voxels(y_true, y_pred)
        sums = tf.stack([sum_over_voxels(v) for v in (self.modulate(values) * weights, weights)])
        total, weight = tf.unstack(sum_over_replicas(tf.reduce_sum(sums, axis=1)))
        return for_each_sample(tf.math.divide_no_nan(total, weight), y_true)

    def of_voxels(self, y_true: tf.Tensor, y_pred: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The cross-entropy and the weight of each voxel, float32 (batch, z, y, x)."""
        classes, weights = counted_voxels(y_true, self.ignore_label)
        values = tf.nn.sparse_softmax_cross_entropy_with_logits(
            labels=classes, logits=tf.cast(y_pred, tf.float32)
        )
        if not isinstance(self.class_weights, str):
            weights *= tf.gather(weights_of_classes(self.class_weights, y_pred), classes)
        return values, weights

    def modulate(self, cross_entropy: tf.Tensor) -> tf.Tensor:
        """What each voxel adds to the sum, before its weight."""
        return cross_entropy

    def get_config(self) -> dict[str, Any]:
        """The arguments."""
        return {
            **super().get_config(),
            "class_weights": self.class_weights,
            "ignore_label": self.ignore_label,
        }
