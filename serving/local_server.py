"""A running server: models, transports and their end."""

from __future__ import annotations

import asyncio
import functools
import logging
import math
import socket
import threading
from pathlib import Path
from types import TracebackType
from typing import Any

import uvicorn

from fcnseg.errors import InputError
from fcnseg.saved_model.session import StatusError

from .admission import Admission
from .config_files import read_metrics_path, read_model_config
from .core import ServerCore
from .grpc_service import GrpcServer
from .http_connection import JsonConnection
from .metrics import Metrics
from .model_versions import LoadOptions
from .options import ServerOptions
from .rest import RestApp
from .served_models import ModelServerConfig, ServedModels, config_of_one
from .warm_up import load_session
from .web_page import WebPage

logger = logging.getLogger(__name__)

_MAX_CONNECTIONS = 512  # of REST; processes may have 1024 files
_CANCEL_S = 5.0  # in which a run that is cancelled ends
_LOOK_S = 0.1  # between looks whether a server that waits for a model is to end
_JOIN_S = 1.0  # for a thread that may be loading a model


class LocalServer:
    """A running server; a context manager that stops it."""

    def __init__(self, options: ServerOptions, *, stopped: threading.Event | None = None) -> None:
        """Loads the models and starts serving; waits for a model where there is none yet.

        Args:
            options: Models, addresses and limits.
            stopped: Ends the wait for models; then nothing is served.

        Raises:
            InputError: If no model can be loaded, or a port is taken.
        """
        options.check()
        self.options = options
        path = options.monitoring_config_file
        self._metrics_path = None if path is None else read_metrics_path(path)
        self._models = _make_models(options)
        self.admission = Admission(
            max_running=options.max_running_calls,
            max_waiting=options.max_waiting_calls,
            max_held_bytes=options.max_held_mib * 2**20,
        )
        self.core = ServerCore(
            self._models,
            Metrics(),
            tensor_content=options.enable_serialization_as_tensor_content,
            check_method_name=options.enable_signature_method_name_check,
        )
        self._grpc: GrpcServer | None = None
        self._rest: _RestThread | None = None
        self._threads: list[threading.Thread] = []
        self._socket: socket.socket | None = None
        stopped = stopped or threading.Event()
        try:
            self._socket = _rest_socket(options)
            self._load(stopped)
            if not stopped.is_set():
                self._start_transports()
        except BaseException:
            self.stop(grace_s=0.0)
            raise

    @property
    def grpc_port(self) -> int:
        """The port of gRPC, 0 if it is off."""
        return self._grpc.ports[0] if self._grpc is not None and self.options.port else 0

    @property
    def rest_port(self) -> int:
        """The port of REST, 0 if it is off."""
        return 0 if self._rest is None else self._rest.port

    def __str__(self) -> str:
        host, names = self.options.host, self._models.names
        places = []
        if self.grpc_port:
            places.append(f"{host}:{self.grpc_port} (gRPC)")
        if self.options.grpc_socket_path is not None:
            places.append(f"unix:{self.options.grpc_socket_path} (gRPC)")
        if self.rest_port:
            path = "/".join(["v1", "models", *names[:1]])
            places.append(f"http://{host}:{self.rest_port}/{path} (REST)")
        served = ", ".join(map(self._described, names)) or "no model"
        return f"serving {served} at {' and '.join(places)}"

    def __enter__(self) -> LocalServer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop(grace_s=self.options.grace_seconds)

    def stop(self, *, grace_s: float) -> None:
        """Takes no further call, and lets those that run end within some seconds."""
        self.admission.close()
        self._models.stop()
        ended = [] if self._grpc is None else [self._grpc.stop(grace_s + _CANCEL_S)]
        if self._rest is not None:
            self._rest.stop(grace_s + _CANCEL_S)
        if not self.admission.wait_until_idle(grace_s):
            logger.warning("calls that have not ended in %g s are cancelled", grace_s)
            self._models.cancel_calls()
            self.admission.wait_until_idle(_CANCEL_S)
        for event in ended:
            event.wait(_CANCEL_S)
        for thread in self._threads:
            thread.join(_JOIN_S)
        if self._rest is not None:
            self._rest.join(_CANCEL_S)
        if self._socket is not None:
            self._socket.close()

    def _load(self, stopped: threading.Event) -> None:
        """Loads the models, and looks for new versions from then on."""
        try:
            self._models.reload(_read_config(self.options))
            interval_s = self.options.file_system_poll_wait_seconds
            self._start_thread(lambda: self._models.poll_until_stopped(interval_s))
            self._start_thread(lambda: self._stop_models_after(stopped))
            self._models.wait_until_available()
        except StatusError as error:
            if stopped.is_set():
                return
            raise InputError(
                "model_base_path or model_config_file must name models that can be loaded, got"
                f" {self.options.model_config_file or self.options.model_base_path}:"
                f" {error.message}"
            ) from error
        has_file = self.options.model_config_file is not None
        if has_file and self.options.model_config_file_poll_wait_seconds > 0:
            self._start_thread(self._poll_config)

    def _stop_models_after(self, stopped: threading.Event) -> None:
        while not self._models.wait_for_stop(_LOOK_S):
            if stopped.is_set():
                self._models.stop()

    def _poll_config(self) -> None:
        """Reads the file of models again and again; one that is not valid changes nothing."""
        interval = self.options.model_config_file_poll_wait_seconds
        while not self._models.wait_for_stop(interval):
            self._reload_or_log()

    def _reload_or_log(self) -> None:
        try:
            self._models.reload(_read_config(self.options))
        except (InputError, StatusError) as error:
            logger.error("the models stay as they are: %s", error)

    def _start_thread(self, work: Any) -> None:
        thread = threading.Thread(target=work, daemon=True)  # it may be loading when all ends
        self._threads.append(thread)
        thread.start()

    def _start_transports(self) -> None:
        options = self.options
        max_calls = options.max_running_calls + options.max_waiting_calls
        addresses = _grpc_addresses(options)
        if addresses:
            self._grpc = GrpcServer(
                self.core,
                self.admission,
                addresses,
                max_calls=max_calls,
                idle_s=options.idle_seconds,
                options=options.channel_arguments(),
                with_health=options.enable_grpc_healthcheck_service,
            )
        if self._socket is not None:
            timeout_ms = options.rest_api_timeout_in_ms
            app = RestApp(
                self.core,
                self.admission,
                max_calls=max_calls,
                timeout_s=timeout_ms / 1000 if timeout_ms > 0 else None,
                idle_s=options.idle_seconds,
                allow_cors=options.rest_api_enable_cors_support,
                metrics_path=self._metrics_path,
            )
            page = WebPage(app, lambda: self._models.names)
            self._rest = _RestThread(page, self._socket, idle_s=options.idle_seconds)
            self._rest.start()

    def _described(self, name: str) -> str:
        versions = self._models.served_versions(name)
        return f"{name} version {', '.join(map(str, versions))}"


class _RestThread(threading.Thread):
    """The event loop of the REST server."""

    def __init__(self, app: WebPage, sock: socket.socket, *, idle_s: float) -> None:
        super().__init__(name="rest-loop", daemon=True)
        self.port: int = sock.getsockname()[1]
        self._socket = sock
        config = uvicorn.Config(
            app,
            http=JsonConnection,
            ws="none",
            lifespan="off",
            loop="asyncio",
            log_config=None,
            log_level=logging.WARNING,
            access_log=False,
            server_header=False,
            timeout_keep_alive=idle_s,  # type: ignore[arg-type, unused-ignore]
            limit_concurrency=_MAX_CONNECTIONS,
        )
        self._server = uvicorn.Server(config)

    def run(self) -> None:
        """Serves until `stop` is called."""
        asyncio.run(self._server.serve(sockets=[self._socket]))

    def stop(self, grace_s: float) -> None:
        """Closes the port, and answers what has not ended in some seconds."""
        self._server.config.timeout_graceful_shutdown = math.ceil(grace_s)
        self._server.should_exit = True


def _read_config(options: ServerOptions) -> ModelServerConfig:
    """Gives the models to serve.

    Raises:
        InputError: If their file cannot be read.
    """
    if options.model_config_file is not None:
        return read_model_config(options.model_config_file)
    return config_of_one(options.model_name, Path(options.model_base_path or ""))


def _make_models(options: ServerOptions) -> ServedModels:
    iterations = max(1, options.num_request_iterations_for_warmup)
    load = functools.partial(
        load_session, iterations=iterations if options.enable_model_warmup else 0
    )
    interval_s = max(0, options.load_retry_interval_micros) / 1e6
    return ServedModels(
        LoadOptions(options.max_num_load_retries, interval_s, load),
        allow_labels_of_unavailable=options.allow_version_labels_for_unavailable_models,
    )


def _grpc_addresses(options: ServerOptions) -> list[str]:
    addresses = []
    if options.port:
        addresses.append(f"{options.host}:{max(options.port, 0)}")
    if options.grpc_socket_path is not None:
        addresses.append(f"unix:{options.grpc_socket_path}")
    return addresses


def _rest_socket(options: ServerOptions) -> socket.socket | None:
    """The socket of the REST server, None if it is off.

    Raises:
        InputError: If the port is taken.
    """
    if not options.rest_api_port:
        return None
    port = max(options.rest_api_port, 0)
    try:
        family = socket.getaddrinfo(options.host, port)[0][0]
        return socket.create_server((options.host, port), family=family, backlog=128)
    except OSError as error:
        raise InputError(f"rest_api_port must be free, got {options.host}:{port}: {error}") from (
            error
        )
