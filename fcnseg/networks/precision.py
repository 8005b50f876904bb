"""A network in another precision, with the same weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import keras

Precision = Literal["float32", "bfloat16"]
"""Precision of inference: that of the layers between the HU window and the logits."""

ExportPrecision = Literal["float32", "bfloat16", "int8"]
"""Precision of an export; int8 is OpenVINO's."""

_POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16"}
_FLOAT32_LAYERS = ("HUWindow", "InputLayer", "Softmax")
"""Layers that compute in float32 under any policy; so do those that give the outputs."""


def policies_of(model: keras.Model) -> set[str]:
    """Gives the names of the precision policies of a network's layers."""
    return {layer.dtype_policy.name for layer in model.layers}


def precision_of(model: keras.Model) -> Precision:
    """Gives the precision in which a network predicts on a CPU: bfloat16, or else float32."""
    return "bfloat16" if _POLICIES["bfloat16"] in policies_of(model) else "float32"


def for_inference(model: keras.Model, precision: Precision | None) -> keras.Model:
    """Gives a network as trained or in another precision; never in float16, for CPUs.

    In bfloat16 its kernels are rounded so that the results stay near those in float32.
    """
    if precision is None and "mixed_float16" in policies_of(model):
        precision = "float32"
    if (precision or precision_of(model)) == "bfloat16":
        return _in_bfloat16(model)
    return model if precision is None else with_precision(model, _POLICIES[precision])


def _in_bfloat16(model: keras.Model) -> keras.Model:
    from fcnseg.networks.bfloat16_kernels import round_kernels  # needs TensorFlow

    network = with_precision(model, _POLICIES["bfloat16"])
    round_kernels(network)
    return network


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
