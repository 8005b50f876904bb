"""TensorFlow Serving's REST interface, as an ASGI application."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
import zlib
from collections.abc import Awaitable, Callable, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_pb2,
    regression_pb2,
)

from fcnseg.errors import one_line
from fcnseg.saved_model.session import StatusError

from .admission import Admission, Call, Place
from .core import SIGNATURE_DEF, ServerCore, answered
from .json_body import parse_body, parsed_bytes
from .json_examples import examples_from_json
from .json_replies import (
    classifications_to_json,
    error_to_json,
    metadata_to_json,
    outputs_to_json,
    regressions_to_json,
    status_to_json,
)
from .json_requests import inputs_from_json, signature_name_of
from .rest_paths import RestPath, api_path, parse_path
from .statuses import HTTP_STATUS, OTHER_HTTP_STATUS, invalid

logger = logging.getLogger(__name__)

_MAX_BODY = 2**31 - 1  # bytes; the limit of a gRPC message too
_MAX_UNPACKED = 100 * 2**20  # bytes of a gzip body; the real server's limit
_MAX_PARSED = 2**32  # bytes of a body's values in memory: 512 x 512 x 200 numbers are 3.8 GB
_MIN_RATE = 1024  # bytes a second at which a body must arrive, and a reply be read, on the whole
_BUSY_RATE = 2**18  # the same while it keeps others out: a slow connection of today
_PIECE = 2**18  # bytes of a reply that are sent at once
_LINGER_S = 2.0  # for which the rest of a refused body is read
_CORS = [
    (b"access-control-allow-origin", b"*"),
    (b"access-control-allow-methods", b"POST, GET"),
    (b"access-control-allow-headers", b"Content-Type"),
]
_METHODS = {"GET", "POST", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH"}

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class HttpError(Exception):
    """A request that is answered with an HTTP status which is that of no code."""

    def __init__(self, http_status: int, message: str) -> None:
        """Makes an error with the message of the answer."""
        super().__init__(message)
        self.http_status = http_status


class _Body:
    """The body of a request, and whether its end has come."""

    def __init__(self, receive: Receive, headers: dict[bytes, str]) -> None:
        """Begins with a request of which the headers alone have come."""
        self._receive = receive
        has_length = headers.get(b"content-length", "0") != "0"
        self.has_ended = not has_length and b"transfer-encoding" not in headers

    async def receive(self) -> Message:
        """Receives a piece, or that the client is gone."""
        message = await self._receive()
        if message["type"] == "http.disconnect" or not message.get("more_body", False):
            self.has_ended = True
        return message

    async def discard(self) -> None:
        """Reads what a client still sends, for a while, so that it gets to read the answer."""
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._read_to_end(), _LINGER_S)

    async def _read_to_end(self) -> None:
        while not self.has_ended:
            await self.receive()


class RestApp:
    """Answers REST requests; an ASGI application."""

    def __init__(
        self,
        core: ServerCore,
        admission: Admission,
        *,
        max_calls: int,
        timeout_s: float | None,
        idle_s: float,
        allow_cors: bool = False,
        metrics_path: str | None = None,
    ) -> None:
        """Makes the application.

        Args:
            core: Gives the answers.
            admission: Admits calls that run a model.
            max_calls: Calls that run a model and are admitted.
            timeout_s: Seconds that a call may take; None for no limit.
            idle_s: Seconds for which a client may pause within a body.
            allow_cors: Let pages of other sites call.
            metrics_path: Path of the metrics for Prometheus; None for none.
        """
        self._core = core
        self._admission = admission
        self._timeout_s = timeout_s
        self._idle_s = idle_s
        self._headers = _CORS if allow_cors else []
        self._metrics_path = metrics_path
        self._pool = ThreadPoolExecutor(max_calls, thread_name_prefix="rest")

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answers a request."""
        target = scope["raw_path"].decode("latin-1")
        headers = {name.lower(): value.decode("latin-1") for name, value in scope["headers"]}
        body, is_refused, kind = _Body(receive, headers), True, "application/json"
        try:
            kind, content = await self._answer(scope["method"], target, headers, body.receive)
            status, is_refused = 200, False
        except StatusError as error:
            status = HTTP_STATUS.get(error.code, OTHER_HTTP_STATUS)
            content = error_to_json(error.message).encode()
        except HttpError as error:
            status, content = error.http_status, error_to_json(str(error)).encode()
        except Exception as error:  # uvicorn would answer without JSON
            logger.exception("a request failed")
            status, content = (
                500,
                error_to_json(f"{type(error).__name__}: {one_line(error)}").encode(),
            )
        except asyncio.CancelledError:  # the time of grace is over
            status, content = 503, error_to_json("the server is stopping").encode()
        rest_of_body = body if is_refused and not body.has_ended else None
        with self._admission.replying(len(content)), contextlib.suppress(asyncio.CancelledError):
            await self._send(send, status, kind, content, rest_of_body)

    async def _answer(
        self, method: str, target: str, headers: dict[bytes, str], receive: Receive
    ) -> tuple[str, bytes]:
        """Gives the type and the content of the answer."""
        if target == self._metrics_path:
            return "text/plain", self._core.metrics.text().encode()
        path = api_path(target)
        if path is None:
            raise HttpError(404, f"Not Found: {target[:80]}")
        if method not in _METHODS:
            raise HttpError(501, f"Not Implemented: {method[:80]}")
        if method == "OPTIONS":
            if not headers.get(b"origin", "").startswith(("http://", "https://")):
                raise StatusError(
                    "FAILED_PRECONDITION", "Origin header is missing in CORS preflight"
                )
            return "application/json", b""
        asked = parse_path(method, path)
        if method == "GET":
            return "application/json", answered(lambda: self._tell(asked)).encode()
        if not self._headers and _is_of_another_site(headers):
            raise StatusError(
                "PERMISSION_DENIED",
                f"pages of {headers[b'origin'][:80]} may not call: rest_api_enable_cors_support"
                " lets them",
            )
        return "application/json", await self._run(asked, headers, receive)

    def _tell(self, asked: RestPath) -> str:
        if asked.method == "metadata":
            metadata = get_model_metadata_pb2.GetModelMetadataRequest(
                model_spec=asked.spec, metadata_field=[SIGNATURE_DEF]
            )
            return metadata_to_json(self._core.model_metadata(metadata))
        status = get_model_status_pb2.GetModelStatusRequest(model_spec=asked.spec)
        return status_to_json(self._core.model_status(status))

    async def _run(self, asked: RestPath, headers: dict[bytes, str], receive: Receive) -> bytes:
        started, code, call = time.perf_counter(), "OK", Call(self._timeout_s)
        try:
            with self._admission.enter(call) as place:
                body = await self._read(headers, receive, place)
                return await self._work(asked, headers, body, place, receive)
        except StatusError as error:
            code = error.code
            raise
        finally:
            name = asked.spec.name
            if name in self._core.models.names:  # else clients could make up any number of them
                seconds = time.perf_counter() - started
                self._core.metrics.count_request(name, code)
                if code == "OK":
                    self._core.metrics.observe_request(name, asked.method, "REST", seconds)

    async def _read(self, headers: dict[bytes, str], receive: Receive, place: Place) -> list[bytes]:
        """Reads the body, whose bytes are counted as they arrive."""
        _check_size(int(headers.get(b"content-length", "0")))
        pieces: list[bytes] = []
        size, started, has_more = 0, time.monotonic(), True
        while has_more:
            message = await self._next(receive, place.call)
            size += len(message["body"])
            _check_size(size)
            place.hold(len(message["body"]))
            rate = self._least_rate()
            if time.monotonic() - started > self._idle_s + size / rate:
                raise HttpError(408, f"a body must come at {rate} bytes a second")
            pieces.append(message["body"])
            has_more = message.get("more_body", False)
        return pieces

    async def _next(self, receive: Receive, call: Call) -> Message:
        """Receives a piece of a body, for which there is so much time."""
        left_s = call.left_s()
        wait_s = self._idle_s if left_s is None else min(left_s, self._idle_s)
        try:
            message = await asyncio.wait_for(receive(), wait_s)
        except asyncio.TimeoutError as error:
            call.left_s()
            text = f"a body must come without a pause of {self._idle_s:g} s"
            raise HttpError(408, text) from error
        if message["type"] == "http.disconnect":
            raise StatusError("CANCELLED", "the client gave up the call")
        return message

    def _least_rate(self) -> int:
        """Bytes a second at which clients must send and read now."""
        return _BUSY_RATE if self._admission.is_full else _MIN_RATE

    async def _work(
        self,
        asked: RestPath,
        headers: dict[bytes, str],
        pieces: list[bytes],
        place: Place,
        receive: Receive,
    ) -> bytes:
        """Runs the model in a thread, unless the client goes before its turn comes."""

        def work() -> bytes:
            with place.running():
                body = b"".join(pieces)
                pieces.clear()
                return answered(lambda: self._text(asked, headers, body, place).encode())

        watching = asyncio.ensure_future(self._watch(receive, place.call))
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, work)
        finally:
            watching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watching

    async def _watch(self, receive: Receive, call: Call) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self._admission.give_up(call)

    def _text(self, asked: RestPath, headers: dict[bytes, str], body: bytes, place: Place) -> str:
        """Parses a body, runs the model, and gives the text of the answer."""
        if "gzip" in headers.get(b"content-encoding", ""):
            body = _unpacked(body)
            place.hold(len(body))
        size = _checked_parsed_bytes(body)
        place.hold(size)
        request, spec = parse_body(body), asked.spec
        del body
        spec.signature_name = signature_name_of(request)
        if asked.method == "predict":
            return self._predicted(request, spec, place, size)
        given = examples_from_json(request)
        if asked.method == "classify":
            classify = classification_pb2.ClassificationRequest(model_spec=spec, input=given)
            return classifications_to_json(self._core.classify(classify, place.call).result)
        regress = regression_pb2.RegressionRequest(model_spec=spec, input=given)
        return regressions_to_json(self._core.regress(regress, place.call).result)

    def _predicted(
        self, request: dict[str, Any], spec: model_pb2.ModelSpec, place: Place, size: int
    ) -> str:
        """Runs a model on a request whose values take some bytes."""
        in_rows = "instances" in request

        def make_inputs(expected: Any) -> Any:
            arrays, _ = inputs_from_json(request, expected)
            request.clear()  # lists of numbers take many times the memory of an array
            place.release(size)
            return arrays

        outputs = self._core.predict_arrays(spec, make_inputs, place.call)
        return outputs_to_json(outputs, in_rows=in_rows)

    async def _send(
        self, send: Send, status: int, kind: str, content: bytes, rest_of_body: _Body | None
    ) -> None:
        headers = [
            (b"content-type", kind.encode()),
            (b"content-length", str(len(content)).encode()),
            *self._headers,
        ]
        if rest_of_body is not None:  # it would be read to no end
            headers.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        started = time.monotonic()
        for start in range(0, len(content), _PIECE):
            if time.monotonic() - started > self._idle_s + start / self._least_rate():
                return  # uvicorn closes the connection
            piece = content[start : start + _PIECE]
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        if rest_of_body is not None:
            await rest_of_body.discard()
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def _is_of_another_site(headers: dict[bytes, str]) -> bool:
    """Tells whether a page of another site sends a request; only browsers tell the site."""
    origin = headers.get(b"origin")
    return origin is not None and origin.rpartition("://")[2] != headers.get(b"host", "")


def _check_size(size: int) -> None:
    if size > _MAX_BODY:
        raise HttpError(413, f"a body must have at most {_MAX_BODY} bytes, got {size}")


def _checked_parsed_bytes(body: bytes) -> int:
    """Bytes that the values of a body take in memory; one call must not take all of it."""
    size = parsed_bytes(body)
    if size > _MAX_PARSED:
        raise invalid(
            f"a body's values must take at most {_MAX_PARSED} bytes of memory, got {size}: send"
            " numbers as bytes in base64, or over gRPC"
        )
    return size


def _unpacked(body: bytes) -> bytes:
    """Unpacks gzip; what cannot be unpacked is empty, as in the real server."""
    unpacker = zlib.decompressobj(wbits=31)  # 31: with a gzip header
    try:
        content = unpacker.decompress(body, _MAX_UNPACKED)
    except zlib.error as error:
        logger.warning("a gzip body cannot be unpacked: %s", error)
        return b""
    if unpacker.unconsumed_tail or not unpacker.eof:
        logger.warning("a gzip body is cut, or unpacks to over %d bytes", _MAX_UNPACKED)
        return b""
    return content
