"""The focal loss."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from fcnseg.losses.cross_entropy import CrossEntropyLoss
from fcnseg.losses.voxels import ClassWeights

_SMALLEST_ERROR = 1e-7  # float32 resolution of 1 - p; the power of 0 has no gradient


@keras.saving.register_keras_serializable(package="fcnseg")
class FocalLoss(CrossEntropyLoss):
    """Cross-entropy in which well-classified voxels have little weight: Lin et al. 2017.

        loss = sum_n w_n (1 - p_n)^gamma (-log p_n) / sum_n w_n

    (arXiv 1708.02002), with p_n the softmax of voxel n at its true class and w_n, the paper's
    alpha, the weight of that class. With gamma = 0 it is `CrossEntropyLoss`.

    Args:
        class_weights: `uniform`, or a number for each class, background first.
        gamma: Exponent; 2 was the paper's best.
        name: Name of the loss.
        **kwargs: `ignore_label` of `CrossEntropyLoss`; also those of every Keras loss.

    Raises:
        ValueError: If there is a `label_smoothing`, for which the loss is not defined.
    """

    def __init__(
        self,
        class_weights: ClassWeights = "uniform",
        *,
        gamma: float = 2.0,
        name: str = "focal",
        **kwargs: Any,
    ) -> None:
        super().__init__(class_weights, name=name, **kwargs)
        if self.label_smoothing:
            raise ValueError(f"label_smoothing must be 0 here, got {self.label_smoothing}")
        self.gamma = gamma

    def modulate(self, cross_entropy: tf.Tensor) -> tf.Tensor:
        """Multiplies the cross-entropy by (1 - p)^gamma."""
        error = tf.maximum(-tf.math.expm1(-cross_entropy), _SMALLEST_ERROR)
        return error**self.gamma * cross_entropy

    def get_config(self) -> dict[str, Any]:
        """The arguments."""
        return {**super().get_config(), "gamma": self.gamma}
