"""A network in another precision, with the same weights."""

from __future__ import annotations

from typing import Any

import keras

_FLOAT32_LAYERS = ("HUWindow", "InputLayer", "Softmax")
"""Layers that compute in float32 under any policy; so do those that give the outputs."""


def policies_of(model: keras.Model) -> set[str]:
    """Gives the names of the precision policies of a network's layers."""
    return {layer.dtype_policy.name for layer in model.layers}


def with_precision(model: keras.Model, policy: str) -> keras.Model:
    """Builds a network again in another precision; its inputs and outputs stay float32.

    Args:
        model: A functional model.
        policy: Keras's policy, such as `mixed_bfloat16`, of the layers between the HU window and
            the logits.
    """
    config = model.get_config()
    outputs = {layer[0] for layer in _triples(config["output_layers"])}
    for layer in config["layers"]:
        class_name = layer["class_name"].rpartition(">")[-1]  # Keras 2 has the package before it
        is_kept = class_name in _FLOAT32_LAYERS or layer["config"]["name"] in outputs
        layer["config"]["dtype"] = "float32" if is_kept else policy
    again = type(model).from_config(config)
    again.set_weights(model.get_weights())
    return again


def _triples(layers: Any) -> list[Any]:
    """The output layers of a configuration; Keras gives a single one without its list."""
    return [layers] if isinstance(layers[0], str) else list(layers)
