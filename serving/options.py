"""Options of a server: the flags of `fcnseg serve`."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import tyro

from fcnseg.errors import InputError

Switch = tyro.conf.FlagConversionOff[bool]
"""A flag of true or false, as `for_command` writes it."""


_LAST_PORT = 2**16 - 1


@dataclasses.dataclass(frozen=True)
class ServerOptions:
    """Models, addresses and limits of a server."""

    model_base_path: Path | None = None
    """Folder whose children are the model's versions 1, 2, …"""
    model_name: str = "fcnseg"
    """Name of the model in requests; the real server's default is default."""
    model_config_file: Path | None = None
    """ModelServerConfig in text form, instead of the two above: models, versions, labels."""
    model_config_file_poll_wait_seconds: float = 0.0
    """Seconds between looks at that file; 0 reads it once."""
    port: int = 8500
    """gRPC port; 0 switches gRPC off, -1 takes a free one."""
    rest_api_port: int = 8501
    """REST port; 0 switches REST off, -1 takes a free one."""
    grpc_socket_path: Path | None = None
    """UNIX socket for gRPC, beside the port."""
    host: str = "127.0.0.1"
    """Address to listen on; the real server listens on all."""
    rest_api_timeout_in_ms: int = 600_000
    """Milliseconds that a REST call may take; the real server's default is 30000."""
    rest_api_enable_cors_support: Switch = False
    """Let web pages of other sites call."""
    file_system_poll_wait_seconds: float = 1.0
    """Seconds between polls for a new version; 0 polls once."""
    max_num_load_retries: int = 5
    """Maximum number of retries of a version that could not be loaded; it is also retried whenever
    its files have changed."""
    load_retry_interval_micros: int = 60_000_000
    """Microseconds between these retries."""
    allow_version_labels_for_unavailable_models: Switch = False
    """Let a new label name a version that is not served yet."""
    monitoring_config_file: Path | None = None
    """MonitoringConfig in text form, which switches metrics for Prometheus on."""
    enable_model_warmup: Switch = True
    """Run the requests in assets.extra/tf_serving_warmup_requests before a version is served."""
    num_request_iterations_for_warmup: int = 1
    """Number of times that each of them is run."""
    enable_signature_method_name_check: Switch = False
    """Classify and regress only by signatures made for it."""
    enable_grpc_healthcheck_service: Switch = True
    """Serve grpc.health.v1; the real server's default is false."""
    enable_serialization_as_tensor_content: Switch = False
    """Reply over gRPC with raw bytes instead of single values: much faster."""
    grpc_channel_arguments: str = ""
    """Arguments of gRPC: key=value,key=value"""
    max_running_calls: int = 2
    """Calls that run a model at the same time; not a flag of the real server, nor those below."""
    max_waiting_calls: int = 32
    """Calls that wait for their turn; more are answered RESOURCE_EXHAUSTED, or 429."""
    max_held_mib: int = 2048
    """MiB of messages and replies in memory; more are answered so too."""
    idle_seconds: float = 30.0
    """Seconds after which a client that sends or reads nothing is cut."""
    grace_seconds: float = 30.0
    """Seconds that running calls have to end when the server is stopped."""

    def check(self) -> None:
        """Checks the values.

        Raises:
            InputError: If there is no model to serve, no transport, or a value is out of range.
        """
        if self.model_base_path is None and self.model_config_file is None:
            raise InputError("model_base_path or model_config_file must be given")
        self._check_ports()
        if self.max_running_calls < 1:
            raise InputError(f"max_running_calls must be at least 1, got {self.max_running_calls}")
        for name in ("max_waiting_calls", "max_held_mib", "grace_seconds"):
            if not 0 <= getattr(self, name) < math.inf:
                raise InputError(f"{name} must be a number from 0 up, got {getattr(self, name)}")
        if not 0 < self.idle_seconds < math.inf:
            raise InputError(f"idle_seconds must be positive, got {self.idle_seconds}")
        for name in ("file_system_poll_wait_seconds", "model_config_file_poll_wait_seconds"):
            if not math.isfinite(getattr(self, name)):
                raise InputError(f"{name} must be a number, got {getattr(self, name)}")
        for name in ("rest_api_timeout_in_ms", "max_num_load_retries"):  # as in the real server
            if not -(2**31) <= getattr(self, name) < 2**31:
                raise InputError(f"{name} must be an integer of 32 bits, got {getattr(self, name)}")
        self.channel_arguments()

    def _check_ports(self) -> None:
        if not (self.port or self.rest_api_port or self.grpc_socket_path):
            raise InputError("port, rest_api_port or grpc_socket_path must be given, got none")
        for name in ("port", "rest_api_port"):
            if not -1 <= getattr(self, name) <= _LAST_PORT:
                raise InputError(
                    f"{name} must be 0 to {_LAST_PORT}, or -1 for a free one, got"
                    f" {getattr(self, name)}"
                )
        if self.port == self.rest_api_port > 0:
            raise InputError(f"rest_api_port must not be port, got {self.port} for both")

    def channel_arguments(self) -> list[tuple[str, Any]]:
        """The arguments of gRPC; integers are given as such.

        Raises:
            InputError: If one has no value.
        """
        arguments: list[tuple[str, Any]] = []
        for pair in filter(None, self.grpc_channel_arguments.split(",")):
            key, has_value, value = pair.partition("=")
            if not has_value:
                raise InputError(f"grpc_channel_arguments must be key=value, got {pair}")
            is_integer = value.removeprefix("-").isdecimal()
            arguments.append((key, int(value) if is_integer else value))
        return arguments
