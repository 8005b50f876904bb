import importlib

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import descriptor
from tensorflow_serving.apis import predict_pb2

from fcnseg.client.messages import DATA_TYPES, MESSAGES, message_class

# Message -> where TensorFlow keeps the same messages.
REAL = {
    "tensorflow.TensorShapeProto": "tensorflow.core.framework.tensor_shape_pb2",
    "tensorflow.TensorProto": "tensorflow.core.framework.tensor_pb2",
    "tensorflow.serving.ModelSpec": "tensorflow_serving.apis.model_pb2",
    "tensorflow.serving.PredictRequest": "tensorflow_serving.apis.predict_pb2",
    "tensorflow.serving.PredictResponse": "tensorflow_serving.apis.predict_pb2",
    "tensorflow.TensorInfo": "tensorflow.core.protobuf.meta_graph_pb2",
    "tensorflow.SignatureDef": "tensorflow.core.protobuf.meta_graph_pb2",
    **{
        f"tensorflow.serving.{name}": "tensorflow_serving.apis.get_model_metadata_pb2"
        for name in ("SignatureDefMap", "GetModelMetadataRequest", "GetModelMetadataResponse")
    },
    **{
        f"tensorflow.serving.{name}": "tensorflow_serving.apis.get_model_status_pb2"
        for name in ("ModelVersionStatus", "GetModelStatusRequest", "GetModelStatusResponse")
    },
    "tensorflow.serving.StatusProto": "tensorflow_serving.apis.status_pb2",
    "google.protobuf.Any": "google.protobuf.any_pb2",
    "google.protobuf.Int64Value": "google.protobuf.wrappers_pb2",
}


def real_descriptor(name: str) -> descriptor.Descriptor:
    if name == "tensorflow.Dim":  # ours stands at the top of the package
        return real_descriptor("tensorflow.TensorShapeProto").nested_types_by_name["Dim"]
    return getattr(importlib.import_module(REAL[name]), name.rpartition(".")[2]).DESCRIPTOR


def on_the_wire(field: descriptor.FieldDescriptor) -> tuple:
    wire_type = field.TYPE_INT32 if field.type == field.TYPE_ENUM else field.type
    if hasattr(field, "is_repeated"):
        return field.name, wire_type, field.is_repeated, field.is_packed
    return field.name, wire_type, field.label  # in protobuf 4


@pytest.mark.parametrize("name", MESSAGES)
def test_fields_are_those_of_tensorflow(name):
    ours = message_class(name).DESCRIPTOR
    real = real_descriptor(name)
    for field in ours.fields:
        assert on_the_wire(field) == on_the_wire(real.fields_by_number[field.number])
        if field.message_type and field.message_type.GetOptions().map_entry:
            value = field.message_type.fields_by_name["value"].message_type
            assert value.full_name in MESSAGES


def test_data_types_are_those_of_tensorflow():
    for name, number in DATA_TYPES.items():
        assert np.dtype(tf.as_dtype(number).as_numpy_dtype).name == name


def test_request_is_read_by_tensorflow_serving():
    request = message_class("tensorflow.serving.PredictRequest")()
    request.model_spec.name = "organs"
    request.model_spec.version.value = 7
    request.inputs["volume"].dtype = DATA_TYPES["int16"]
    request.inputs["volume"].tensor_shape.dim.add(size=2)
    request.inputs["volume"].tensor_content = b"\1\0\2\0"

    real = predict_pb2.PredictRequest.FromString(request.SerializeToString())

    assert real.model_spec.WhichOneof("version_choice") == "version"
    assert [dim.size for dim in real.inputs["volume"].tensor_shape.dim] == [2]
    assert request.FromString(real.SerializeToString()) == request
