"""Tensors on the wire: what TensorFlow writes we read, and the other way round."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2

from fcnseg.errors import InputError
from fcnseg.protos import DATA_TYPES, message_class
from fcnseg.tensor_proto import read_tensor, write_tensor

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


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"dtype": 14}, "DataType 14"),  # bfloat16, which numpy has not
        ({"dtype": 5, "tensor_content": b"123"}, "3 bytes are no whole number of int16"),
        ({"dtype": 5, "tensor_content": b"1234"}, "must not have 2 values"),
        ({"dtype": 5, "int_val": [1, 2, 3, 4]}, "must not have 4 values"),
    ],
)
def test_message_that_is_no_tensor_is_refused(fields, message):
    tensor = TensorProto(**fields)
    tensor.tensor_shape.dim.add(size=3)
    with pytest.raises(InputError, match=message):
        read_tensor(tensor)
