"""Metrics of training."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable(package="fcnseg")
class OrganDice(keras.metrics.Metric):
    """Dice of each organ over all voxels since the last reset, and their mean.

    It streams: intersections and sizes are summed over batches and replicas, and the Dice is of the
    sums, not a mean of the batches'. The background is counted but not in the mean, nor is an organ
    that neither truth nor prediction has shown.

    Args:
        num_classes: Classes, background included.
        name: Of the metric.
        dtype: Of the counts; float32 counts up to 2^24 voxels only, eight patches of 128^3.
    """

    def __init__(self, num_classes: int, name: str = "dice", dtype: str = "float64") -> None:
        super().__init__(name=name, dtype=dtype)
        self.num_classes = num_classes
        # Keras 3 would make them float32 whatever the metric is.
        counts = {"shape": (num_classes,), "initializer": "zeros", "dtype": dtype}
        self.shared = self.add_weight(name="shared", **counts)
        self.sizes = self.add_weight(name="sizes", **counts)

    def update_state(
        self, y_true: tf.Tensor, y_pred: tf.Tensor, sample_weight: tf.Tensor | None = None
    ) -> None:
        """Adds a batch.

        Args:
            y_true: Class indices (batch, z, y, x) of any type.
            y_pred: Logits (batch, z, y, x, classes).
            sample_weight: Must be None.
        """
        if sample_weight is not None:
            raise ValueError("OrganDice counts voxels and takes no sample_weight")
        truth = tf.reshape(tf.cast(y_true, tf.int32), [-1])
        predicted = tf.reshape(tf.argmax(y_pred, axis=-1, output_type=tf.int32), [-1])
        right = tf.cast(tf.equal(truth, predicted), self.shared.dtype)
        self.shared.assign_add(self._count(truth, weights=right))
        self.sizes.assign_add(self._count(truth) + self._count(predicted))

    def per_class(self) -> tf.Tensor:
        """Dice of each class (classes,); NaN for a class that was never seen."""
        return 2 * tf.convert_to_tensor(self.shared) / tf.convert_to_tensor(self.sizes)

    def result(self) -> tf.Tensor:
        """Mean Dice over the organs seen, 0 if there was none."""
        organs = self.per_class()[1:]
        seen = tf.logical_not(tf.math.is_nan(organs))
        total = tf.reduce_sum(tf.where(seen, organs, tf.zeros_like(organs)))
        return tf.math.divide_no_nan(total, tf.reduce_sum(tf.cast(seen, self.shared.dtype)))

    def reset_state(self) -> None:
        """Forgets all batches."""
        for variable in (self.shared, self.sizes):
            variable.assign(tf.zeros([self.num_classes], self.shared.dtype))

    def get_config(self) -> dict[str, Any]:
        """The arguments."""
        return {**super().get_config(), "num_classes": self.num_classes}

    def _count(self, classes: tf.Tensor, weights: tf.Tensor | None = None) -> tf.Tensor:
        """Voxels of each class (classes,), each as often as its weight says."""
        counts = tf.math.bincount(
            classes, weights=weights, minlength=self.num_classes, maxlength=self.num_classes
        )
        return tf.cast(counts, self.shared.dtype)
