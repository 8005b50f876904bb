"""The soft Dice loss."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from fcnseg.losses.overlap import OverlapLoss, OverlapWeights


@keras.saving.register_keras_serializable(package="fcnseg")
class SoftDiceLoss(OverlapLoss):
    """Soft Dice of any number of classes, after Milletari et al. 2016 (arXiv 1606.04797).

        D_k = 2 S_k / (P_k + G_k)
        loss = 1 - sum_k w_k D_k / sum_k w_k

    with the sums and class weights of `OverlapLoss`; these weights, and P and G not squared, are as
    in Shen et al. 2018 (arXiv 1801.05912). The loss lies in [0, 1], and is 0 for a perfect
    prediction.

    Args:
        class_weights: `uniform`, `simple`, `square`, or a number for each class.
        name: Name of the loss.
        **kwargs: `batch_dice`, `include_background` and `ignore_label` of `OverlapLoss`; also those
            of every Keras loss.
    """

    def __init__(
        self, class_weights: OverlapWeights = "uniform", name: str = "soft_dice", **kwargs: Any
    ) -> None:
        super().__init__(class_weights, name=name, **kwargs)

    def index(self, shared: tf.Tensor, predicted: tf.Tensor, true: tf.Tensor) -> tf.Tensor:
        """Computes the Dice of each class."""
        return tf.math.divide_no_nan(2 * shared, predicted + true)
