"""Nested lists of JSON as tensors, with the real server's errors."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from fcnseg.saved_model.session import MAX_AXES, StatusError

from .base64_text import decode_base64
from .json_body import is_base64, shown, type_of
from .statuses import invalid

Array = npt.NDArray[Any]

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


def dense_tensor(value: Any, type_: str) -> Array:
    """Makes a tensor of nested lists.

    Args:
        value: A list, or a value for a scalar.
        type_: Name of the type in the real server's messages, as `float`.

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
    if len(sizes) > MAX_AXES:
        raise invalid(f"a tensor must have at most {MAX_AXES} axes, got {len(sizes)}")
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
