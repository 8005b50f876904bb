"""The sum of soft Dice and cross-entropy."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from fcnseg.losses.cross_entropy import CrossEntropyLoss
from fcnseg.losses.overlap import OverlapWeights
from fcnseg.losses.soft_dice import SoftDiceLoss


@keras.saving.register_keras_serializable(package="fcnseg")
class DiceCrossEntropyLoss(SoftDiceLoss):
    """`SoftDiceLoss` plus `CrossEntropyLoss`.

    Dice alone has almost no gradient for an organ that the network loses early, often a small one;
    a cross-entropy with class balance has one (docs/decisions/0019). nnU-Net (Isensee et al. 2021)
    and the group's later network (the MONAI bundle `multi_organ_segmentation`) train with this sum,
    without class balance.

    Args:
        class_weights: `uniform`, `simple` or `square`, for the Dice alone, with all voxels weighted
            equally in the cross-entropy; or a number for each class, for both.
        class_balance: Class balance of the cross-entropy.
        label_smoothing: Label smoothing of the cross-entropy.
        name: Name of the loss.
        **kwargs: `batch_dice` and `include_background`, of the Dice alone, and `ignore_label` of
            `OverlapLoss`; also those of every Keras loss.
    """

    def __init__(
        self,
        class_weights: OverlapWeights = "uniform",
        *,
        class_balance: float = 0.0,
        label_smoothing: float = 0.0,
        name: str = "dice_cross_entropy",
        **kwargs: Any,
    ) -> None:
        super().__init__(class_weights, name=name, **kwargs)
        self.class_balance = class_balance
        self.label_smoothing = label_smoothing
        self._cross_entropy = CrossEntropyLoss(
            "uniform" if isinstance(class_weights, str) else class_weights,
            class_balance=class_balance,
            ignore_label=self.ignore_label,
            label_smoothing=label_smoothing,
        )

    def call(self, y_true: tf.Tensor, y_pred: tf.Tensor) -> tf.Tensor:
        """Computes the loss (batch,); shapes as in `OverlapLoss`."""
        return super().call(y_true, y_pred) + self._cross_entropy.call(y_true, y_pred)

    def get_config(self) -> dict[str, Any]:
        """The arguments."""
        own = {"class_balance": self.class_balance, "label_smoothing": self.label_smoothing}
        return {**super().get_config(), **own}
