"""The cross-entropy of voxels and its mean."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from fcnseg.losses.voxels import (
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
    matter. With label smoothing e (Szegedy et al. 2016, arXiv 1512.00567) a share e of the
    reference is distributed equally over all K classes, and the numerator is

        sum_n (1 - e) w_n (-log p_n) + e / K sum_k v_k (-log p_nk)

    with p_nk the softmax of voxel n at class k, and v_k the weight of that class. It is PyTorch's
    `cross_entropy` with `weight`, `ignore_index` and `label_smoothing`.

    With class balance b all that a voxel of class k contributes is also multiplied by f_k^-b, where
    f_k is the share of the class in the voxels of the global batch. Then the loss is a mean over
    classes of their mean -log p_n, in which a class of G_k voxels counts G_k^(1 - b): like its
    voxels for b = 0, all classes alike for b = 1 (the balanced cross-entropy), the square root
    between them for 1/2. The balance is that of the true class in the smoothed part too: a class
    that is absent from the batch gets no more than e / K of any voxel.

    Args:
        class_weights: `uniform`, or a number for each class, background first.
        class_balance: b, from 0 to 1.
        ignore_label: The class index of voxels to ignore.
        label_smoothing: e, from 0 to below 1.
        name: Name of the loss.
        **kwargs: Those of every Keras loss.
    """

    def __init__(
        self,
        class_weights: ClassWeights = "uniform",
        *,
        class_balance: float = 0.0,
        ignore_label: int | None = None,
        label_smoothing: float = 0.0,
        name: str = "cross_entropy",
        **kwargs: Any,
    ) -> None:
        super().__init__(name=name, **kwargs)
        self.class_weights = class_weights if isinstance(class_weights, str) else [*class_weights]
        self.class_balance = class_balance
        self.ignore_label = ignore_label
        self.label_smoothing = label_smoothing

    def call(self, y_true: tf.Tensor, y_pred: tf.Tensor) -> tf.Tensor:
        """Computes the loss of a batch.

        Args:
            y_true: Class indices (batch, z, y, x) of any type.
            y_pred: Logits (batch, z, y, x, classes).

        Returns:
            float32 (batch,), the loss of the batch for each sample.
        """
        sums = tf.stack([sum_over_voxels(v) for v in self.of_voxels(y_true, y_pred)])
        total, weight = tf.unstack(sum_over_replicas(tf.reduce_sum(sums, axis=1)))
        return for_each_sample(tf.math.divide_no_nan(total, weight), y_true)

    def of_voxels(self, y_true: tf.Tensor, y_pred: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Contributions of each voxel to numerator and denominator, float32 (batch, z, y, x)."""
        classes, counts = counted_voxels(y_true, self.ignore_label)
        logits = tf.cast(y_pred, tf.float32)
        values = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=classes, logits=logits)
        if self.class_balance:
            counts *= self._balance(classes, counts, num_classes=logits.shape[-1])
        weights, of_classes = counts, None
        if not isinstance(self.class_weights, str):
            of_classes = weights_of_classes(self.class_weights, y_pred)
            weights *= tf.gather(of_classes, classes)
        losses = weights * self.modulate(values)
        if self.label_smoothing:
            smooth = self.label_smoothing
            of_all = -tf.nn.log_softmax(logits) * (1.0 if of_classes is None else of_classes)
            losses = (1 - smooth) * losses + smooth * counts * tf.reduce_mean(of_all, axis=-1)
        return losses, weights

    def _balance(self, classes: tf.Tensor, counts: tf.Tensor, *, num_classes: int) -> tf.Tensor:
        """The factor of each voxel by its class, float32 (batch, z, y, x)."""
        # (batch, z, y, x, classes) sums, as `sum_over_voxels` wants them.
        members = tf.one_hot(classes, num_classes) * counts[..., tf.newaxis]
        voxels = sum_over_replicas(tf.reduce_sum(sum_over_voxels(members), axis=0))
        # An absent class counts as one voxel: voxels that are ignored may be gathered as its own.
        shares = tf.maximum(voxels, 1.0) / tf.maximum(tf.reduce_sum(voxels), 1.0)
        return tf.gather(shares**-self.class_balance, classes)

    def modulate(self, cross_entropy: tf.Tensor) -> tf.Tensor:
        """Gives a voxel's contribution to the numerator, before its weight."""
        return cross_entropy

    def get_config(self) -> dict[str, Any]:
        """The arguments."""
        return {
            **super().get_config(),
            "class_weights": self.class_weights,
            "class_balance": self.class_balance,
            "ignore_label": self.ignore_label,
            "label_smoothing": self.label_smoothing,
        }
