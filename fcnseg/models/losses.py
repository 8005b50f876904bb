"""Losses on logits and integer labels. Sums are float32 whatever the network computes in."""

from __future__ import annotations

from typing import Any, Literal

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable(package="fcnseg")
class SoftDiceLoss(keras.losses.Loss):
    """Multi-class soft Dice with the class weights of Shen et al. 2018 (arXiv 1801.05912).

    With probabilities p = softmax(logits) and the one-hot truth g, summed over all voxels n of the
    global batch, that is of all replicas,

        D_k = 2 sum_n p_nk g_nk / (sum_n p_nk + sum_n g_nk)
        loss = 1 - sum_k w_k D_k / sum_k w_k

    over the classes k, background included. With f_k the share of voxels of class k in the batch,
    w_k is 1 (`uniform`), 1 / f_k (`simple`) or 1 / f_k^2 (`square`); a class that is absent from
    the batch has weight 0. So the loss lies in [0, 1], and is 0 where every voxel is right.

    Args:
        class_weights: `uniform`, `simple` or `square`.
        name: Of the loss.
        **kwargs: As of every Keras loss.
    """

    def __init__(
        self,
        class_weights: Literal["uniform", "simple", "square"] = "uniform",
        name: str = "soft_dice",
        **kwargs: Any,
    ) -> None:
        super().__init__(name=name, **kwargs)
        self.class_weights = class_weights

    def call(self, y_true: tf.Tensor, y_pred: tf.Tensor) -> tf.Tensor:
        """The loss of a batch.

        Args:
            y_true: Class indices (batch, z, y, x) of any type.
            y_pred: Logits (batch, z, y, x, classes).

        Returns:
            float32 (batch,), the batch's loss for each sample: Keras divides what it reduces by the
            number of replicas, but leaves a scalar as it is.
        """
        probabilities = tf.nn.softmax(tf.cast(y_pred, tf.float32))
        truth = tf.one_hot(tf.cast(y_true, tf.int32), y_pred.shape[-1])
        shared, predicted, true = tf.unstack(
            _sum_over_replicas(
                tf.stack(
                    [
                        _sum_over_voxels(probabilities * truth),
                        _sum_over_voxels(probabilities),
                        _sum_over_voxels(truth),
                    ]
                )
            )
        )
        dice = tf.math.divide_no_nan(2 * shared, predicted + true)
        weights = self._weights(true / tf.reduce_sum(true))
        loss = 1 - tf.reduce_sum(weights * dice) / tf.reduce_sum(weights)
        return tf.fill(tf.shape(y_true)[:1], loss)

    def _weights(self, frequencies: tf.Tensor) -> tf.Tensor:
        """Weight of each class (classes,) from its share of the voxels."""
        power = {"uniform": 0, "simple": 1, "square": 2}[self.class_weights]
        present = tf.cast(frequencies > 0, tf.float32)
        return tf.math.divide_no_nan(present, frequencies**power)

    def get_config(self) -> dict[str, Any]:
        """The arguments."""
        return {**super().get_config(), "class_weights": self.class_weights}


def _sum_over_voxels(values: tf.Tensor) -> tf.Tensor:
    """The sum (classes,) of values (batch, z, y, x, classes), one axis after the other.

    TensorFlow adds all voxels of a class one by one: in float32 that is 0.2 % off at 128^3.
    """
    for _ in range(4):
        values = tf.reduce_sum(values, axis=-2)
    return values


@keras.saving.register_keras_serializable(package="fcnseg")
class DiceCrossEntropyLoss(SoftDiceLoss):
    """The soft Dice loss plus the mean cross-entropy of the voxels, -log p of the true class.

    Dice alone has next to no gradient for an organ that the network gives up early, as a small one
    may be; the cross-entropy has. nnU-Net (Isensee et al. 2021) and the group's later network (the
    MONAI bundle `multi_organ_segmentation`) train with this sum.

    Args:
        class_weights: Of the Dice, as in `SoftDiceLoss`; voxels count alike in the cross-entropy.
        name: Of the loss.
        **kwargs: As of every Keras loss.
    """

    def __init__(
        self,
        class_weights: Literal["uniform", "simple", "square"] = "uniform",
        name: str = "dice_cross_entropy",
        **kwargs: Any,
    ) -> None:
        super().__init__(class_weights=class_weights, name=name, **kwargs)

    def call(self, y_true: tf.Tensor, y_pred: tf.Tensor) -> tf.Tensor:
        """The loss of a batch; shapes as in `SoftDiceLoss`."""
        cross_entropy = tf.nn.sparse_softmax_cross_entropy_with_logits(
            labels=tf.cast(y_true, tf.int32), logits=tf.cast(y_pred, tf.float32)
        )
        return super().call(y_true, y_pred) + tf.reduce_mean(cross_entropy, [1, 2, 3])


def _sum_over_replicas(tensor: tf.Tensor) -> tf.Tensor:
    """The sum over replicas, with its gradient: a loss of it is that of the global batch."""
    replica = tf.distribute.get_replica_context()
    if replica is None or replica.num_replicas_in_sync == 1:
        return tensor
    return replica.all_reduce(tf.distribute.ReduceOp.SUM, tensor)
