"""The activations of the networks."""

from __future__ import annotations

from typing import Literal

import tensorflow as tf

Activation = Literal["relu", "leaky_relu"]

NEGATIVE_SLOPE = 0.01  # negative slope of leaky ReLU; nnU-Net


def activated(values: tf.Tensor, activation: Activation | None) -> tf.Tensor:
    """Applies an activation, if any, to values of any shape."""
    if activation is None:
        return values
    return tf.nn.relu(values) if activation == "relu" else tf.nn.leaky_relu(values, NEGATIVE_SLOPE)
