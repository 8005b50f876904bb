"""Arrays in TensorFlow's `TensorProto` messages, without TensorFlow.

The messages may be those of `fcnseg.client.messages` or TensorFlow's own: the fields are the same.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from fcnseg.client.messages import DATA_TYPES
from fcnseg.errors import InputError

# Largest size of an array: what one message can carry as raw bytes. A few bytes may claim more,
# since the last of the listed values repeats.
_MAX_BYTES = 2**31 - 1
_MAX_AXES = 32  # the limit of numpy 1; numpy 2 has 64

_NUMPY_TYPES = {number: name for name, number in DATA_TYPES.items()}

VALUE_FIELDS = {
    "float16": "half_val",
    "float32": "float_val",
    "float64": "double_val",
    "int8": "int_val",
    "int16": "int_val",
    "int32": "int_val",
    "uint8": "int_val",
    "uint16": "int_val",
    "int64": "int64_val",
    "uint32": "uint32_val",
    "uint64": "uint64_val",
    "bool": "bool_val",
    "object": "string_val",
}
"""The repeated field of each numpy type that holds the values if `tensor_content` does not."""


def numpy_type(number: int) -> np.dtype[Any]:
    """The numpy type of a `tensorflow.DataType`; bytes are objects.

    Raises:
        InputError: If it has none.
    """
    if number not in _NUMPY_TYPES:
        raise InputError(f"a tensor must be of a known type, got DataType {number}")
    return np.dtype(_NUMPY_TYPES[number])


def bytes_scalar(value: bytes) -> npt.NDArray[Any]:
    """Makes the scalar of bytes that a signature takes for a file."""
    array = np.empty((), object)
    array[()] = value
    return array


def write_tensor(array: npt.NDArray[Any], tensor: Any, *, as_content: bool = True) -> None:
    """Fills an empty message with an array.

    Args:
        array: Numbers, or objects that are bytes.
        tensor: The `TensorProto` to fill.
        as_content: Write numbers as one block of raw bytes; else one by one, which takes about 60
            times as long.

    Raises:
        InputError: If no tensor has the array's type.
    """
    if array.dtype.name not in DATA_TYPES:
        raise InputError(f"a tensor must be of a type with a DataType, got {array.dtype}")
    tensor.dtype = DATA_TYPES[array.dtype.name]
    tensor.tensor_shape.SetInParent()  # a scalar has a shape too
    for size in array.shape:
        tensor.tensor_shape.dim.add(size=size)
    if as_content and array.dtype.kind != "O":
        tensor.tensor_content = array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
        return
    values = array.view(np.uint16) if array.dtype == np.float16 else array  # half_val holds bits
    getattr(tensor, VALUE_FIELDS[array.dtype.name]).extend(values.ravel().tolist())


def read_tensor(tensor: Any) -> npt.NDArray[Any]:
    """Reads the array in a message, from raw bytes or from the fields that hold single values.

    If fewer values are listed than the shape asks for, the last one repeats, as in TensorFlow.

    Raises:
        InputError: If the type is unknown, or the values do not fit the shape.
    """
    dtype = numpy_type(tensor.dtype)
    shape = _checked_shape(tensor.tensor_shape, dtype)
    size = math.prod(shape)
    values = _content(tensor, dtype) if tensor.tensor_content else _listed(tensor, dtype, size)
    if len(values) != size:
        raise InputError(f"a tensor of shape {shape} must not have {len(values)} values")
    return values.reshape(shape)


def _checked_shape(proto: Any, dtype: np.dtype[Any]) -> tuple[int, ...]:
    """Checks and returns the shape of a tensor, before any memory is allocated for it."""
    if proto.unknown_rank:
        raise InputError("a tensor must have a shape, got one of unknown rank")
    if len(proto.dim) > _MAX_AXES:
        raise InputError(f"a tensor must have at most {_MAX_AXES} axes, got {len(proto.dim)}")
    shape = tuple(dim.size for dim in proto.dim)
    if any(size < 0 for size in shape):
        raise InputError(f"a tensor's sizes must not be negative, got shape {shape}")
    if math.prod(max(size, 1) for size in shape) * dtype.itemsize > _MAX_BYTES:
        raise InputError(
            f"a tensor must take at most {_MAX_BYTES} bytes, got shape {shape} of {dtype}"
        )
    return shape


def _content(tensor: Any, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    if dtype.kind == "O" or len(tensor.tensor_content) % dtype.itemsize:
        raise InputError(f"{len(tensor.tensor_content)} bytes are no whole number of {dtype}")
    stored: npt.NDArray[Any] = np.frombuffer(tensor.tensor_content, dtype.newbyteorder("<"))
    return stored.astype(dtype, copy=False)


def _listed(tensor: Any, dtype: np.dtype[Any], size: int) -> npt.NDArray[Any]:
    field = VALUE_FIELDS[dtype.name]
    listed = getattr(tensor, field)
    if dtype == np.float16:
        values = _within(listed, np.dtype(np.uint16), field).view(np.float16)
    else:
        values = _within(listed, dtype, field)
    if len(values) < size:
        last = values[-1:] if len(values) else np.zeros(1, dtype)
        values = np.concatenate([values, np.repeat(last, size - len(values))])
    return values


def _within(listed: Any, dtype: np.dtype[Any], field: str) -> npt.NDArray[Any]:
    """Converts values of a field to a type that may be narrower than the field's."""
    if field not in ("int_val", "half_val"):
        return np.array(listed, dtype)
    wide = np.array(listed, np.int64)
    values: npt.NDArray[Any] = wide.astype(dtype)
    is_lost = values != wide
    if is_lost.any():
        raise InputError(f"{field} must hold numbers of {dtype}, got {wide[is_lost][0]}")
    return values
