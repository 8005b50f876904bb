"""Calls of a model server over REST."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

from fcnseg.client.endpoint import Credentials, Endpoint
from fcnseg.client.failures import CODES_OF_HTTP, PLAIN_TO_TLS, CallError
from fcnseg.client.rest_json import inputs_to_json, outputs_from_json
from fcnseg.client.served_model import (
    ModelMetadata,
    ModelSpec,
    SignatureInfo,
    TensorInfo,
    VersionStatus,
    dtype_name,
)
from fcnseg.client.transport import Arrays

_NOT_BEGUN = (413, 429)  # statuses of requests that the server did not start to run
_CLOSED = "the client was closed"
_PIECE = 2**20  # bytes of a reply read at once


class RestTransport:
    """Requests to a server, each with a connection of its own; see `Transport`."""

    def __init__(self, endpoint: Endpoint, credentials: Credentials) -> None:
        """Prepares requests; nothing is sent yet.

        Raises:
            InputError: If the certificates to trust cannot be read.
        """
        self._endpoint = endpoint
        self._headers = {"content-type": "application/json", **credentials.headers}
        self._tls: ssl.SSLContext | None = None
        if endpoint.has_tls:
            trusted = credentials.ca_pem()
            self._tls = ssl.create_default_context(cadata=trusted and trusted.decode())
        self._open: set[http.client.HTTPConnection] = set()
        self._signatures: dict[tuple[ModelSpec, str], SignatureInfo] = {}
        self._lock = threading.Lock()
        self._is_closed = False

    def predict(
        self, model: ModelSpec, signature_name: str, inputs: Arrays, *, timeout_s: float
    ) -> Arrays:
        """Runs a signature; see `Transport`."""
        ends = time.monotonic() + timeout_s
        signature = self._signature(model, signature_name, ends)
        body = json.dumps({"signature_name": signature_name, "inputs": inputs_to_json(inputs)})
        reply = self._request("POST", f"{_path(model)}:predict", ends, body.encode())
        if "outputs" not in reply:
            raise CallError("UNKNOWN", f"not JSON of a model server: it has {sorted(reply)[:3]}")
        return outputs_from_json(reply["outputs"], signature)

    def status(self, model: ModelSpec, *, timeout_s: float) -> tuple[VersionStatus, ...]:
        """The states of the model's versions; see `Transport`."""
        reply = self._request("GET", _path(model), time.monotonic() + timeout_s)
        with _of_a_model_server():
            return tuple(
                VersionStatus(
                    int(each["version"]),
                    str(each["state"]),
                    str(each.get("status", {}).get("error_message", "")),
                )
                for each in reply["model_version_status"]
            )

    def metadata(self, model: ModelSpec, *, timeout_s: float) -> ModelMetadata:
        """The signatures of the model; see `Transport`."""
        return self._metadata(model, time.monotonic() + timeout_s)

    def close(self) -> None:
        """Closes the connections; see `Transport`."""
        with self._lock:
            self._is_closed = True
            for connection in self._open:
                if connection.sock is not None:
                    with contextlib.suppress(OSError):  # closed by the server
                        # `close` alone does not wake a thread that waits for the answer.
                        connection.sock.shutdown(socket.SHUT_RDWR)
                connection.close()

    def _signature(self, model: ModelSpec, name: str, ends: float) -> SignatureInfo:
        """Gives a signature, which is asked for once."""
        if (model, name) not in self._signatures:
            signatures = self._metadata(model, ends).signatures
            if name not in signatures:
                raise CallError("FAILED_PRECONDITION", f'Serving signature key "{name}" not found.')
            self._signatures[model, name] = signatures[name]
        return self._signatures[model, name]

    def _metadata(self, model: ModelSpec, ends: float) -> ModelMetadata:
        reply = self._request("GET", f"{_path(model)}/metadata", ends)
        with _of_a_model_server():
            found = reply["metadata"]["signature_def"]["signature_def"]
            signatures = {
                name: SignatureInfo(_tensors(each["inputs"]), _tensors(each["outputs"]))
                for name, each in found.items()
            }
            return ModelMetadata(int(reply["model_spec"]["version"]), signatures)

    def _request(
        self, method: str, path: str, ends: float, body: bytes | None = None
    ) -> dict[str, Any]:
        """Sends a request, and gives the JSON object of its answer.

        Args:
            method: GET or POST.
            path: From `/v1` on.
            ends: Deadline, in the time of `time.monotonic`.
            body: The body of a POST.

        Raises:
            CallError: If there is no such answer.
        """
        with self._connection(ends) as connection:
            connection.request(method, self._endpoint.path + path, body, self._headers)
            connection.sock.settimeout(_left(ends))
            response = connection.getresponse()
            content = bytearray()
            while piece := response.read(_PIECE):
                content += piece
                if connection.sock is not None:  # None once all of the answer is there
                    connection.sock.settimeout(_left(ends))
            if response.length:  # `read` tells of an end that is early in no other way
                raise http.client.IncompleteRead(bytes(content), response.length)
        return _answer(response.status, response.reason, bytes(content))

    @contextlib.contextmanager
    def _connection(self, ends: float) -> Iterator[http.client.HTTPConnection]:
        """Opens a connection, and turns what happens to it into `CallError`."""
        where, port, timeout = self._endpoint.host.strip("[]"), self._endpoint.port, _left(ends)
        connection = (
            http.client.HTTPConnection(where, port, timeout=timeout)
            if self._tls is None
            else http.client.HTTPSConnection(where, port, timeout=timeout, context=self._tls)
        )
        with self._lock:
            if self._is_closed:
                raise CallError("CANCELLED", _CLOSED, is_begun=False)
            self._open.add(connection)
        is_connected = False
        try:
            connection.connect()
            is_connected = True
            yield connection
        except (OSError, http.client.HTTPException) as error:
            raise self._failed(error, is_connected=is_connected) from error
        except (AttributeError, ValueError) as error:  # of a connection that is being closed
            if not self._is_closed:
                raise
            raise CallError("CANCELLED", _CLOSED) from error
        finally:
            connection.close()
            with self._lock:
                self._open.discard(connection)

    def _failed(self, error: Exception, *, is_connected: bool) -> CallError:
        """The error of a call, by that of its connection; it may be any if this side closed it."""
        if self._is_closed:
            return CallError("CANCELLED", _CLOSED)
        if isinstance(error, TimeoutError):
            return CallError("DEADLINE_EXCEEDED", "sent")
        if isinstance(error, (http.client.RemoteDisconnected, http.client.IncompleteRead)):
            return CallError("UNAVAILABLE", f"closed connection: {error}")
        if isinstance(error, http.client.HTTPException):
            return CallError("UNAVAILABLE", f"{type(error).__name__}: {error}")
        return CallError("UNAVAILABLE", str(error), is_begun=is_connected)


def _left(ends: float) -> float:
    """Seconds until a deadline.

    Raises:
        TimeoutError: If it has passed.
    """
    left = ends - time.monotonic()
    if left <= 0:
        raise TimeoutError("timed out")
    return left


def _path(model: ModelSpec) -> str:
    path = f"/v1/models/{quote(model.name, safe='')}"
    if model.version is not None:
        return f"{path}/versions/{model.version}"
    return f"{path}/labels/{quote(model.label, safe='')}" if model.label else path


def _answer(status: int, reason: str, content: bytes) -> dict[str, Any]:
    """Reads an answer: a proxy's errors are pages of HTML, a server's `{"error": ...}`."""
    try:
        answer = json.loads(content)
    except ValueError:
        answer = None
    is_object = isinstance(answer, dict)
    if status == 200 and is_object:
        return dict(answer or {})
    if status == 200:
        raise CallError("UNKNOWN", f"not JSON: {content[:40]!r}")
    details = str(answer["error"]) if is_object and "error" in answer else f"{status} {reason}"
    if PLAIN_TO_TLS.encode() in content:
        details = PLAIN_TO_TLS
    code = CODES_OF_HTTP.get(status, "UNKNOWN")
    raise CallError(code, details, is_begun=status not in _NOT_BEGUN)


@contextlib.contextmanager
def _of_a_model_server() -> Iterator[None]:
    """Names an answer that is JSON of another form than a model server's."""
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CallError("UNKNOWN", f"not JSON of a model server: {error!r}") from error


def _tensors(by_name: dict[str, Any]) -> dict[str, TensorInfo]:
    found = {}
    for name, info in by_name.items():
        shape = info.get("tensor_shape", {})
        sizes = tuple(int(dim["size"]) for dim in shape.get("dim", ()))
        found[name] = TensorInfo(
            dtype_name(info["dtype"]), None if shape.get("unknown_rank") else sizes
        )
    return found
