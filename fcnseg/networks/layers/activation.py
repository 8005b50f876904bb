"""The activations that a network may have."""

from __future__ import annotations

from typing import Literal

import tensorflow as tf

Activation = Literal["relu", "leaky_relu"]

LEAK = 0.01  # of leaky ReLU; nnU-Net


def activated(values: tf.Tensor, activation: Activation | None) -> tf.Tensor:
    """Values of any shape, activated, or as they are."""
    if activation is None:
        return values
    return tf.nn.relu(values) if activation == "relu" else tf.nn.leaky_relu(values, LEAK)
