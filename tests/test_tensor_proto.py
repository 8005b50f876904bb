"""Tensors on the wire: what TensorFlow writes we read, and the other way round."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2

from fcnseg.client.messages import DATA_TYPES, message_class
from fcnseg.client.tensors import read_tensor, write_tensor
from fcnseg.errors import InputError

TensorProto = message_class("tensorflow.TensorProto")
NUMBERS = [name for name in DATA_TYPES if name != "object"]


def example(name, shape=(2, 3)):
    if name == "object":
        return np.array([b"", b"\x00\xff", "ü".encode()], object)
    return (np.arange(np.prod(shape)) % 2 + 1).reshape(shape).astype(name)


@pytest.mark.parametrize("as_content", [True, False])
@pytest.mark.parametrize("name", DATA_TYPES)
def test_tensorflow_reads_what_is_written(name, as_content):
    array = example(name)
    message = TensorProto()
    write_tensor(array, message, as_content=as_content)
    read = tf.make_ndarray(tensor_pb2.TensorProto.FromString(message.SerializeToString()))
    assert read.dtype == array.dtype
    np.testing.assert_array_equal(read, array)
    np.testing.assert_array_equal(read_tensor(message), array)


@pytest.mark.parametrize("name", DATA_TYPES)
@pytest.mark.parametrize("shape", [(), (1,), (2, 3), (0, 4)])
def test_what_tensorflow_writes_is_read(name, shape):
    array = example(name) if name == "object" else example(name, shape)
    message = TensorProto.FromString(tf.make_tensor_proto(array).SerializeToString())
    read = read_tensor(message)
    assert read.dtype == array.dtype
    assert read.shape == array.shape
    np.testing.assert_array_equal(read, array)


@pytest.mark.parametrize(("listed", "expected"), [([7, 8], [7, 8, 8, 8]), ([], [0, 0, 0, 0])])
def test_last_value_repeats(listed, expected):
    message = TensorProto(dtype=DATA_TYPES["uint8"], int_val=listed)
    message.tensor_shape.dim.add(size=4)
    np.testing.assert_array_equal(read_tensor(message), expected)


def tensor_of(shape=(3,), **fields):
    tensor = TensorProto(**fields)
    for size in shape:
        tensor.tensor_shape.dim.add(size=size)
    return tensor


def overflows():
    """The values just outside of each type whose field holds wider numbers than it."""
    for name in ("int8", "int16", "uint8", "uint16"):
        limits = np.iinfo(name)
        for value in (limits.min - 1, limits.max + 1):
            message = f"int_val must hold numbers of {name}, got {value}"
            yield {"dtype": DATA_TYPES[name], "int_val": [1, value, 2]}, (3,), message
    for value in (-1, 2**16):
        message = f"half_val must hold numbers of uint16, got {value}"
        yield {"dtype": DATA_TYPES["float16"], "half_val": [value]}, (3,), message


INT16, FLOAT, STRING = DATA_TYPES["int16"], DATA_TYPES["float32"], DATA_TYPES["object"]


@pytest.mark.parametrize(
    ("fields", "shape", "message"),
    [
        ({"dtype": 0}, (3,), "DataType 0"),
        ({"dtype": 14}, (3,), "DataType 14"),  # bfloat16, which numpy has not
        ({"dtype": -1}, (3,), "DataType -1"),
        ({"dtype": INT16, "tensor_content": b"123"}, (3,), "3 bytes are no whole number of int16"),
        ({"dtype": INT16, "tensor_content": b"1234"}, (3,), "must not have 2 values"),
        ({"dtype": INT16, "int_val": [1, 2, 3, 4]}, (3,), "must not have 4 values"),
        ({"dtype": INT16, "int_val": [1]}, (0,), "must not have 1 values"),
        ({"dtype": STRING, "tensor_content": b"abc"}, (3,), "no whole number of object"),
        ({"dtype": INT16, "int_val": [1]}, (-1, -1), r"not be negative, got shape \(-1, -1\)"),
        ({"dtype": INT16, "int_val": [1]}, (-2, 3), r"not be negative, got shape \(-2, 3\)"),
        ({"dtype": INT16, "int_val": [1]}, (0, -1), r"not be negative, got shape \(0, -1\)"),
        ({"dtype": INT16, "tensor_content": b"12"}, (2**62, 4), "at most 2147483647 bytes, got"),
        ({"dtype": INT16, "int_val": [1]}, (2**30,), "at most 2147483647 bytes, got shape"),
        ({"dtype": FLOAT}, (2**29,), "at most 2147483647 bytes, got shape"),
        ({"dtype": STRING, "string_val": [b""]}, (2**28,), "at most 2147483647 bytes, got shape"),
        ({"dtype": FLOAT}, (0, 2**62, 2**62), "at most 2147483647 bytes, got shape"),
        ({"dtype": FLOAT, "float_val": [1.0]}, (1,) * 33, "at most 32 axes, got 33"),
        *overflows(),
    ],
)
def test_message_that_is_no_tensor_is_refused(fields, shape, message):
    with pytest.raises(InputError, match=message):
        read_tensor(tensor_of(shape, **fields))


def test_tensor_of_unknown_rank_is_refused():
    tensor = tensor_of((), dtype=FLOAT, float_val=[1.0])
    tensor.tensor_shape.unknown_rank = True
    with pytest.raises(InputError, match="must have a shape, got one of unknown rank"):
        read_tensor(tensor)


@pytest.mark.parametrize("name", NUMBERS)
def test_extremes_of_a_type_are_read(name):
    limits = np.iinfo(name) if np.dtype(name).kind in "iu" else None
    array = np.array([0, 1] if limits is None else [limits.min, limits.max], name)
    message = TensorProto()
    write_tensor(array, message, as_content=False)
    np.testing.assert_array_equal(read_tensor(message), array)


def test_array_without_a_type_on_the_wire_is_not_written():
    with pytest.raises(InputError, match="a tensor must be of a type with a DataType, got complex"):
        write_tensor(np.zeros(3, complex), TensorProto())
