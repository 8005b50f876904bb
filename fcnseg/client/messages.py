"""The few TensorFlow and TensorFlow Serving messages that fcnseg needs, without TensorFlow.

They live in a descriptor pool of their own, so they share a process with TensorFlow's. On the wire
they are the same messages: field numbers and types are those of tensorflow/core/framework and
tensorflow_serving/apis, which a test compares.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import groupby

from google.protobuf import descriptor_pb2, descriptor_pool, message, message_factory

# Message -> its fields, as in a .proto file. Enums are written as their wire type int32, oneofs as
# plain fields, and nested messages at the top of their package: none of it changes the wire format.
MESSAGES: dict[str, tuple[str, ...]] = {
    "google.protobuf.Any": ("string type_url = 1", "bytes value = 2"),
    "google.protobuf.Int64Value": ("int64 value = 1",),
    "tensorflow.Dim": ("int64 size = 1", "string name = 2"),
    "tensorflow.TensorShapeProto": ("repeated tensorflow.Dim dim = 2", "bool unknown_rank = 3"),
    "tensorflow.TensorProto": (
        "int32 dtype = 1",
        "tensorflow.TensorShapeProto tensor_shape = 2",
        "bytes tensor_content = 4",
        "repeated int32 half_val = 13",
        "repeated float float_val = 5",
        "repeated double double_val = 6",
        "repeated int32 int_val = 7",
        "repeated bytes string_val = 8",
        "repeated int64 int64_val = 10",
        "repeated bool bool_val = 11",
        "repeated uint32 uint32_val = 16",
        "repeated uint64 uint64_val = 17",
    ),
    "tensorflow.TensorInfo": (
        "string name = 1",
        "int32 dtype = 2",
        "tensorflow.TensorShapeProto tensor_shape = 3",
    ),
    "tensorflow.SignatureDef": (
        "map tensorflow.TensorInfo inputs = 1",
        "map tensorflow.TensorInfo outputs = 2",
        "string method_name = 3",
    ),
    "tensorflow.serving.ModelSpec": (
        "string name = 1",
        "google.protobuf.Int64Value version = 2",
        "string signature_name = 3",
        "string version_label = 4",
    ),
    "tensorflow.serving.PredictRequest": (
        "tensorflow.serving.ModelSpec model_spec = 1",
        "map tensorflow.TensorProto inputs = 2",
        "repeated string output_filter = 3",
    ),
    "tensorflow.serving.PredictResponse": (
        "map tensorflow.TensorProto outputs = 1",
        "tensorflow.serving.ModelSpec model_spec = 2",
    ),
    "tensorflow.serving.SignatureDefMap": ("map tensorflow.SignatureDef signature_def = 1",),
    "tensorflow.serving.GetModelMetadataRequest": (
        "tensorflow.serving.ModelSpec model_spec = 1",
        "repeated string metadata_field = 2",
    ),
    "tensorflow.serving.GetModelMetadataResponse": (
        "tensorflow.serving.ModelSpec model_spec = 1",
        "map google.protobuf.Any metadata = 2",
    ),
    "tensorflow.serving.StatusProto": ("int32 error_code = 1", "string error_message = 2"),
    "tensorflow.serving.ModelVersionStatus": (
        "int64 version = 1",
        "int32 state = 2",
        "tensorflow.serving.StatusProto status = 3",
    ),
    "tensorflow.serving.GetModelStatusRequest": ("tensorflow.serving.ModelSpec model_spec = 1",),
    "tensorflow.serving.GetModelStatusResponse": (
        "repeated tensorflow.serving.ModelVersionStatus model_version_status = 1",
    ),
}

# numpy's name of a type -> tensorflow.DataType; `object` holds the bytes of DT_STRING.
DATA_TYPES: dict[str, int] = {
    "float32": 1,
    "float64": 2,
    "int32": 3,
    "uint8": 4,
    "int16": 5,
    "int8": 6,
    "object": 7,
    "int64": 9,
    "bool": 10,
    "uint16": 17,
    "float16": 19,
    "uint32": 22,
    "uint64": 23,
}

_Field = descriptor_pb2.FieldDescriptorProto
_FIELD = re.compile(r"(?P<rule>repeated|map)? ?(?P<type>[\w.]+) (?P<name>\w+) = (?P<number>\d+)")


def message_class(name: str) -> type[message.Message]:
    """Gives the class of a message.

    Args:
        name: Full name, one of `MESSAGES`.

    Returns:
        The generated class: `message_class("tensorflow.TensorProto")()` is an empty tensor.
    """
    return message_factory.GetMessageClass(_POOL.FindMessageTypeByName(name))


def _make_pool() -> descriptor_pool.DescriptorPool:
    pool = descriptor_pool.DescriptorPool()
    files: list[str] = []
    for package, names in groupby(MESSAGES, key=lambda name: name.rpartition(".")[0]):
        file = descriptor_pb2.FileDescriptorProto(
            name=f"fcnseg/{package}.proto", package=package, syntax="proto3", dependency=files
        )
        for name in names:
            _add_message(file, name)
        pool.Add(file)
        files.append(file.name)
    return pool


def _add_message(file: descriptor_pb2.FileDescriptorProto, name: str) -> None:
    declared = file.message_type.add(name=name.rpartition(".")[2])
    for rule, type_name, field_name, number in _fields(name):
        field = declared.field.add(name=field_name, number=number, label=_Field.LABEL_OPTIONAL)
        if rule:
            field.label = _Field.LABEL_REPEATED
        if rule == "map":
            # A map is on the wire, and to protobuf, a repeated message of this name and form.
            words = "".join(word.capitalize() for word in field_name.split("_"))
            entry = declared.nested_type.add(name=f"{words}Entry")
            entry.options.map_entry = True
            entry.field.add(
                name="key", number=1, type=_Field.TYPE_STRING, label=field.LABEL_OPTIONAL
            )
            _set_type(
                entry.field.add(name="value", number=2, label=field.LABEL_OPTIONAL), type_name
            )
            type_name = f"{name}.{entry.name}"
        _set_type(field, type_name)


def _fields(name: str) -> Iterator[tuple[str | None, str, str, int]]:
    for declaration in MESSAGES[name]:
        match = _FIELD.fullmatch(declaration)
        if match is None:
            raise ValueError(f"{name}: {declaration!r} is not a field declaration")
        yield match["rule"], match["type"], match["name"], int(match["number"])


def _set_type(field: descriptor_pb2.FieldDescriptorProto, type_name: str) -> None:
    if "." in type_name:
        field.type, field.type_name = _Field.TYPE_MESSAGE, f".{type_name}"
    else:
        field.type = _Field.Type.Value(f"TYPE_{type_name.upper()}")


_POOL = _make_pool()
