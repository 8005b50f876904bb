"""Examples in requests of the REST interface: JSON to `tf.Example` messages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from tensorflow.core.example import example_pb2, feature_pb2
from tensorflow_serving.apis import input_pb2

from .base64_text import decode_base64
from .json_body import is_base64, shown, type_of
from .statuses import invalid

_BEYOND_INT64 = 2**63


def examples_from_json(body: Mapping[str, Any]) -> input_pb2.Input:
    """Parses the examples of a request to classify or to regress.

    Raises:
        StatusError: If the request is not of this form.
    """
    given = input_pb2.Input()
    examples = given.example_list.examples
    if "context" in body:
        given.example_list_with_context.context.CopyFrom(_example(body["context"]))
        examples = given.example_list_with_context.examples
    if "examples" not in body:
        reason = "When method is classify, key 'examples' is expected and was not found"
        raise invalid(f"JSON Value: {shown(body)} {reason}")
    if not isinstance(body["examples"], list):
        raise invalid(f"JSON Value: {shown(body)} Expecting 'examples' value to be an list/array")
    if not body["examples"]:
        raise invalid(f"JSON Value: {shown(body)} 'examples' value is an empty array")
    examples.extend(_example(value) for value in body["examples"])
    return given


def _example(value: Any) -> example_pb2.Example:
    if not isinstance(value, dict):
        raise invalid(f"Example must be JSON object but got JSON {type_of(value)}")
    example = example_pb2.Example()
    for name, content in value.items():
        values = content if isinstance(content, list) else [content]
        example.features.feature[name].CopyFrom(_feature(name, values))
    return example


def _feature(name: str, values: list[Any]) -> feature_pb2.Feature:
    feature = feature_pb2.Feature()
    for value in values:
        kind, number = _feature_value(name, value)
        if feature.WhichOneof("kind") not in (None, kind):
            was = str(feature.WhichOneof("kind")).removesuffix("_list")
            raise invalid(f"Unexpected element type in feature: {name} expecting type: {was}")
        getattr(feature, kind).value.append(number)
    return feature


def _feature_value(name: str, value: Any) -> tuple[str, Any]:
    """The field of a `Feature` for a value, and the value for it."""
    if isinstance(value, str):
        return "bytes_list", value.encode()
    if is_base64(value):
        return "bytes_list", decode_base64(value["b64"])
    if isinstance(value, bool):
        return "int64_list", int(value)
    if isinstance(value, int):
        if value >= _BEYOND_INT64:
            raise invalid(f"Feature: {name} has uint64 element. Only int64 is supported.")
        return "int64_list", value
    if isinstance(value, float):
        with np.errstate(over="ignore"):
            return "float_list", float(np.float32(value))
    raise invalid(f"Feature: {name} has element with unexpected JSON type: {type_of(value)}")
