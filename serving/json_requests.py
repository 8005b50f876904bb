"""Requests of the REST interface: JSON to the inputs of a signature."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy.typing as npt

from fcnseg.saved_model.session import StatusError

from .json_body import is_base64, shown
from .json_tensors import dense_tensor
from .statuses import invalid
from .tensors import type_name

Array = npt.NDArray[Any]
Arrays = dict[str, Array]


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
        return {name: dense_tensor(rows, type_)}
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
        return {name: dense_tensor(values, types[name]) for name, values in columns.items()}
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
            array = dense_tensor(row, type_)
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
        return {name: dense_tensor(value, type_)}
    arrays = {}
    for name, type_ in types.items():
        if name not in value:
            raise invalid(f"Missing named input: {name} in 'inputs' object.")
        arrays[name] = dense_tensor(value[name], type_)
    return arrays


def _is_named(value: Any) -> bool:
    """Tells whether a value is an object of named tensors, and not one of base64."""
    return isinstance(value, dict) and not is_base64(value)
