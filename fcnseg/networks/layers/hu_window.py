"""The window on HU, the first layer of every network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable(package="fcnseg")
class HUWindow(keras.layers.Layer):
    """Maps HU linearly so that `low` becomes 0 and `high` becomes 1, and clips values beyond.

    As the first layer of every network, it lets records, patches and served volumes hold HU. Its
    own precision should be float32 whatever the network's: half precision would round HU.

    Args:
        low: HU that becomes 0.
        high: HU that becomes 1.
        only_first: True if only the first channel is HU; the others pass unchanged.
        **kwargs: Those of every Keras layer, `dtype` among them.
    """

    def __init__(self, low: float, high: float, *, only_first: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.low = low
        self.high = high
        self.only_first = only_first

    def call(self, hu: tf.Tensor) -> tf.Tensor:
        """Windows HU of any shape, channels last if `only_first`."""
        if self.only_first:
            return tf.concat([self._windowed(hu[..., :1]), hu[..., 1:]], axis=-1)
        return self._windowed(hu)

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> tuple[int | None, ...]:
        """Keeps the shape."""
        return tuple(input_shape)

    def _windowed(self, hu: tf.Tensor) -> tf.Tensor:
        return tf.clip_by_value((hu - self.low) / (self.high - self.low), 0, 1)

    def get_config(self) -> dict[str, Any]:
        """The arguments."""
        own = {"low": self.low, "high": self.high, "only_first": self.only_first}
        return {**super().get_config(), **own}
