"""The Tversky loss."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from fcnseg.losses.overlap import OverlapLoss, OverlapWeights


@keras.saving.register_keras_serializable(package="fcnseg")
class TverskyLoss(OverlapLoss):
    """Soft Dice with separate weights of false positives and false negatives: Salehi et al. 2017.

        T_k = S_k / (S_k + alpha (P_k - S_k) + beta (G_k - S_k))
        loss = 1 - sum_k w_k T_k / sum_k w_k

    (arXiv 1706.05721), with the sums and class weights of `OverlapLoss`: P - S is the probability
    on voxels of other classes (false positives), G - S the probability lacking on those of the
    class (false negatives). With both weights at 0.5 it is `SoftDiceLoss`.

    Args:
        class_weights: `uniform`, `simple`, `square`, or a number for each class.
        alpha: Weight of false positives. 0.3 and 0.7 gave the paper's best Dice.
        beta: Weight of false negatives; a larger one gives higher recall of small organs.
        name: Name of the loss.
        **kwargs: `batch_dice`, `include_background` and `ignore_label` of `OverlapLoss`; also those
            of every Keras loss.
    """

    def __init__(
        self,
        class_weights: OverlapWeights = "uniform",
        *,
        alpha: float = 0.3,
        beta: float = 0.7,
        name: str = "tversky",
        **kwargs: Any,
    ) -> None:
        super().__init__(class_weights, name=name, **kwargs)
        self.alpha = alpha
        self.beta = beta

    def index(self, shared: tf.Tensor, predicted: tf.Tensor, true: tf.Tensor) -> tf.Tensor:
        """Computes the Tversky index of each class."""
        false_positive, false_negative = predicted - shared, true - shared
        wrong = self.alpha * false_positive + self.beta * false_negative
        return tf.math.divide_no_nan(shared, shared + wrong)

    def get_config(self) -> dict[str, Any]:
        """The arguments."""
        return {**super().get_config(), "alpha": self.alpha, "beta": self.beta}
