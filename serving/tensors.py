"""Arrays in `TensorProto` messages, read and written as TensorFlow Serving does.

A value that its type cannot hold wraps around, the last of the listed values repeats, and values
beyond the shape are left out: `fcnseg.client.tensors` is stricter.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2

from fcnseg.client.tensors import VALUE_FIELDS
from fcnseg.saved_model.session import MAX_AXES

from .statuses import invalid

_MAX_BYTES = 2**31 - 1  # what one message can carry
# What a few bytes may claim, since the last of the listed values repeats: a volume of one value.
MAX_REPEATED_BYTES = 64 * 2**20
_STRING_BYTES = 32  # of a string in numpy and TensorFlow, besides its content

# The repeated field that holds the values of a type if `tensor_content` does not.
_VALUE_FIELDS = {
    **VALUE_FIELDS,
    "bfloat16": "half_val",
    "complex64": "scomplex_val",
    "complex128": "dcomplex_val",
    "string": "string_val",
}
_HALVES = {"float16", "bfloat16"}  # listed as the bits of each value
_SHORT_NAMES = {"float32": "float", "float64": "double", "float16": "half"}

_PACKED_INTEGERS = b"\x3a"  # field 7, int_val, of wire type 2
_PACKED_FLOATS = b"\x2a"  # field 5, float_val
_ONE_BYTE = 127  # the largest integer that takes one byte on the wire

Array = npt.NDArray[Any]


def type_name(number: int) -> str:
    """The name of a `DataType` in the real server's messages: `float`, `half`, `uint8`."""
    name = tf.as_dtype(number).name
    return _SHORT_NAMES.get(name, name)


def read_tensor(name: str, tensor: tensor_pb2.TensorProto) -> Array:
    """Reads the array of an input; bytes are objects.

    Args:
        name: Name of the input, for messages.
        tensor: The message, whose claimed shape is checked before memory is allocated.

    Raises:
        StatusError: If the shape or the type is none, or the values are not those of the shape.
    """
    try:
        type_ = tf.as_dtype(tensor.dtype).name
    except TypeError:
        type_ = ""
    if type_ not in _VALUE_FIELDS:
        raise _parsing_error(name, f"DataType {tensor.dtype} cannot be sent")
    dtype = np.dtype(object) if type_ == "string" else tf.as_dtype(tensor.dtype).as_numpy_dtype
    dtype = np.dtype(dtype)
    shape = _checked_shape(name, tensor.tensor_shape, dtype)
    size = math.prod(shape)
    if not size:
        return np.zeros(shape, dtype)
    if content := tensor.tensor_content:  # a copy each time
        return _content(name, content, dtype, size).reshape(shape)
    listed = getattr(tensor, _VALUE_FIELDS[type_])
    count = len(listed) // (2 if dtype.kind == "c" else 1)
    if count < size and size * _bytes_of_last(listed, dtype) > MAX_REPEATED_BYTES:
        raise _parsing_error(name, f"shape {shape} of {dtype} must not have {count} values")
    return _filled(_listed(listed, type_, dtype)[:size], size, dtype).reshape(shape)


def write_tensor(array: Array, tensor: tensor_pb2.TensorProto, *, as_content: bool) -> None:
    """Fills an empty message with an array.

    Args:
        array: Numbers, or objects that are bytes.
        tensor: The message to fill.
        as_content: Write numbers as one block of raw bytes; else in the field of their type.
    """
    dtype = tf.as_dtype(array.dtype)
    tensor.dtype = dtype.as_datatype_enum
    tensor.tensor_shape.SetInParent()  # a scalar has a shape too
    for size in array.shape:
        tensor.tensor_shape.dim.add(size=size)
    if array.dtype.kind == "O":
        tensor.string_val.extend(array.ravel().tolist())
    elif as_content:
        tensor.tensor_content = array.tobytes()
    elif dtype == tf.float32:
        _merge_packed(tensor, _PACKED_FLOATS, array.tobytes())
    elif array.dtype.kind in "iu" and array.dtype.itemsize < 4 and _is_one_byte(array):
        _merge_packed(tensor, _PACKED_INTEGERS, array.astype(np.uint8).tobytes())
    else:
        field = getattr(tensor, _VALUE_FIELDS[dtype.name])
        field.extend(_values(array, dtype.name).ravel().tolist())


def _parsing_error(name: str, reason: str) -> Exception:
    return invalid(f"tensor parsing error: {name}: {reason}")


def _checked_shape(name: str, proto: Any, dtype: np.dtype[Any]) -> tuple[int, ...]:
    shape = tuple(dim.size for dim in proto.dim)
    if proto.unknown_rank or any(size < 0 for size in shape):
        raise _parsing_error(name, f"a tensor must have a known shape, got {list(shape)}")
    if len(shape) > MAX_AXES:
        raise _parsing_error(name, f"a tensor must have at most {MAX_AXES} axes, got {len(shape)}")
    if math.prod(max(size, 1) for size in shape) * dtype.itemsize > _MAX_BYTES:
        raise _parsing_error(name, f"a tensor must take at most {_MAX_BYTES} bytes, got {shape}")
    return shape


def _content(name: str, content: bytes, dtype: np.dtype[Any], size: int) -> Array:
    if dtype.kind == "O" or len(content) != size * dtype.itemsize:
        raise _parsing_error(name, f"{len(content)} bytes are not {size} values of {dtype}")
    return np.frombuffer(content, dtype)


def _bytes_of_last(listed: Any, dtype: np.dtype[Any]) -> int:
    """Memory of each copy of the last of the listed values; TensorFlow copies strings too."""
    if dtype.kind != "O":
        return dtype.itemsize
    return _STRING_BYTES + (len(listed[-1]) if len(listed) else 0)


def _listed(listed: Any, type_: str, dtype: np.dtype[Any]) -> Array:
    """The values of a field, which wrap around where the type is narrower."""
    if dtype.kind == "O":
        return np.fromiter(listed, object, len(listed))
    if type_ in _HALVES:
        return np.array(listed, np.int32).astype(np.uint16).view(dtype)
    if dtype.kind == "c":
        part = np.float32 if type_ == "complex64" else np.float64
        return np.array(listed[: len(listed) // 2 * 2], part).view(dtype)
    if _VALUE_FIELDS[type_] == "int_val":
        return np.array(listed, np.int32).astype(dtype)
    return np.array(listed, dtype)


def _filled(values: Array, size: int, dtype: np.dtype[Any]) -> Array:
    if len(values) == size:
        return values
    if not len(values):
        return np.full(size, b"" if dtype.kind == "O" else 0, dtype)
    return np.concatenate([values, np.repeat(values[-1:], size - len(values))])


def _values(array: Array, type_: str) -> Array:
    """The numbers that the field of a type lists."""
    if type_ in _HALVES:
        return array.view(np.uint16)
    if array.dtype.kind == "c":
        return np.ascontiguousarray(array).reshape(-1).view(array.real.dtype)
    return array


def _is_one_byte(array: Array) -> bool:
    return bool(array.size) and array.min() >= 0 and array.max() <= _ONE_BYTE


def _merge_packed(tensor: tensor_pb2.TensorProto, tag: bytes, values: bytes) -> None:
    """Adds values of a field as they are on the wire: an int each, they take 20 times as long."""
    size, length = len(values), bytearray()
    while size >= 1 << 7:
        length.append(size & 0x7F | 0x80)
        size >>= 7
    length.append(size)
    tensor.MergeFromString(tag + length + values)
