"""TensorFlow Serving's JSON form of a predict request and its reply."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from fcnseg.client.tensors import numpy_type
from fcnseg.errors import InputError
from fcnseg.saved_model.session import StatusError

_INSTANCES, _INPUTS = "instances", "inputs"
_BYTES_SUFFIX = "_bytes"  # an output of bytes is base64 only if its name ends this way
_NO_JSON_FORM = ("uint16", "float16")  # types that the real server does not convert

Arrays = dict[str, npt.NDArray[Any]]


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
    if _INSTANCES in body and _INPUTS in body:
        raise _invalid(
            f"Not formatted correctly expecting only one of '{_INPUTS}' or '{_INSTANCES}' keys"
            " to exist "
        )
    if _INSTANCES in body:
        columns = _columns_of_rows(body[_INSTANCES], sorted(expected))
    elif _INPUTS in body:
        columns = _columns(body[_INPUTS], sorted(expected))
    else:
        raise _invalid("Missing 'inputs' or 'instances' key")
    arrays = {name: _array(value, _type(expected[name])) for name, value in columns.items()}
    return arrays, _INSTANCES in body


def outputs_to_json(outputs: Arrays, *, in_rows: bool) -> dict[str, Any]:
    """Formats the reply of a request, in the form of the request.

    Raises:
        StatusError: If rows are wanted and the outputs differ in their number.
    """
    if in_rows:
        _check_rows(outputs)
    values = {name: _json_value(name, array) for name, array in outputs.items()}
    if len(values) == 1:
        return {"predictions" if in_rows else "outputs": next(iter(values.values()))}
    if not in_rows:
        return {"outputs": values}
    rows = zip(*values.values(), strict=True)
    return {"predictions": [dict(zip(values, row, strict=True)) for row in rows]}


def _columns_of_rows(rows: Any, names: list[str]) -> dict[str, Any]:
    """Stacks rows on a new first axis, one column for each input."""
    if not isinstance(rows, list):
        raise _invalid(f"Excepting '{_INSTANCES}' to be an list/array")
    if not rows:
        raise _invalid(f"No values in '{_INSTANCES}' array")
    has_names = [_is_named(row) for row in rows]
    if not any(has_names):
        if len(names) != 1:
            raise _invalid(
                "instances is a plain list, but expecting list of objects as multiple input"
                " tensors required as per tensorinfo_map"
            )
        return {names[0]: rows}
    for number, row in enumerate(rows):
        if not has_names[number] or sorted(row) != names:
            raise _invalid(
                f"Failed to process element: {number} of 'instances' list. JSON object:"
                f" {_shown(row)} keys must be equal to: {','.join(names)}"
            )
    return {name: [row[name] for row in rows] for name in names}


def _columns(value: Any, names: list[str]) -> dict[str, Any]:
    if not _is_named(value):
        if len(names) != 1:
            raise _invalid(
                "inputs is a plain value/list, but expecting an object as multiple input tensors"
                " required as per tensorinfo_map"
            )
        return {names[0]: value}
    for name in names:
        if name not in value:
            raise _invalid(f"Missing named input: {name} in 'inputs' object.")
    return {name: value[name] for name in names}


def _is_named(value: Any) -> bool:
    """Tells whether a value is an object of named tensors, and not one of base64."""
    return isinstance(value, dict) and not _is_base64(value)


def _is_base64(value: Any) -> bool:
    return isinstance(value, dict) and list(value) == ["b64"] and isinstance(value["b64"], str)


def _type(info: Any) -> np.dtype[Any]:
    """The type of an input, if JSON has a form for it."""
    try:
        dtype = numpy_type(info.dtype)
    except InputError as error:
        raise StatusError("UNIMPLEMENTED", f"Conversion of JSON Value: {error}") from error
    if dtype.name in _NO_JSON_FORM:
        raise StatusError("UNIMPLEMENTED", f"Conversion of JSON Value to type: {dtype}")
    return dtype


def _array(value: Any, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """Makes a tensor from nested lists; numbers keep their kind, and must fit the type."""
    if dtype.kind == "O":
        return _bytes_array(value)
    if not _leaf_types(value) <= {int, float, bool}:
        raise _mistyped(value, dtype)
    try:
        array = np.array(value)
    except ValueError as error:  # lists of different lengths, or more axes than arrays have
        raise _invalid(f"JSON Value: {_shown(value)} is not a tensor: {error}") from error
    kinds = {"f": "iuf", "i": "iu", "u": "iu", "b": "b"}[dtype.kind]
    if array.size and array.dtype.kind not in kinds:
        raise _mistyped(value, dtype)
    with np.errstate(over="ignore", invalid="ignore"):
        cast = array.astype(dtype)
    is_lost = dtype.kind != "f" and not np.array_equal(cast, array)
    if is_lost or (dtype.kind == "f" and not np.isfinite(cast[np.isfinite(array)]).all()):
        raise _mistyped(value, dtype)
    return cast


def _leaf_types(value: Any) -> set[type]:
    """Collects the types in nested lists; numpy would pad each item to the longest text."""
    found: set[type] = set()
    lists = [[value]]
    while lists:
        items = lists.pop()
        types = set(map(type, items))
        if list in types:
            lists.extend(item for item in items if isinstance(item, list))
        found |= types - {list}
    return found


def _bytes_array(value: Any) -> npt.NDArray[Any]:
    """Makes a tensor of bytes from nested lists of texts and base64 objects."""
    try:
        array = np.array(_decoded(value), object)
    except RecursionError as error:
        raise _invalid(f"JSON Value: {_shown(value)} is nested too deeply") from error
    if any(isinstance(item, list) for item in array.ravel()):
        raise _invalid(f"JSON Value: {_shown(value)} is not a tensor: lists of different lengths")
    return array


def _decoded(value: Any) -> Any:
    """Decodes nested lists of strings and base64 objects to bytes."""
    if isinstance(value, list):
        return [_decoded(item) for item in value]
    if isinstance(value, str):
        return value.encode()
    if not _is_base64(value):
        raise _mistyped(value, "string")
    try:
        return base64.b64decode(value["b64"], validate=True)
    except binascii.Error as error:
        raise _invalid("Unable to base64 decode") from error


def _check_rows(outputs: Arrays) -> None:
    rows: int | None = None
    for name, array in sorted(outputs.items()):
        if array.ndim == 0:
            raise _invalid(f"Tensor name: {name} has no shape information ")
        if rows is not None and len(array) != rows:
            raise _invalid(
                f"Tensor name: {name} has inconsistent batch size: {len(array)} expecting: {rows}"
            )
        rows = len(array)


def _json_value(name: str, array: npt.NDArray[Any]) -> Any:
    """Converts nested lists to values that JSON can represent."""
    if array.dtype == object:
        return _encoded(array.tolist(), as_base64=name.endswith(_BYTES_SUFFIX))
    if array.dtype == np.float32:
        # The shortest digits that give this float32: 0.2, not 0.20000000298023224.
        array = array.astype(str).astype(np.float64)
    return array.tolist()


def _encoded(value: Any, *, as_base64: bool) -> Any:
    if isinstance(value, list):
        return [_encoded(item, as_base64=as_base64) for item in value]
    if as_base64:
        return {"b64": base64.b64encode(value).decode()}
    return value.decode(errors="replace")


def _shown(value: Any) -> str:
    """The start of a value as JSON."""
    try:
        return json.dumps(value)[:80]
    except RecursionError:
        return "[" * 80


def _mistyped(value: Any, expected: object) -> StatusError:
    return _invalid(f"JSON Value: {_shown(value)} is not of expected type: {expected}")


def _invalid(message: str) -> StatusError:
    return StatusError("INVALID_ARGUMENT", message)
