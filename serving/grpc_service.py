"""TensorFlow Serving's gRPC services.

Each call is taken as a stream of one message, so that it is admitted before its message is read.
"""

from __future__ import annotations

import bisect
import contextlib
import dataclasses
import itertools
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from typing import Any

import grpc
from google.protobuf.message import DecodeError, Message
from grpc_health.v1 import health, health_pb2
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_management_pb2,
    predict_pb2,
    regression_pb2,
)

from fcnseg.errors import InputError
from fcnseg.saved_model.session import StatusError

from .admission import Admission, Call, Place
from .core import ServerCore, answered

_MAX_MESSAGE = 2**31 - 1  # bytes; the real server's limit, and protobuf's
_MAX_DETAILS = 6000  # bytes of an error, percent-encoded: clients take 8 kB of headers
_NO_DEADLINE_S = 1e8  # what is left of a call that has no deadline is more than this
_HANDSHAKE_MS = 20_000  # for which a connection may stay half open
_LIGHT_CALLS = 64  # calls at once that run no model
_LIGHT_BYTES = 2**24  # of their messages
_LIGHT_S = 0.25  # for their messages, which are short, to arrive while others wait
_RELOADS = 8  # calls at once that wait until other models are loaded
_PATIENCE = 10  # times the idle seconds in which a message must have come or gone, however large
_KEEPALIVE_MS = 30_000  # between pings of a connection, which find out that its client is gone
_REFUSED_CALLS = 64  # calls at once that are read far enough to be refused

_OPTIONS = {
    "grpc.max_send_message_length": _MAX_MESSAGE,
    "grpc.max_receive_message_length": _MAX_MESSAGE,
    "grpc.server_handshake_timeout_ms": _HANDSHAKE_MS,
    "grpc.keepalive_time_ms": _KEEPALIVE_MS,
    "grpc.so_reuseport": 0,  # else a second server would silently share a used port
}

PREDICTION, MODEL = "tensorflow.serving.PredictionService", "tensorflow.serving.ModelService"
HEALTH = "grpc.health.v1.Health"


@dataclasses.dataclass(frozen=True)
class _Method:
    """A call of the API.

    Attributes:
        request: Class of its message.
        answer: Gives the reply.
        admission: Admits its calls.
        api: Name in the metrics if it runs a model, else empty.
    """

    request: type[Any]
    answer: Callable[[Any, Call], Message]
    admission: Admission
    api: str = ""


class GrpcServer:
    """A running gRPC server."""

    def __init__(
        self,
        core: ServerCore,
        admission: Admission,
        addresses: list[str],
        *,
        max_calls: int,
        idle_s: float,
        options: list[tuple[str, Any]],
        with_health: bool,
    ) -> None:
        """Starts the server.

        Args:
            core: Gives the answers.
            admission: Admits calls that run a model.
            addresses: `HOST:PORT` or `unix:PATH` each; port 0 takes a free one.
            max_calls: Calls that run a model and are admitted or wait.
            idle_s: A message must have come, and a reply gone, in ten times so many seconds, in
                one time if it keeps others out.
            options: Arguments of the channel.
            with_health: Serve `grpc.health.v1` too.

        Raises:
            InputError: If an address is taken.
        """
        for address in addresses:
            _check_socket(address)
        threads = max_calls + _LIGHT_CALLS + _RELOADS
        self._server = grpc.server(
            futures.ThreadPoolExecutor(threads, thread_name_prefix="grpc"),
            maximum_concurrent_rpcs=threads + _REFUSED_CALLS,
            options=list({**_OPTIONS, **dict(options)}.items()),  # of two, gRPC takes the first
        )
        self._health = _make_health() if with_health else None
        self._server.add_generic_rpc_handlers(
            [_Handler(core, admission, self._health, idle_s=idle_s)]
        )
        try:
            self.ports = [self._server.add_insecure_port(address) for address in addresses]
        except RuntimeError as error:
            raise InputError(f"port must be free, got {', '.join(addresses)}") from error
        self._server.start()

    def stop(self, grace_s: float) -> threading.Event:
        """Takes no further call, and cuts those that have not ended in some seconds.

        Returns:
            An event that is set once the server has ended.
        """
        if self._health is not None:
            self._health.enter_graceful_shutdown()
        stopped: threading.Event = self._server.stop(grace_s)
        return stopped


def _check_socket(address: str) -> None:
    """Refuses the UNIX socket of a running server, which gRPC would take over.

    Raises:
        InputError: If another process listens there.
    """
    scheme, _, path = address.partition(":")
    if scheme != "unix":
        return
    with socket.socket(socket.AF_UNIX) as other, contextlib.suppress(OSError):
        other.connect(path)  # fails where nobody listens
        raise InputError(f"grpc_socket_path must be free, got {path}, where a server listens")


class _Handler(grpc.GenericRpcHandler):  # type: ignore[misc, unused-ignore]
    """Finds the call of a name, and answers it."""

    def __init__(
        self,
        core: ServerCore,
        admission: Admission,
        servicer: health.HealthServicer | None,
        *,
        idle_s: float,
    ) -> None:
        self._core = core
        self._idle_s = idle_s
        self._light = _light_admission(_LIGHT_CALLS)
        self._methods = _methods(core, admission, self._light)
        self._health = servicer

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """Gives the handler of a call, None if there is no such call."""
        name, servicer = handler_call_details.method, self._health
        if servicer is not None and name == f"/{HEALTH}/Watch":
            return _watch_handler(servicer)
        if servicer is not None and name == f"/{HEALTH}/Check":
            return grpc.stream_unary_rpc_method_handler(
                lambda messages, context: self._answer(
                    _check_method(servicer, context, self._light), messages, context
                )
            )
        method = self._methods.get(name)
        if method is None:
            return None
        return grpc.stream_unary_rpc_method_handler(
            lambda messages, context: self._answer(method, messages, context)
        )

    def _answer(
        self, method: _Method, messages: Iterator[bytes], context: grpc.ServicerContext
    ) -> bytes:
        started, code = time.perf_counter(), "OK"
        name: list[str] = []
        call = Call(_timeout_s(context))
        context.add_callback(lambda: method.admission.give_up(call))
        try:
            with method.admission.enter(call) as place:
                body = self._read(method, messages, context, place)
                with place.running():
                    reply = answered(lambda: _serialized(method, body.pop(), call, name))
                    self._hold_until_sent(len(reply), method, context)
                    return reply
        except StatusError as error:
            code = error.code
            return context.abort(grpc.StatusCode[code], _start_of(error.message))
        finally:
            if method.api and name:
                self._note(name[0], method.api, code, time.perf_counter() - started)

    def _note(self, model_name: str, api: str, code: str, seconds: float) -> None:
        if model_name not in self._core.models.names:
            return  # any client could make up as many as it likes
        self._core.metrics.count_request(model_name, code)
        if code == "OK":
            self._core.metrics.observe_request(model_name, api, "GRPC", seconds)

    def _read(
        self,
        method: _Method,
        messages: Iterator[bytes],
        context: grpc.ServicerContext,
        place: Place,
    ) -> list[bytes]:
        """Reads the message, in a list from which it can be taken; a slow client is cut."""
        with place.reading(), self._cutting(method, context):
            try:
                body = [next(messages)]
            except (StopIteration, grpc.RpcError) as error:
                raise StatusError("CANCELLED", "the client sent no message") from error
            place.hold(len(body[0]))
        return body

    def _hold_until_sent(self, size: int, method: _Method, context: grpc.ServicerContext) -> None:
        """Counts a reply to the end of its call, and cuts a client that reads it slowly."""
        sending = contextlib.ExitStack()
        sending.enter_context(method.admission.replying(size))
        sending.enter_context(self._cutting(method, context))
        if not context.add_callback(sending.close):  # the call has ended
            sending.close()

    @contextlib.contextmanager
    def _cutting(self, method: _Method, context: grpc.ServicerContext) -> Iterator[None]:
        """Cuts a client that is slow in the block: sooner if it keeps others out."""
        ended, admission = threading.Event(), method.admission
        idle_s = self._idle_s if method.api else min(_LIGHT_S, self._idle_s)

        def cut() -> None:
            for _ in range(_PATIENCE):
                if ended.wait(idle_s):
                    return
                if admission.is_full or admission.has_unread:
                    break
            context.cancel()

        threading.Thread(target=cut, daemon=True).start()
        try:
            yield
        finally:
            ended.set()


def _light_admission(max_calls: int) -> Admission:
    return Admission(max_running=max_calls, max_waiting=0, max_held_bytes=_LIGHT_BYTES)


def _methods(core: ServerCore, admission: Admission, light: Admission) -> dict[str, _Method]:
    predict, metadata = predict_pb2.PredictRequest, get_model_metadata_pb2.GetModelMetadataRequest
    classify, regress = classification_pb2.ClassificationRequest, regression_pb2.RegressionRequest
    infer, status = inference_pb2.MultiInferenceRequest, get_model_status_pb2.GetModelStatusRequest
    reload, reloads = model_management_pb2.ReloadConfigRequest, _light_admission(_RELOADS)
    prediction = {
        "Predict": _Method(predict, core.predict, admission, "Predict"),
        "Classify": _Method(classify, core.classify, admission, "Classify"),
        "Regress": _Method(regress, core.regress, admission, "Regress"),
        "MultiInference": _Method(infer, core.multi_inference, admission, "MultiInference"),
        "GetModelMetadata": _Method(metadata, lambda r, _: core.model_metadata(r), light),
    }
    model = {
        "GetModelStatus": _Method(status, lambda r, _: core.model_status(r), light),
        "HandleReloadConfigRequest": _Method(reload, core.reload_config, reloads),
    }
    return {
        **{f"/{PREDICTION}/{name}": method for name, method in prediction.items()},
        **{f"/{MODEL}/{name}": method for name, method in model.items()},
    }


def _serialized(method: _Method, body: bytes, call: Call, name: list[str]) -> bytes:
    """Parses a message and gives the reply; the model's name is added to a list."""
    try:
        request = method.request.FromString(body)
    except DecodeError as error:
        raise StatusError("INTERNAL", "Failed to parse the message") from error
    del body
    with contextlib.suppress(AttributeError):  # some have none, or one for each task
        name.append(request.model_spec.name)
    if method.request is inference_pb2.MultiInferenceRequest and request.tasks:
        name.append(request.tasks[0].model_spec.name)
    requests = [request]
    del request
    reply: bytes = method.answer(requests.pop(), call).SerializeToString()
    return reply


def _start_of(message: str) -> str:
    """The start of an error that clients can take: gRPC percent-encodes all but plain ASCII."""
    text = message.encode(errors="replace").decode()
    sizes = (1 if " " <= c <= "~" and c != "%" else 3 * len(c.encode()) for c in text)
    return text[: bisect.bisect(list(itertools.accumulate(sizes)), _MAX_DETAILS)]


def _timeout_s(context: grpc.ServicerContext) -> float | None:
    left: float | None = context.time_remaining()
    return None if left is None or left > _NO_DEADLINE_S else left


def _make_health() -> health.HealthServicer:
    servicer = health.HealthServicer(
        experimental_non_blocking=True, experimental_thread_pool=futures.ThreadPoolExecutor(2)
    )
    for name in ("", PREDICTION, MODEL):
        servicer.set(name, health_pb2.HealthCheckResponse.SERVING)
    return servicer


def _check_method(
    servicer: health.HealthServicer, context: grpc.ServicerContext, light: Admission
) -> _Method:
    return _Method(
        health_pb2.HealthCheckRequest, lambda request, _: servicer.Check(request, context), light
    )


def _watch_handler(servicer: health.HealthServicer) -> Any:
    return grpc.unary_stream_rpc_method_handler(
        servicer.Watch,
        health_pb2.HealthCheckRequest.FromString,
        health_pb2.HealthCheckResponse.SerializeToString,
    )
