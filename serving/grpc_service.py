"""TensorFlow Serving's gRPC services.

Each call is taken as a stream of one message, so that it is admitted before its message is read.
"""

from __future__ import annotations

import bisect
import contextlib
import dataclasses
import itertools
import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from typing import Any

import grpc
from google.protobuf.message import DecodeError, Message
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
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
from .statuses import deadline_exceeded

_MAX_MESSAGE = 2**31 - 1  # bytes; the real server's limit, and protobuf's
_MAX_DETAILS = 6000  # bytes of an error, percent-encoded: clients take 8 kB of headers
_NO_DEADLINE_S = 1e8  # what is left of a call that has no deadline is more than this
_HANDSHAKE_MS = 20_000  # for which a connection may stay half open
_LIGHT_CALLS = 8  # calls at once that run no model
_READERS = 8  # messages that are read at once: nobody knows their size before they have arrived
_PATIENCE = 10  # times the idle seconds in which a message must have arrived, however large
_KEEPALIVE_MS = 30_000  # between pings of a connection, which find out that its client is gone
_REFUSED_CALLS = 64  # calls at once that are read far enough to be refused

PREDICTION, MODEL = "tensorflow.serving.PredictionService", "tensorflow.serving.ModelService"


@dataclasses.dataclass(frozen=True)
class _Method:
    """A call of the API.

    Attributes:
        request: Class of its message.
        answer: Gives the reply.
        api: Name in the metrics if it runs a model, else empty.
    """

    request: type[Any]
    answer: Callable[[Any, Call], Message]
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
            idle_s: A message must have arrived in ten times so many seconds.
            options: Arguments of the channel.
            with_health: Serve `grpc.health.v1` too.

        Raises:
            InputError: If an address is taken.
        """
        threads = max_calls + _LIGHT_CALLS
        self._server = grpc.server(
            futures.ThreadPoolExecutor(threads, thread_name_prefix="grpc"),
            maximum_concurrent_rpcs=threads + _REFUSED_CALLS,
            options=[
                ("grpc.max_send_message_length", _MAX_MESSAGE),
                ("grpc.max_receive_message_length", _MAX_MESSAGE),
                ("grpc.server_handshake_timeout_ms", _HANDSHAKE_MS),
                ("grpc.keepalive_time_ms", _KEEPALIVE_MS),
                ("grpc.so_reuseport", 0),  # else a second server would silently share a used port
                *options,
            ],
        )
        light = Admission(
            max_running=_LIGHT_CALLS, max_waiting=threads, max_held_bytes=_MAX_MESSAGE
        )
        handler = _Handler(core, admission, light, idle_s=idle_s)
        self._server.add_generic_rpc_handlers([handler])
        self._health = _add_health(self._server) if with_health else None
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


class _Handler(grpc.GenericRpcHandler):  # type: ignore[misc, unused-ignore]
    """Finds the call of a name, and answers it."""

    def __init__(
        self, core: ServerCore, admission: Admission, light: Admission, *, idle_s: float
    ) -> None:
        self._core = core
        self._admission = admission
        self._light = light
        self._idle_s = idle_s
        self._readers = threading.BoundedSemaphore(_READERS)
        self._methods = _methods(core)

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """Gives the handler of a call, None if there is no such call."""
        method = self._methods.get(handler_call_details.method)
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
        admission = self._admission if method.api else self._light
        call = Call(_timeout_s(context))
        context.add_callback(lambda: admission.give_up(call))
        try:
            with admission.enter(call) as place:
                body = self._read(messages, context, place)
                with place.running():
                    return answered(lambda: _serialized(method, body.pop(), call, name))
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
        self, messages: Iterator[bytes], context: grpc.ServicerContext, place: Place
    ) -> list[bytes]:
        """Reads the message, in a list from which it can be taken; a slow client is cut."""
        if not self._readers.acquire(timeout=place.call.left_s()):
            raise deadline_exceeded()
        cut = threading.Timer(self._idle_s * _PATIENCE, context.cancel)
        cut.daemon = True
        cut.start()
        try:
            body = [next(messages)]
            place.hold(len(body[0]))
        except (StopIteration, grpc.RpcError) as error:
            raise StatusError("CANCELLED", "the client sent no message") from error
        finally:
            cut.cancel()
            self._readers.release()
        return body


def _methods(core: ServerCore) -> dict[str, _Method]:
    predict = _Method(predict_pb2.PredictRequest, core.predict, "Predict")
    classify = _Method(classification_pb2.ClassificationRequest, core.classify, "Classify")
    regress = _Method(regression_pb2.RegressionRequest, core.regress, "Regress")
    infer = _Method(inference_pb2.MultiInferenceRequest, core.multi_inference, "MultiInference")
    metadata = get_model_metadata_pb2.GetModelMetadataRequest
    status = get_model_status_pb2.GetModelStatusRequest
    reload = model_management_pb2.ReloadConfigRequest
    return {
        f"/{PREDICTION}/Predict": predict,
        f"/{PREDICTION}/Classify": classify,
        f"/{PREDICTION}/Regress": regress,
        f"/{PREDICTION}/MultiInference": infer,
        f"/{PREDICTION}/GetModelMetadata": _Method(metadata, lambda r, _: core.model_metadata(r)),
        f"/{MODEL}/GetModelStatus": _Method(status, lambda r, _: core.model_status(r)),
        f"/{MODEL}/HandleReloadConfigRequest": _Method(reload, lambda r, _: core.reload_config(r)),
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


def _add_health(server: grpc.Server) -> health.HealthServicer:
    servicer = health.HealthServicer(
        experimental_non_blocking=True, experimental_thread_pool=futures.ThreadPoolExecutor(2)
    )
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    for name in ("", PREDICTION, MODEL):
        servicer.set(name, health_pb2.HealthCheckResponse.SERVING)
    return servicer
