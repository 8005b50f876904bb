"""The Dice of each organ over the patches of an epoch: a streaming metric."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable(package="fcnseg")
class OrganDice(keras.metrics.Metric):
    """Dice of each organ over all voxels since the last reset, and their mean.

    It is a streaming metric: intersections and sizes are summed over batches and replicas, and the
    Dice is computed from the sums, not averaged over batches. The background is counted but not in
    the mean, nor is an organ that is in neither reference nor prediction so far: its Dice is NaN.

    Args:
        class_names: Names of all classes, background first.
        ignore_label: The class index of voxels to ignore.
        name: Name of the mean in the logs; an organ's is `<name>_<organ>`.
        dtype: Type of the counts; float32 counts only up to 2^24 voxels, eight patches of 128^3.

    Attributes:
        columns: The keys of `result`. Keras 2 renames metrics of models with several outputs, so
            they are fixed here.
    """

    def __init__(
        self,
        class_names: Sequence[str],
        *,
        ignore_label: int | None = None,
        name: str = "dice",
        dtype: str = "float64",
    ) -> None:
        super().__init__(name=name, dtype=dtype)
        self.class_names = list(class_names)
        self.columns = [name, *(f"{name}_{organ}" for organ in self.class_names[1:])]
        self.ignore_label = ignore_label
        # Keras 3 would make them float32 whatever the metric's dtype.
        counts = {"shape": (len(self.class_names),), "initializer": "zeros", "dtype": dtype}
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
        reference = tf.reshape(tf.cast(y_true, tf.int32), [-1])
        predicted = tf.reshape(tf.argmax(y_pred, axis=-1, output_type=tf.int32), [-1])
        nowhere = len(self.class_names)  # an index beyond the counted classes
        if self.ignore_label is not None:
            counts = tf.not_equal(reference, self.ignore_label)
            reference, predicted = (tf.where(counts, v, nowhere) for v in (reference, predicted))
        self.shared.assign_add(
            self._count(tf.where(tf.equal(reference, predicted), reference, nowhere))
        )
        self.sizes.assign_add(self._count(reference) + self._count(predicted))

    def per_class(self) -> tf.Tensor:
        """Dice of each class (classes,); NaN for a class not seen since the last reset."""
        return 2 * tf.convert_to_tensor(self.shared) / tf.convert_to_tensor(self.sizes)

    def result(self) -> dict[str, tf.Tensor]:
        """Dice by name in the logs: the mean over the organs seen, 0 without any, then each."""
        organs = self.per_class()[1:]
        seen = tf.logical_not(tf.math.is_nan(organs))
        total = tf.reduce_sum(tf.where(seen, organs, tf.zeros_like(organs)))
        mean = tf.math.divide_no_nan(total, tf.reduce_sum(tf.cast(seen, organs.dtype)))
        return dict(zip(self.columns, [mean, *tf.unstack(organs)], strict=True))

    def reset_state(self) -> None:
        """Resets all counts."""
        for variable in (self.shared, self.sizes):
            variable.assign(tf.zeros([len(self.class_names)], self.shared.dtype))

    def get_config(self) -> dict[str, Any]:
        """The arguments."""
        return {
            **super().get_config(),
            "class_names": self.class_names,
            "ignore_label": self.ignore_label,
        }

    def _count(self, classes: tf.Tensor) -> tf.Tensor:
        """Voxels of each class (classes,); indices beyond the classes are left out."""
        # Not tf.math.bincount, which XLA cannot compile: its output size depends on the largest
        # class.
        counts = tf.raw_ops.DenseBincount(
            input=classes, size=len(self.class_names), weights=tf.constant([], tf.int64)
        )
        return tf.cast(counts, self.shared.dtype)
