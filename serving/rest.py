"""TensorFlow Serving's REST interface: predict, status and metadata."""

from __future__ import annotations

import json
import logging
import re
import sys
import zlib
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from google.protobuf.json_format import MessageToDict
from tensorflow_serving.apis import get_model_metadata_pb2, model_pb2

from fcnseg.errors import InputError, one_line
from fcnseg.saved_model.session import DEFAULT_SIGNATURE, StatusError

from .http_body import BodyError, read_body
from .json_tensors import inputs_from_json, outputs_to_json
from .model_facts import SIGNATURE_DEF, model_metadata, model_status, wanted_version
from .model_versions import ModelVersions

_MODEL = r"/v1/models/(?P<name>[^/:]+)(?:/versions/(?P<version>\d+)|/labels/(?P<label>[^/:]+))?"
_RUN = re.compile(_MODEL + r":(?P<method>predict|classify|regress)", re.IGNORECASE)
_TELL = re.compile(_MODEL + r"(?P<metadata>/metadata)?", re.IGNORECASE)

_HTTP_STATUS = {
    "INVALID_ARGUMENT": 400,
    "FAILED_PRECONDITION": 400,
    "OUT_OF_RANGE": 400,
    "NOT_FOUND": 404,
    "RESOURCE_EXHAUSTED": 429,
    "UNIMPLEMENTED": 501,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}
_OTHER_HTTP_STATUS = 500
_MAX_UNPACKED = 100 * 2**20  # bytes of a gzip body; the real server's limit
IDLE_S = 30.0  # seconds for which a client may be idle before it is disconnected
_PIECE = 2**16  # bytes of an answer that must be received within that time

logger = logging.getLogger(__name__)


class RestServer(ThreadingHTTPServer):
    """Answers REST requests, each in a thread of its own."""

    daemon_threads = True

    def __init__(
        self, versions: ModelVersions, host: str, port: int, *, idle_s: float = IDLE_S
    ) -> None:
        """Binds to an address.

        Args:
            versions: Versions of the model.
            host: Name or address to listen on.
            port: 0 takes a free one.
            idle_s: Seconds for which a client may be idle before it is disconnected.

        Raises:
            InputError: If the port is taken.
        """
        self.versions = versions
        self.idle_s = idle_s
        try:
            super().__init__((host, port), _Handler)
        except OSError as error:
            raise InputError(f"rest_api_port must be free, got {host}:{port}: {error}") from error

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Logs errors of a connection: one line if the client disconnected."""
        del request
        error = sys.exc_info()[1]
        if isinstance(error, ConnectionError | TimeoutError):
            logger.info("the client at %s went away: %s", client_address[0], error)
        else:
            logger.error("a connection from %s failed", client_address[0], exc_info=error)


class _Handler(BaseHTTPRequestHandler):
    server: RestServer
    protocol_version = "HTTP/1.1"
    default_request_version = "HTTP/1.0"  # so that a malformed request line gets a valid answer

    def setup(self) -> None:
        """Sets the timeout of the connection."""
        super().setup()
        self.connection.settimeout(self.server.idle_s)

    def do_GET(self) -> None:
        self._reply("GET")

    def do_POST(self) -> None:
        self._reply("POST")

    def log_message(self, format: str, *args: Any) -> None:
        """Logs nothing, like the real server."""

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answers a malformed request, and closes the connection."""
        del explain
        self.close_connection = True
        self._send(code, {"error": message or HTTPStatus(code).phrase})

    def _reply(self, method: str) -> None:
        try:
            body = read_body(self.headers, self.rfile, required=method == "POST")
        except BodyError as error:
            self.send_error(error.http_status, str(error))
        except TimeoutError:
            self.send_error(408, f"a body must come without a pause of {self.server.idle_s:g} s")
        else:
            if self.path.lower().startswith("/v1/"):
                self._send(*self._answer(method, body))
            else:
                self._send(404, {"error": f"Not Found: {self.path[:80]}"})

    def _answer(self, method: str, body: bytes) -> tuple[int, dict[str, Any]]:
        """Computes the HTTP status and the JSON object of an answer."""
        try:
            if self.headers.get("Content-Encoding") == "gzip":
                body = _unpacked(body)
            return 200, answer_request(self.server.versions, method, self.path, body)
        except StatusError as error:
            status = _HTTP_STATUS.get(error.code, _OTHER_HTTP_STATUS)
            return status, {"error": error.message}
        except MemoryError as error:
            return _HTTP_STATUS["RESOURCE_EXHAUSTED"], {"error": f"out of memory: {error}"}
        except Exception as error:  # otherwise the connection would close without an answer
            logger.exception("a request failed")
            return _OTHER_HTTP_STATUS, {"error": f"{type(error).__name__}: {one_line(error)}"}

    def _send(self, status: int, answer: dict[str, Any]) -> None:
        content = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        for start in range(0, len(content), _PIECE):
            self.wfile.write(content[start : start + _PIECE])


def answer_request(versions: ModelVersions, method: str, path: str, body: bytes) -> dict[str, Any]:
    """Gives the JSON object that answers a request.

    Args:
        versions: Versions of the model.
        method: GET or POST.
        path: Path of the URL.
        body: Body of the request, decompressed.

    Raises:
        StatusError: If the request cannot be answered.
    """
    run, tell = _RUN.fullmatch(path), _TELL.fullmatch(path)
    if method == "POST" and run:
        if run["method"].lower() != "predict":
            raise StatusError("UNIMPLEMENTED", f"{run['method']} is not implemented")
        return _predict(versions, _spec(run), body)
    if method == "GET" and tell:
        return _metadata(versions, _spec(tell)) if tell["metadata"] else _status(versions, tell)
    raise StatusError("INVALID_ARGUMENT", f"Malformed request: {method} {path}")


def _spec(match: re.Match[str]) -> model_pb2.ModelSpec:
    spec = model_pb2.ModelSpec(name=match["name"])
    if match["version"]:
        try:
            spec.version.value = int(match["version"])
        except ValueError as error:  # beyond int64
            raise StatusError(
                "INVALID_ARGUMENT",
                f"Failed to convert version: {match['version'][:80]} to numeric.",
            ) from error
    if match["label"]:
        spec.version_label = match["label"]
    return spec


def _predict(versions: ModelVersions, spec: model_pb2.ModelSpec, body: bytes) -> dict[str, Any]:
    request = _parsed(body)
    _, session = versions.session(spec.name, wanted_version(spec))
    signature_name = request.get("signature_name", DEFAULT_SIGNATURE)
    if not isinstance(signature_name, str):
        raise StatusError("INVALID_ARGUMENT", "'signature_name' key must be a string value.")
    if signature_name not in session.signatures:
        raise StatusError(
            "INVALID_ARGUMENT",
            f'Serving signature name: "{signature_name}" not found in signature def',
        )
    expected = session.signatures[signature_name].inputs
    inputs, in_rows = inputs_from_json(request, expected)
    return outputs_to_json(session.run(signature_name, inputs), in_rows=in_rows)


def _parsed(body: bytes) -> dict[str, Any]:
    if not body:
        raise StatusError("INVALID_ARGUMENT", "JSON Parse error: The document is empty")
    try:
        request = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise StatusError("INVALID_ARGUMENT", f"JSON Parse error: {error}") from error
    if not isinstance(request, dict):
        raise StatusError("INVALID_ARGUMENT", f"JSON Value: {str(request)[:80]} Is not object")
    return request


def _status(versions: ModelVersions, match: re.Match[str]) -> dict[str, Any]:
    return _as_dict(model_status(versions, _spec(match)))


def _metadata(versions: ModelVersions, spec: model_pb2.ModelSpec) -> dict[str, Any]:
    response = model_metadata(versions, spec)
    signatures = get_model_metadata_pb2.SignatureDefMap()
    response.metadata[SIGNATURE_DEF].Unpack(signatures)
    return {
        "model_spec": _as_dict(response.model_spec),
        "metadata": {SIGNATURE_DEF: _as_dict(signatures)},
    }


def _as_dict(message: Any) -> dict[str, Any]:
    return MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )


def _unpacked(body: bytes) -> bytes:
    unpacker = zlib.decompressobj(wbits=31)  # 31: with a gzip header
    try:
        content = unpacker.decompress(body, _MAX_UNPACKED)
    except zlib.error as error:
        raise StatusError("INVALID_ARGUMENT", f"Failed to unpack the body: {error}") from error
    if unpacker.unconsumed_tail or not unpacker.eof:
        raise StatusError(
            "INVALID_ARGUMENT", f"The body is cut, or unpacks to over {_MAX_UNPACKED} bytes"
        )
    return content
