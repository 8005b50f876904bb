"""The layers that Keras does not have."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable(package="fcnseg")
class HUWindow(keras.layers.Layer):
    """Maps HU linearly so that `low` becomes 0 and `high` becomes 1, and clips what lies beyond.

    It is the first layer of every network, so that records, patches and served volumes hold HU. Its
    own precision should be float32 whatever the network's: half precision would round HU.

    Args:
        low: HU that becomes 0.
        high: HU that becomes 1.
        **kwargs: As of every Keras layer, `dtype` among them.
    """

    def __init__(self, low: float, high: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.low = low
        self.high = high

    def call(self, hu: tf.Tensor) -> tf.Tensor:
        """Windows HU of any shape."""
        return tf.clip_by_value((hu - self.low) / (self.high - self.low), 0, 1)

    def get_config(self) -> dict[str, Any]:
        """The arguments."""
        return {**super().get_config(), "low": self.low, "high": self.high}
