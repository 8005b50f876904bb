"""Serves a model as TensorFlow Serving does, on this machine: `fcnseg serve --help`.

It accepts the real server's flags, implements its gRPC and REST interfaces, and runs models in the
same runtime, for development and for machines without the real server.
"""

from __future__ import annotations

import dataclasses
import logging
import signal
import sys
import threading
from pathlib import Path
from types import TracebackType

import tensorflow as tf

from fcnseg.cli.command import run_command
from fcnseg.errors import InputError
from fcnseg.saved_model.session import StatusError

from .grpc_service import start_grpc_server
from .model_versions import LOAD_RETRIES, LOAD_RETRY_INTERVAL_S, ModelVersions
from .rest import IDLE_S, RestServer

_GRACE_S = 5.0  # status of running calls when the server is stopped


@dataclasses.dataclass(frozen=True)
class ServerCommand:
    """Serves the newest version of a model over gRPC and REST until it is stopped."""

    model_base_path: Path
    """Folder whose children are the model's versions 1, 2, …"""
    model_name: str = "default"
    """Name of the model in requests."""
    port: int = 8500
    """gRPC port; 0 takes a free one."""
    rest_api_port: int = 8501
    """REST port; 0 takes a free one."""
    host: str = "127.0.0.1"
    """Address to listen on; the real server listens on all."""
    file_system_poll_wait_seconds: float = 1.0
    """Seconds between polls for a new version."""
    max_num_load_retries: int = LOAD_RETRIES
    """Maximum number of retries of a version that could not be loaded; it is also retried whenever
    its files have changed."""
    load_retry_interval_micros: int = round(LOAD_RETRY_INTERVAL_S * 1e6)
    """Microseconds between these retries."""
    enable_serialization_as_tensor_content: bool = False
    """Reply over gRPC with raw bytes instead of single values: much faster."""

    def run(self) -> None:
        """Serves until SIGTERM or SIGINT."""
        stopped = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stopped.set())
        tf.get_logger().setLevel(logging.ERROR)  # the session runtime's deprecation notes
        with LocalServer(self) as server:
            sys.stdout.write(f"{server}\n")
            sys.stdout.flush()
            stopped.wait()


class LocalServer:
    """A running server; a context manager that stops it."""

    def __init__(self, command: ServerCommand, *, rest_idle_s: float = IDLE_S) -> None:
        """Loads the newest version and starts serving.

        Args:
            command: Model, addresses and options.
            rest_idle_s: Seconds for which a REST client may be idle before it is disconnected.

        Raises:
            InputError: If there is no model to serve, or a port is taken.
        """
        self._command = command
        self._versions = ModelVersions(
            command.model_name,
            command.model_base_path,
            load_retries=command.max_num_load_retries,
            load_retry_interval_s=command.load_retry_interval_micros / 1e6,
        )
        self._versions.poll()
        self.version = _first_version(self._versions)
        self._rest = RestServer(
            self._versions, command.host, command.rest_api_port, idle_s=rest_idle_s
        )
        self.rest_port = self._rest.server_address[1]
        try:
            self._grpc, self.grpc_port = start_grpc_server(
                self._versions,
                f"{command.host}:{command.port}",
                tensor_content=command.enable_serialization_as_tensor_content,
            )
        except InputError:
            self._rest.server_close()
            raise
        interval = command.file_system_poll_wait_seconds
        self._threads = [
            threading.Thread(target=self._rest.serve_forever),
            threading.Thread(target=self._versions.poll_until_stopped, args=(interval,)),
        ]
        for thread in self._threads:
            thread.start()

    def __str__(self) -> str:
        name, host = self._command.model_name, self._command.host
        return (
            f"serving {name} version {self.version} at {host}:{self.grpc_port} (gRPC)"
            f" and http://{host}:{self.rest_port}/v1/models/{name} (REST)"
        )

    def __enter__(self) -> LocalServer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._versions.stop()
        self._grpc.stop(_GRACE_S).wait()
        self._rest.shutdown()
        self._rest.server_close()
        for thread in self._threads:
            thread.join()


def _first_version(versions: ModelVersions) -> int:
    """Gives the version that is served.

    Raises:
        InputError: If there is none, or it could not be loaded.
    """
    try:
        version, _ = versions.session(versions.name)
    except StatusError as error:
        failures = "; ".join(versions.failures())
        raise InputError(
            f"model_base_path must hold a numbered version of a model, got {versions.base_path}"
            + (f": {failures}" if failures else "")
        ) from error
    return version


def main() -> None:
    """Runs the command."""
    run_command(ServerCommand)


if __name__ == "__main__":
    main()
