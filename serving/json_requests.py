"""Requests of the REST interface: JSON to the inputs of a signature, or to examples."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from tensorflow.core.example import example_pb2, feature_pb2
from tensorflow_serving.apis import input_pb2

from fcnseg.saved_model.session import StatusError

from .base64_text import decode_base64
from .json_body import is_base64, shown, type_of
from .statuses import invalid
from .tensors import type_name

Array = npt.NDArray[Any]
Arrays = dict[str, Array]

# The range of integers that JSON may have for a type. Those of 32 bits and less share one: what a
# narrower type cannot hold wraps around, as in the real server.
_INT32, _INT64 = (-(2**31), 2**31), (-(2**63), 2**63)
_RANGES = {
    "int8": _INT32,
    "int16": _INT32,
    "int32": _INT32,
    "uint8": _INT32,
    "int64": _INT64,
    "uint32": (0, 2**32),
    "uint64": (0, 2**64),
}
_FLOATS = {"float": float, "double": float}
_MAX_AXES = 32  # what numpy 1 has; the real server has no limit here


def signature_name_of(body: Mapping[str, Any]) -> str:
    """Gives the signature that a request names, empty if none.

    Raises:
        StatusError: If it is not text.
    """
    name = body.get("signature_name", "")
    if not isinstance(name, str):
        raise invalid(
            f"JSON Value: {shown(body)} not formatted correctly. 'signature_name' key must be a"
            " string value."
        )
    return name


def inputs_from_json(body: Mapping[str, Any], expected: Mapping[str, Any]) -> tuple[Arrays, bool]:
    """Parses the inputs of a request.

    Args:
        body: The request, with `instances` (rows) or `inputs` (columns).
        expected: `TensorInfo` of each input of the signature.

    Returns:
        An array for each input, and True if the request is in rows.

    Raises:
        StatusError: If the request is not of this form.
    """
    types = {name: type_name(info.dtype) for name, info in sorted(expected.items())}
    if "instances" in body and "inputs" in body:
        raise invalid(
            f"JSON Value: {shown(body)} Not formatted correctly expecting only one of 'inputs' or"
            " 'instances' keys to exist "
        )
    if "instances" in body:
        rows = body["instances"]
        if not isinstance(rows, list):
            raise invalid(f"JSON Value: {shown(body)} Expecting 'instances' to be an list/array")
        if not rows:
            raise invalid(f"JSON Value: {shown(body)} No values in 'instances' array")
        return _rows(rows, types), True
    if "inputs" in body:
        return _columns(body["inputs"], types), False
    raise invalid("Missing 'inputs' or 'instances' key")


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


def _rows(rows: list[Any], types: Mapping[str, str]) -> Arrays:
    """Stacks rows on a new first axis, one array for each input."""
    if not isinstance(rows[0], dict) and len(types) > 1:
        raise invalid(
            "instances is a plain list, but expecting list of objects as multiple input tensors"
            " required as per tensorinfo_map"
        )
    if _is_named(rows[0]):
        return _named_rows(rows, types)
    for number, row in enumerate(rows):
        if _is_named(row):
            raise invalid(f"Expecting value/list but got object at item {number} of input list")
    (name, type_), *_ = types.items()
    try:
        return {name: _dense(rows, type_)}
    except StatusError:  # a row at a time, to name the one that is wrong
        _check_rows(rows, type_)
        raise


def _named_rows(rows: list[Any], types: Mapping[str, str]) -> Arrays:
    columns: dict[str, list[Any]] = {name: [] for name in types}
    for number, row in enumerate(rows):
        if not _is_named(row):
            raise invalid(f"Expecting object but got list at item {number} of input list")
        for name, value in row.items():
            if name not in types:
                raise _row_error(
                    number, invalid(f"JSON object: does not have named input: {name}"), key=name
                )
            columns[name].append(value)
        if len(row) != len(types):
            raise invalid(
                f"Failed to process element: {number} of 'instances' list. JSON object:"
                f" {shown(row)} must only have keys: {','.join(types)}"
            )
    try:
        return {name: _dense(values, types[name]) for name, values in columns.items()}
    except StatusError:
        for name, values in columns.items():
            _check_rows(values, types[name], key=name)
        raise


def _check_rows(rows: list[Any], type_: str, *, key: str | None = None) -> None:
    """Parses rows one by one.

    Raises:
        StatusError: Names the first that is no tensor, or unlike the first.
    """
    first: Array | None = None
    number = -1
    try:
        for row in rows:
            number += 1
            array = _dense(row, type_)
            first = array if first is None else first
            if array.size != first.size:
                raise invalid(f"Expecting tensor size: {first.size} but got: {array.size}")
            if array.shape != first.shape:
                raise invalid(f"Expecting shape {_listed(first)} but got: {_listed(array)}")
    except StatusError as error:
        raise _row_error(number, error, key=key) from error


def _row_error(number: int, error: StatusError, *, key: str | None) -> StatusError:
    named = "" if key is None else f" key: {key}"
    return invalid(
        f"Failed to process element: {number}{named} of 'instances' list. Error: {error}"
    )


def _listed(array: Array) -> str:
    return "[" + ",".join(map(str, array.shape)) + "]"


def _columns(value: Any, types: Mapping[str, str]) -> Arrays:
    if not _is_named(value):
        if len(types) != 1:
            raise invalid(
                "inputs is a plain value/list, but expecting an object as multiple input tensors"
                " required as per tensorinfo_map"
            )
        (name, type_), *_ = types.items()
        return {name: _dense(value, type_)}
    arrays = {}
    for name, type_ in types.items():
        if name not in value:
            raise invalid(f"Missing named input: {name} in 'inputs' object.")
        arrays[name] = _dense(value[name], type_)
    return arrays


def _is_named(value: Any) -> bool:
    """Tells whether a value is an object of named tensors, and not one of base64."""
    return isinstance(value, dict) and not is_base64(value)


def _dense(value: Any, type_: str) -> Array:
    """Makes a tensor of nested lists.

    Raises:
        StatusError: If lists at one depth differ in length, or a value is not of the type.
    """
    shape = _shape(value)
    leaves = [value]
    for level, size in enumerate(shape):
        if not all(type(item) is list and len(item) == size for item in leaves):
            _raise_first_fault(value, shape, type_)
        leaves = list(itertools.chain.from_iterable(leaves))
        if not size:
            return np.zeros(shape[: level + 1], _numpy_type(type_))
    if not _are_of_type(leaves, type_):
        _raise_first_fault(value, shape, type_)
    return _array(leaves, type_).reshape(shape)


def _shape(value: Any) -> tuple[int, ...]:
    sizes: list[int] = []
    while isinstance(value, list):
        sizes.append(len(value))
        if not value:
            break
        value = value[0]
    if len(sizes) > _MAX_AXES:
        raise invalid(f"a tensor must have at most {_MAX_AXES} axes, got {len(sizes)}")
    return tuple(sizes)


def _are_of_type(leaves: list[Any], type_: str) -> bool:
    """Tells whether all values are of a type; integers must be written as such."""
    found = set(map(type, leaves))
    if type_ in _FLOATS:
        return found <= {int, float}
    if type_ in _RANGES:
        low, high = _RANGES[type_]
        return found == {int} and low <= min(leaves) and max(leaves) < high
    if type_ == "bool":
        return found == {bool}
    return type_ == "string" and (found == {str} or all(map(_is_text, leaves)))


def _is_text(value: Any) -> bool:
    return isinstance(value, str) or is_base64(value)


def _numpy_type(type_: str) -> Any:
    if type_ == "string":
        return object
    return {"float": np.float32, "double": np.float64, "bool": np.bool_}.get(type_, type_)


def _array(leaves: list[Any], type_: str) -> Array:
    if type_ == "string":
        texts = (v.encode() if isinstance(v, str) else decode_base64(v["b64"]) for v in leaves)
        return np.fromiter(texts, object, len(leaves))
    if type_ in _FLOATS:
        with np.errstate(over="ignore"):
            return np.array(leaves, np.float64).astype(_numpy_type(type_))
    wide = type_ if type_ in ("bool", "uint32", "uint64") else np.int64
    return np.array(leaves, wide).astype(_numpy_type(type_))


def _raise_first_fault(value: Any, shape: tuple[int, ...], type_: str) -> None:
    """Raises the error of the first value that does not fit, in the order of the text."""
    levels: list[Iterator[Any]] = [iter([value])]
    while levels:
        item = next(levels[-1], levels)
        if item is levels:
            levels.pop()
            continue
        level = len(levels) - 1
        if not isinstance(item, list):
            _check_leaf(item, level, len(shape), type_)
            continue
        if level >= len(shape):
            raise invalid(f"Encountered list at unexpected level: {level} expected < {len(shape)}")
        if len(item) != shape[level]:
            raise invalid(
                f"Encountered list at unexpected size: {len(item)} at level: {level} expected"
                f" size: {shape[level]}"
            )
        levels.append(iter(item))


def _check_leaf(value: Any, level: int, rank: int, type_: str) -> None:
    if level != rank:
        raise invalid(
            f"JSON Value: {shown(value)} found at incorrect level: {level + 1} in the JSON DOM."
            f" Expected at level: {rank}"
        )
    if type_ == "string" and isinstance(value, dict) and not is_base64(value):
        raise invalid(f"JSON Value: {shown(value)} not formatted correctly for base64 data")
    known = type_ in _FLOATS or type_ in _RANGES or type_ in ("bool", "string")
    if not known and not isinstance(value, dict):
        raise StatusError(
            "UNIMPLEMENTED", f"Conversion of JSON Value: {shown(value)} to type: {type_}"
        )
    if not _are_of_type([value], type_):
        raise invalid(
            f"JSON Value: {shown(value)} Type: {type_of(value)} is not of expected type: {type_}"
        )


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
        if value >= _INT64[1]:
            raise invalid(f"Feature: {name} has uint64 element. Only int64 is supported.")
        return "int64_list", value
    if isinstance(value, float):
        with np.errstate(over="ignore"):
            return "float_list", float(np.float32(value))
    raise invalid(f"Feature: {name} has element with unexpected JSON type: {type_of(value)}")
