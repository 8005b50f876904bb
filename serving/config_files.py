"""Configuration files of TensorFlow Serving: text messages, read and checked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format
from tensorflow_serving.config import model_server_config_pb2

from fcnseg.errors import InputError, one_line

METRICS_PATH = "/monitoring/prometheus/metrics"

_BOOL, _STRING = descriptor_pb2.FieldDescriptorProto.TYPE_BOOL, 9
_OPTIONAL = descriptor_pb2.FieldDescriptorProto.LABEL_OPTIONAL


def read_model_config(path: Path) -> model_server_config_pb2.ModelServerConfig:
    """Reads a `ModelServerConfig`.

    Raises:
        InputError: If it cannot be read, or is none.
    """
    config = model_server_config_pb2.ModelServerConfig()
    _read_into(path, config, flag="model_config_file")
    return config


def read_metrics_path(path: Path) -> str | None:
    """Reads a `MonitoringConfig`, and gives the path of the metrics, None if they are off.

    Raises:
        InputError: If it cannot be read, or is none.
    """
    config = _monitoring_config()
    _read_into(path, config, flag="monitoring_config_file")
    prometheus = config.prometheus_config
    return (prometheus.path or METRICS_PATH) if prometheus.enable else None


def _read_into(path: Path, message: Any, *, flag: str) -> None:
    try:
        text_format.Parse(path.read_text(), message)
    except (OSError, UnicodeDecodeError, text_format.ParseError) as error:
        kind = message.DESCRIPTOR.name
        raise InputError(
            f"{flag} must be a {kind} in text form, got {path}: {one_line(error)}"
        ) from error


def _monitoring_config() -> Any:
    """Makes an empty message whose type tensorflow-serving-api does not have."""
    file = descriptor_pb2.FileDescriptorProto(
        name="monitoring_config.proto", package="tensorflow.serving", syntax="proto3"
    )
    prometheus = file.message_type.add(name="PrometheusConfig")
    prometheus.field.add(name="enable", number=1, type=_BOOL, label=_OPTIONAL)
    prometheus.field.add(name="path", number=2, type=_STRING, label=_OPTIONAL)
    monitoring = file.message_type.add(name="MonitoringConfig")
    monitoring.field.add(
        name="prometheus_config",
        number=1,
        type=descriptor_pb2.FieldDescriptorProto.TYPE_MESSAGE,
        label=_OPTIONAL,
        type_name=".tensorflow.serving.PrometheusConfig",
    )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    found = pool.FindMessageTypeByName("tensorflow.serving.MonitoringConfig")
    return message_factory.GetMessageClass(found)()
