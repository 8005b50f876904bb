"""Cross-entropy of the hardest voxels."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from fcnseg.losses.cross_entropy import CrossEntropyLoss
from fcnseg.losses.voxels import ClassWeights


@keras.saving.register_keras_serializable(package="fcnseg")
class TopKCrossEntropyLoss(CrossEntropyLoss):
    """The mean cross-entropy of the voxels of each sample with the largest loss.

        loss = sum_{n in K} w_n (-log p_n) / sum_{n in K} w_n

    with p_n the softmax of voxel n at its true class, w_n the weight of that class, and K the
    `fraction` of the sample's voxels of w_n > 0 that are not ignored, at least one, with the
    largest w_n (-log p_n); Keras takes the mean over samples. This is the bootstrapping of Wu et
    al. 2016 (arXiv 1605.06885); nnU-Net's `TopKLoss` takes a tenth, over the complete batch.

    Args:
        class_weights: `uniform`, or a number for each class, background first.
        fraction: Fraction of the voxels, above 0 and at most 1.
        name: Name of the loss.
        **kwargs: `ignore_label` and `label_smoothing` of `CrossEntropyLoss`; also those of every
            Keras loss.
    """

    def __init__(
        self,
        class_weights: ClassWeights = "uniform",
        *,
        fraction: float = 0.1,
        name: str = "top_k_cross_entropy",
        **kwargs: Any,
    ) -> None:
        super().__init__(class_weights, name=name, **kwargs)
        self.fraction = fraction

    def call(self, y_true: tf.Tensor, y_pred: tf.Tensor) -> tf.Tensor:
        """Computes the loss (batch,) of each sample; shapes as in `CrossEntropyLoss`."""
        losses, weights = (
            tf.reshape(v, [tf.shape(v)[0], -1]) for v in self.of_voxels(y_true, y_pred)
        )
        counts = weights > 0
        # The upper bound, which XLA needs as a constant; fewer if voxels are ignored.
        most = self._number(tf.shape(weights)[1])
        number = self._number(tf.reduce_sum(tf.cast(counts, tf.int32), axis=1, keepdims=True))
        _, places = tf.math.top_k(tf.where(counts, losses, -tf.ones_like(losses)), most)
        chosen = tf.cast(tf.range(most) < number, tf.float32)
        total, weight = (
            tf.reduce_sum(chosen * tf.gather(v, places, batch_dims=1), axis=1)
            for v in (losses, weights)
        )
        return tf.math.divide_no_nan(total, weight)

    def _number(self, voxels: tf.Tensor) -> tf.Tensor:
        """Number of selected voxels among so many."""
        number = tf.round(self.fraction * tf.cast(voxels, tf.float32))
        return tf.maximum(tf.cast(number, tf.int32), 1)

    def get_config(self) -> dict[str, Any]:
        """The arguments."""
        return {**super().get_config(), "fraction": self.fraction}
