"""Tensors in the JSON of TensorFlow Serving's REST interface."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from fcnseg.client.served_model import SignatureInfo
from fcnseg.client.tensors import bytes_scalar
from fcnseg.client.transport import Arrays
from fcnseg.errors import InputError


def inputs_to_json(inputs: Arrays) -> dict[str, Any]:
    """Makes the value of `inputs`: nested lists by name, bytes as base64."""
    return {name: _to_json(array) for name, array in inputs.items()}


def _to_json(array: npt.NDArray[Any]) -> Any:
    if array.dtype.kind != "O":
        return array.tolist()
    coded = [{"b64": base64.b64encode(each).decode()} for each in array.ravel()]
    return coded[0] if array.ndim == 0 else np.array(coded, object).reshape(array.shape).tolist()


def outputs_from_json(outputs: Any, signature: SignatureInfo) -> Arrays:
    """Reads the value of `outputs`.

    Args:
        outputs: Values by name; if the signature has one output, the value alone.
        signature: The signature that gave it: JSON has no types.

    Raises:
        InputError: If it is not what the signature gives.
    """
    if len(signature.outputs) == 1 and not _is_by_name(outputs, signature):
        outputs = {next(iter(signature.outputs)): outputs}
    if not _is_by_name(outputs, signature):
        raise InputError(f"outputs must be {sorted(signature.outputs)}, got {str(outputs)[:80]}")
    return {name: _from_json(outputs[name], info.dtype) for name, info in signature.outputs.items()}


def _is_by_name(outputs: Any, signature: SignatureInfo) -> bool:
    return isinstance(outputs, Mapping) and outputs.keys() >= signature.outputs.keys()


def _from_json(value: Any, dtype: str) -> npt.NDArray[Any]:
    try:
        if dtype != "object":
            return np.array(value, dtype)
        if isinstance(value, list):
            return np.array([_bytes(each) for each in value], object)
        return bytes_scalar(_bytes(value))
    except (ValueError, TypeError, OverflowError, KeyError, binascii.Error) as error:
        raise InputError(f"an output must be of {dtype}: {error}") from error


def _bytes(value: Any) -> bytes:
    if isinstance(value, Mapping):
        return base64.b64decode(value["b64"])
    return str(value).encode()
