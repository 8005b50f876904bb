"""The local server as it runs: time limits, many clients, slow clients, reloads and its end."""

from __future__ import annotations

import contextlib
import gzip
import http.client
import json
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest
import tensorflow as tf
from grpc_health.v1 import health_pb2, health_pb2_grpc
from served_model import write_served_model
from tensorflow_serving.apis import (
    get_model_status_pb2,
    model_management_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_log_pb2,
    prediction_service_pb2_grpc,
)

from fcnseg.errors import InputError
from fcnseg.saved_model.session import SavedModelSession, StatusError
from serving import local_server
from serving import rest as rest_module
from serving.local_server import LocalServer
from serving.served_models import config_of_one
from serving.server import ServerCommand
from serving.warm_up import WARM_UP_FILE, load_session

GZIP = {"Content-Encoding": "gzip"}
LONG = 10**7  # steps of the slow signature: minutes


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    write_served_model(folder / "1")
    return folder


@contextlib.contextmanager
def serving(base, **flags):
    ports = {"port": -1, "rest_api_port": -1}
    poll = {"file_system_poll_wait_seconds": 0.05}
    command = ServerCommand(base, "m", **{**ports, **poll, "grace_seconds": 5.0, **flags})
    with LocalServer(command) as server:
        yield server


@contextlib.contextmanager
def connected(base, **flags):
    """A server and a channel to it."""
    with serving(base, **flags) as server, channel_of(server) as channel:
        yield server, channel


@contextlib.contextmanager
def channel_of(server):
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
        yield channel


def predict(channel, signature="", *, timeout=30, wait=True, **inputs):
    """The response of a call, or its future."""
    request = predict_pb2.PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = "m", signature
    for name, value in inputs.items():
        request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
    call = prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict
    return call(request, timeout=timeout) if wait else call.future(request, timeout=timeout)


def predict_slowly(channel, steps=LONG, **options):
    return predict(channel, "slow", n=np.int32(steps), **options)


def rest(server, method="GET", path="/v1/models/m", body=None, headers=None):
    """Status and text of an answer by a server, or at a port."""
    port = server if isinstance(server, int) else server.rest_port
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    content = body if body is None or isinstance(body, bytes) else json.dumps(body)
    with contextlib.closing(connection):
        connection.request(method, path, content, headers or {})
        response = connection.getresponse()
        return response.status, response.read().decode()


def post_slowly(server, steps=LONG):
    body = {"signature_name": "slow", "inputs": steps}
    return rest(server, "POST", "/v1/models/m:predict", body)


def wait_until(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def running(server):
    return server.admission.counts[1]


def code_of(call):
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value.code().name


def test_run_ends_in_time(base):
    """And does no more work: the next call, of the same slot, is answered at once."""
    with connected(base, max_running_calls=1, rest_api_timeout_in_ms=300) as (server, channel):
        assert code_of(lambda: predict_slowly(channel, timeout=0.3)) == "DEADLINE_EXCEEDED"
        wait_until(lambda: not running(server))
        status, text = post_slowly(server)
        assert status == 504
        assert "Timed out waiting for notification" in text
        assert predict(channel, x=[2.0]).outputs["y"].float_val == [3.0]


def test_call_that_its_client_gave_up_is_never_begun(base):
    with serving(base, max_running_calls=1) as server, channel_of(server) as channel:
        first = predict_slowly(channel, timeout=20, wait=False)
        wait_until(lambda: running(server) == 1)
        given_up = [predict_slowly(channel, timeout=20, wait=False) for _ in range(5)]
        wait_until(lambda: server.admission.counts[0] == 6)
        for call in given_up:
            call.cancel()
        with socket.create_connection(("127.0.0.1", server.rest_port)) as connection:
            body = json.dumps({"signature_name": "slow", "inputs": LONG}).encode()
            connection.sendall(
                b"POST /v1/models/m:predict HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b"
                % (len(body), body)
            )
            wait_until(lambda: len(server.admission._running.waiting) == 1)
        wait_until(lambda: server.admission.counts[0] == 1)
        server.core.models.cancel_calls()
        assert code_of(first.result) == "CANCELLED"


def test_calls_beyond_the_limit_are_refused_at_once(base):
    with connected(base, max_running_calls=1, max_waiting_calls=1) as (server, channel):
        calls = [predict_slowly(channel, wait=False) for _ in range(2)]
        wait_until(lambda: server.admission.counts[0] == 2)
        assert code_of(lambda: predict(channel, x=[2.0])) == "RESOURCE_EXHAUSTED"
        status, text = rest(server, "POST", "/v1/models/m:predict", {"instances": [2]})
        assert status == 429
        assert "1 calls run and 1 wait" in text
        assert rest(server)[0] == 200  # what runs no model is still answered
        for call in calls:
            call.cancel()
        server.core.models.cancel_calls()


@pytest.mark.parametrize("transport", ["grpc", "rest"])
def test_messages_beyond_the_limit_are_refused(base, transport):
    with connected(base, max_running_calls=1, max_held_mib=1) as (server, channel):
        slow = predict_slowly(channel, wait=False)
        wait_until(lambda: running(server) == 1)
        if transport == "grpc":
            large = np.zeros(2**19, np.float32)
            assert code_of(lambda: predict(channel, x=large)) == "RESOURCE_EXHAUSTED"
        else:
            body = {"instances": [1], "u": "x" * 2**25}  # more than fits the connection's buffers
            status, _ = rest(server, "POST", "/v1/models/m:predict", body)
            assert status == 429
        slow.cancel()
        server.core.models.cancel_calls()


MANY_LISTS = b'{"inputs":[' + b",".join([b"[]"] * 10**6) + b"]}"  # 3 MB, and 100 MB in memory
BASE64 = b'{"inputs":1,"u":"' + b"A" * len(MANY_LISTS) + b'"}'


@pytest.mark.parametrize("packing", ["plain", "gzip"])
def test_memory_of_json_values_is_held_while_they_are_parsed(base, packing):
    def post(body):
        headers, body = ({}, body) if packing == "plain" else (GZIP, gzip.compress(body))
        return rest(server, "POST", "/v1/models/m:predict", body, headers)

    with connected(base, max_running_calls=2, max_held_mib=16) as (server, channel):
        assert post(MANY_LISTS)[0] == 200  # it is alone
        slow = predict_slowly(channel, wait=False)
        wait_until(lambda: running(server) == 1)
        status, text = post(MANY_LISTS)
        assert (status, "with 172" in text) == (429, True)
        assert post(BASE64)[0] == 200
        slow.cancel()
        server.core.models.cancel_calls()


def test_memory_of_json_values_is_released_before_the_model_runs(base):
    with serving(base, max_held_mib=16) as server, ThreadPoolExecutor(1) as pool:
        body = {"signature_name": "slow", "inputs": LONG, "u": [1] * 10**6}
        call = pool.submit(rest, server, "POST", "/v1/models/m:predict", body)
        wait_until(lambda: running(server) == 1)
        wait_until(lambda: 0 < server.admission.counts[2] < 2**22)
        server.core.models.cancel_calls()
        assert call.result()[0] == 499


def test_values_that_take_all_memory_are_refused(base, monkeypatch):
    monkeypatch.setattr("serving.rest._MAX_PARSED", 10**8)
    with serving(base) as server:
        status, text = rest(server, "POST", "/v1/models/m:predict", MANY_LISTS)
        assert status == 400
        assert "a body's values must take at most 100000000 bytes of memory, got 172" in text


def test_slow_and_half_open_clients_are_cut(base):
    head = b"POST /v1/models/m:predict HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n"
    with serving(base, idle_seconds=0.3) as server:
        for sent in (b"", b"GET /v1", head, b"GET /v1/models/m HTTP/1.1\r\nHost: x\r\n\r\n"):
            with socket.create_connection(("127.0.0.1", server.rest_port), timeout=20) as slow:
                slow.sendall(sent)
                while slow.recv(2**16):
                    pass  # until the server closes the connection
        for sent in (b"", b"GET /v1/models/m HTTP/1.1\r\nHost: x\r\nContent-Length: 999\r\n\r\n"):
            with socket.create_connection(("127.0.0.1", server.rest_port), timeout=20) as drip:
                drip.sendall(sent)
                drip.settimeout(0.05)
                with contextlib.suppress(ConnectionError):
                    for _ in range(100):  # a byte at a time is no head, and no body, in time
                        drip.sendall(b"G")
                        with contextlib.suppress(TimeoutError):
                            if not drip.recv(2**16):
                                break
                    else:
                        pytest.fail("it was not cut")
        with channel_of(server) as channel, half_open(channel, PREDICT, 1) as (call,):
            assert code_of(call.result) == "CANCELLED"
        assert server.admission.wait_until_idle(10)


@contextlib.contextmanager
def half_open(channel, method, count):
    """Calls whose messages never come."""
    ended = threading.Event()
    call = channel.stream_unary(method, lambda m: m, lambda m: m)
    messages = [(ended.wait() and b"" for _ in range(1)) for _ in range(count)]
    try:
        calls = [call.future(each, timeout=60) for each in messages]  # else they would be cancelled
        yield calls
    finally:
        ended.set()


PREDICT = "/tensorflow.serving.PredictionService/Predict"
STATUS = "/tensorflow.serving.ModelService/GetModelStatus"
HEALTH = "/grpc.health.v1.Health/Check"


@pytest.mark.parametrize("method", [PREDICT, STATUS, HEALTH])
@pytest.mark.parametrize("count", [8, 100])
def test_half_open_calls_keep_nobody_out(base, method, count):
    """What runs no model is answered at once, what runs one when they have had their time."""
    with connected(base, idle_seconds=1.0) as (server, channel), channel_of(server) as other:
        with half_open(other, method, count):
            wait_until(lambda: method != PREDICT or server.admission.counts[0] == min(count, 34))
            assert patiently(8, lambda: get_status(channel, "m")) == 30
            check = health_pb2_grpc.HealthStub(channel).Check
            patiently(8, lambda: check(health_pb2.HealthCheckRequest(), timeout=5))
            answer = patiently(8, lambda: predict(channel, x=[2.0], timeout=8))
            assert answer.outputs["y"].float_val == [3.0]
        assert server.admission.wait_until_idle(10)


def get_status(channel, name, timeout=5):
    """The state of a model's newest version."""
    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name = name
    stub = model_service_pb2_grpc.ModelServiceStub(channel)
    return stub.GetModelStatus(request, timeout=timeout).model_version_status[0].state


def patiently(seconds, call):
    """The answer to a client that asks again for some seconds where the server is full."""
    answers = []

    def is_answered():
        try:
            answers.append(call())
        except grpc.RpcError as error:
            if error.code().name != "RESOURCE_EXHAUSTED":
                raise
        return answers

    wait_until(is_answered, seconds)
    return answers[0]


@contextlib.contextmanager
def dripping(server, *heads):
    """Clients that each send a head, then some bytes of its body again and again."""
    with contextlib.ExitStack() as stack:
        clients = [
            stack.enter_context(socket.create_connection(("127.0.0.1", server.rest_port), 20))
            for _ in heads
        ]
        ended = threading.Event()

        def drip():
            with contextlib.suppress(ConnectionError):
                while not ended.wait(0.05):
                    for client in clients:
                        client.sendall(b"x" * 200)

        for client, head in zip(clients, heads, strict=True):
            client.sendall(head)
        thread = threading.Thread(target=drip)
        thread.start()
        try:
            yield clients
        finally:
            ended.set()
            thread.join()


def received(client):
    """What a client gets until the server closes the connection."""
    pieces = []
    with contextlib.suppress(ConnectionError):
        while piece := client.recv(2**16):
            pieces.append(piece)
    return b"".join(pieces)


HUGE_BODY = b"POST /v1/models/m:predict HTTP/1.1\r\nHost: x\r\nContent-Length: 2147483647\r\n\r\n"


def test_slow_body_keeps_nobody_out_and_ends_in_time(base):
    """Its bytes count as they arrive, not as its client says."""
    with connected(base, rest_api_timeout_in_ms=1500) as (server, channel):
        with dripping(server, HUGE_BODY) as (slow,):
            started = time.monotonic()
            wait_until(lambda: server.admission.counts[2] > 0)
            assert server.admission.counts[2] < 2**20
            assert rest(server, "POST", "/v1/models/m:predict", {"instances": [2]})[0] == 200
            assert predict(channel, x=[2.0]).outputs["y"].float_val == [3.0]
            assert received(slow).split()[1] == b"504"
            assert time.monotonic() - started < 10
        assert server.admission.wait_until_idle(10)


def test_slow_bodies_give_way_where_they_take_all_places(base):
    flags = {"max_running_calls": 1, "max_waiting_calls": 1, "idle_seconds": 1.0}
    with serving(base, **flags) as server, dripping(server, HUGE_BODY, HUGE_BODY) as (slow, _):
        wait_until(lambda: server.admission.counts[0] == 2)
        assert rest(server, "POST", "/v1/models/m:predict", {"instances": [2]})[0] == 429
        assert b"a body must come at 262144 bytes a second" in received(slow)
        assert rest(server, "POST", "/v1/models/m:predict", {"instances": [2]})[0] == 200


def test_connection_beyond_the_limit_is_answered_in_json(base, monkeypatch):
    monkeypatch.setattr(local_server, "_MAX_CONNECTIONS", 2)
    with serving(base) as server, contextlib.ExitStack() as stack:
        address = ("127.0.0.1", server.rest_port)
        others = [stack.enter_context(socket.create_connection(address, 20)) for _ in range(2)]
        wait_until(lambda: len(server._rest._server.server_state.connections) == 2)
        status, text = rest(server)
        assert (status, json.loads(text)) == (
            503,
            {"error": "2 connections are open: try again later"},
        )
        others[0].close()
        wait_until(lambda: rest(server)[0] == 200)


POST = b"POST /v1/models/m:predict HTTP/1.1\r\nHost: x\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
NO_REQUESTS = {
    "length of letters": (POST + b"Content-Length: abc\r\n\r\n{}", 400),
    "negative length": (POST + b"Content-Length: -1\r\n\r\n{}", 400),
    "two lengths": (POST + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}", 400),
    "length of 3 GB": (POST + b"Content-Length: 3000000000\r\n\r\n{", 413),
    "chunk of no size": (CHUNKED + b"{}\r\n", 400),
    "chunk of a negative size": (CHUNKED + b"-2\r\n{}\r\n", 400),
    "no HTTP": (b"no HTTP\r\n\r\n", 400),
    "no host": (b"GET /v1/models/m HTTP/1.1\r\n\r\n", 400),
}


@pytest.fixture(scope="module")
def server(base):
    with serving(base, idle_seconds=5.0) as running:
        yield running


@pytest.mark.parametrize(("sent", "status"), NO_REQUESTS.values(), ids=NO_REQUESTS)
def test_what_is_no_request_is_answered(server, sent, status):
    with socket.create_connection(("127.0.0.1", server.rest_port), timeout=20) as connection:
        connection.sendall(sent)
        with connection.makefile("rb") as stream:
            head, _, body = stream.read().partition(b"\r\n\r\n")  # until it is closed
    assert int(head.split()[1]) == status
    assert set(json.loads(body)) == {"error"}


@pytest.mark.parametrize(
    "sent", [b"GET /" + b"x" * 10**6, POST + b"X: " + b"x" * 10**6], ids=["path", "header"]
)
def test_head_of_a_megabyte_is_cut(server, sent):
    address = ("127.0.0.1", server.rest_port)
    # What is not read resets the connection.
    with contextlib.suppress(ConnectionError), socket.create_connection(address, 20) as connection:
        connection.sendall(sent)
        while connection.recv(2**16):
            pass  # until it is closed
    assert rest(server)[0] == 200


@contextlib.contextmanager
def unread(server, *, count=1):
    """REST clients that ask with 260 kB for 610 kB, and read nothing."""
    body = {"signature_name": "two", "inputs": {"a": [1], "t": ["x" * 260_000]}}
    content = json.dumps(body).encode()
    server._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2**14)
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(socket.socket()) for _ in range(count)]
        for client in clients:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.connect(("127.0.0.1", server.rest_port))
            client.sendall(POST + b"Content-Length: %d\r\n\r\n%b" % (len(content), content))
        yield clients


def test_client_that_does_not_read_is_cut(base):
    with serving(base, idle_seconds=0.5) as server, unread(server):
        connections = server._rest._server.server_state.connections
        wait_until(lambda: connections)
        wait_until(lambda: not connections)
        assert server.admission.wait_until_idle(5)


@contextlib.contextmanager
def reading_slowly(clients):
    """Reads some 50 kB a second for each client, until it is cut."""
    ended = threading.Event()

    def read():
        with contextlib.suppress(ConnectionError):
            while not ended.wait(0.05):
                for client in clients:
                    client.recv(2500)

    thread = threading.Thread(target=read)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def test_slow_readers_of_rest_are_counted_and_give_way(base, monkeypatch):
    monkeypatch.setattr(rest_module, "_BUSY_RATE", 2**30)
    monkeypatch.setattr(rest_module, "_PIECE", 2**14)
    good = ("POST", "/v1/models/m:predict", {"instances": [2]})
    flags = {"max_held_mib": 1, "idle_seconds": 2.0}
    with serving(base, **flags) as server, unread(server, count=2) as clients:
        wait_until(lambda: server.admission.counts[0] == 0 and server.admission.counts[2] > 1.2e6)
        with reading_slowly(clients):
            assert rest(server, *good)[0] == 429
            started = time.monotonic()
            wait_until(lambda: rest(server, *good)[0] == 200)
            assert time.monotonic() - started < 8  # they would take 12 s
        assert server.admission.wait_until_idle(10)


@pytest.mark.parametrize("max_held_mib", [4, 2048])
def test_client_of_grpc_that_does_not_read_is_counted_and_cut(base, max_held_mib):
    """At once where it keeps others out."""
    request = predict_pb2.PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = "m", "id_int32"
    request.inputs["x"].CopyFrom(tf.make_tensor_proto(np.full(10**6, 2**30, np.int32)))
    options = [("grpc.max_receive_message_length", -1), ("grpc.http2.bdp_probe", 0)]
    with (
        serving(base, idle_seconds=0.5, max_held_mib=max_held_mib) as server,
        grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}", options) as channel,
    ):
        call = channel.unary_stream(PREDICT, lambda m: m, lambda m: m)
        started = time.monotonic()
        reply = call(request.SerializeToString(), timeout=60)
        wait_until(lambda: server.admission.counts[0] == 0 and server.admission.counts[2] > 5e6)
        assert server.admission.wait_until_idle(20)
        assert (time.monotonic() - started < 4) == (max_held_mib == 4)
        assert code_of(lambda: next(reply)) == "CANCELLED"


@pytest.mark.parametrize("letter", ["a", "%", "\n", "é", "中", "🫀"])
def test_long_error_reaches_its_client_whatever_its_letters(server, letter):
    """gRPC refuses headers of over 8 kB, and sends up to twelve bytes for a letter."""
    with channel_of(server) as channel, pytest.raises(grpc.RpcError) as caught:
        predict(channel, letter * 9000, x=[2.0])
    assert caught.value.code().name == "FAILED_PRECONDITION"
    assert caught.value.details().startswith(f'Serving signature key "{letter * 400}')


def test_browser_gets_a_page_at_the_root(server):
    status, text = rest(server, path="/")
    assert status == 200
    assert text.startswith("<!doctype html>")
    assert json.loads(rest(server, path="/page/settings.json")[1])["model_names"] == ["m"]


ORIGINS = {"http://{host}": 200, None: 200, "http://localhost": 403, "null": 403, "http://[": 403}


@pytest.mark.parametrize("origin", ORIGINS)
def test_pages_of_other_sites_start_no_run(server, origin):
    """A form of text is sent anywhere; a browser only keeps its answer from the page."""
    host = f"127.0.0.1:{server.rest_port}"
    headers = {"Content-Type": "text/plain"}
    headers |= {} if origin is None else {"Origin": origin.replace("{host}", host)}
    body = {"instances": [2.0]}
    status, text = rest(server, "POST", "/v1/models/m:predict", body, headers)
    assert status == ORIGINS[origin]
    assert status == 200 or "may not call: rest_api_enable_cors_support lets them" in text
    assert rest(server, headers=headers)[0] == 200


def test_pages_of_other_sites_may_call_where_cors_is_on(base):
    with serving(base, rest_api_enable_cors_support=True) as server:
        headers = {"Origin": "http://localhost"}
        body = {"instances": [2.0]}
        assert rest(server, "POST", "/v1/models/m:predict", body, headers)[0] == 200


def test_port_0_switches_a_transport_off(base, tmp_path):
    path = tmp_path / "grpc.sock"
    with serving(base, port=0, rest_api_port=0, grpc_socket_path=path) as server:
        assert server.grpc_port == 0
        assert f"unix:{path}" in str(server)
        with grpc.insecure_channel(f"unix:{path}") as channel:
            assert predict(channel, x=[2.0]).outputs["y"].float_val == [3.0]
    with serving(base, rest_api_port=0) as server, channel_of(server) as channel:
        assert server.rest_port == 0
        assert predict(channel, x=[2.0]).outputs["y"].float_val == [3.0]


def test_a_socket_where_a_server_listens_is_not_taken_over(base, tmp_path):
    path = tmp_path / "grpc.sock"
    flags = {"port": 0, "rest_api_port": 0, "grpc_socket_path": path}
    with serving(base, **flags), grpc.insecure_channel(f"unix:{path}") as channel:
        with pytest.raises(InputError, match=f"grpc_socket_path must be free, got {path}"):
            LocalServer(ServerCommand(base, "m", **flags))
        assert predict(channel, x=[2.0]).outputs["y"].float_val == [3.0]
    with socket.socket(socket.AF_UNIX) as left:  # as by a server that was killed
        left.bind(str(path))
    with serving(base, **flags), grpc.insecure_channel(f"unix:{path}") as channel:
        assert predict(channel, x=[2.0]).outputs["y"].float_val == [3.0]


def test_a_fault_of_the_server_is_answered_in_json(base, monkeypatch):
    def fail(self, *_):
        raise OverflowError("too large")

    with serving(base) as server:
        monkeypatch.setattr(rest_module.RestApp, "_answer", fail)
        status, text = rest(server)
        assert (status, json.loads(text)) == (500, {"error": "OverflowError: too large"})


def test_arguments_of_the_channel_are_those_of_the_server(base):
    limit = "grpc.max_receive_message_length=500"
    with connected(base, grpc_channel_arguments=limit) as (_, channel):
        assert predict(channel, x=[2.0]).outputs["y"].float_val == [3.0]
        assert code_of(lambda: predict(channel, x=[2.0] * 500)) == "RESOURCE_EXHAUSTED"


@pytest.mark.parametrize(
    ("flags", "iterations"),
    [
        ({}, 1),
        ({"num_request_iterations_for_warmup": 3}, 3),
        ({"num_request_iterations_for_warmup": 3, "enable_model_warmup": False}, 0),
    ],
)
def test_a_version_is_warmed_up_as_often_as_asked(base, monkeypatch, flags, iterations):
    seen, load = [], local_server.load_session

    def note(*args, iterations):
        seen.append(iterations)
        return load(*args, iterations=iterations)

    monkeypatch.setattr(local_server, "load_session", note)
    with serving(base, **flags):
        assert seen == [iterations]


def test_health_is_told_and_is_gone_when_the_server_stops(base):
    with serving(base) as server, channel_of(server) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        for service in ("", "tensorflow.serving.PredictionService"):
            reply = stub.Check(health_pb2.HealthCheckRequest(service=service))
            assert reply.status == health_pb2.HealthCheckResponse.SERVING
        assert (
            code_of(lambda: stub.Check(health_pb2.HealthCheckRequest(service="x"))) == "NOT_FOUND"
        )
        watched = stub.Watch(health_pb2.HealthCheckRequest())
        assert next(watched).status == health_pb2.HealthCheckResponse.SERVING
        with ThreadPoolExecutor(1) as pool:
            stopped = pool.submit(server.stop, grace_s=1.0)
            assert next(watched).status == health_pb2.HealthCheckResponse.NOT_SERVING
            watched.cancel()
            stopped.result()
    with connected(base, enable_grpc_healthcheck_service=False) as (server, channel):
        call = health_pb2_grpc.HealthStub(channel).Check
        assert code_of(lambda: call(health_pb2.HealthCheckRequest())) == "UNIMPLEMENTED"


def test_metrics_have_the_real_names(base, tmp_path):
    config = tmp_path / "monitoring.config"
    config.write_text('prometheus_config { enable: true, path: "/metrics" }')
    with serving(base, monitoring_config_file=config) as server:
        with channel_of(server) as channel:
            predict(channel, x=[2.0])
        rest(server, "POST", "/v1/models/m:predict", {"instances": [2]})
        rest(server, "POST", "/v1/models/m:predict", {"instances": ["a"]})
        rest(server, "POST", "/v1/models/other:predict", {"instances": [2]})
        status, text = rest(server, path="/metrics")
    assert status == 200
    lines = text.splitlines()
    latency = ":tensorflow:serving:request_latency_count"
    for line in (
        "# TYPE :tensorflow:serving:request_count counter",
        ':tensorflow:serving:request_count{model_name="m",status="OK"} 2',
        ':tensorflow:serving:request_count{model_name="m",status="INVALID_ARGUMENT"} 1',
        "# TYPE :tensorflow:serving:request_latency histogram",
        latency + '{model_name="m",API="Predict",entrypoint="GRPC"} 1',
        latency + '{model_name="m",API="predict",entrypoint="REST"} 1',
        ':tensorflow:serving:runtime_latency_count{model_name="m",API="Predict",runtime="TF1"} 2',
    ):
        assert line in lines
    assert 'le="18"' in text
    assert "other" not in text  # else clients could make up any number of them
    with serving(base) as server:
        assert rest(server, path="/monitoring/prometheus/metrics")[0] == 404


def test_models_are_reloaded_by_request(base, tmp_path):
    write_served_model(tmp_path / "3", offset=10.0)
    with serving(base) as server, channel_of(server) as channel:
        stub = model_service_pb2_grpc.ModelServiceStub(channel)
        request = model_management_pb2.ReloadConfigRequest()
        listed = request.config.model_config_list.config
        listed.add(name="n", base_path=str(tmp_path), model_platform="tensorflow")
        assert stub.HandleReloadConfigRequest(request, timeout=60).status.error_code == 0
        status = get_model_status_pb2.GetModelStatusRequest()
        status.model_spec.name = "n"
        assert stub.GetModelStatus(status).model_version_status[0].version == 3
        assert code_of(lambda: predict(channel, x=[2.0])) == "NOT_FOUND"
        status.model_spec.name = "m"  # what was served is still told
        wait_until(lambda: stub.GetModelStatus(status).model_version_status[0].state == 50)
        listed[0].version_labels["l"] = 3
        assert stub.HandleReloadConfigRequest(request, timeout=60).status.error_code == 0
        body = {"instances": [2]}
        path = "/v1/models/n/labels/l:predict"
        assert rest(server, "POST", path, body)[1] == '{\n    "predictions": [11.0\n    ]\n}'
        listed[0].base_path = str(tmp_path / "absent")
        stub.HandleReloadConfigRequest(request, timeout=60)
        assert rest(server, "POST", path, body)[0] == 200  # it stays while there is no folder


def test_reload_loads_a_model_although_nothing_is_polled(base, tmp_path):
    shutil.copytree(base / "1", tmp_path / "1")
    with connected(base, file_system_poll_wait_seconds=0) as (server, channel):
        assert reload_models(channel, m=base, n=tmp_path).status.error_code == 0
        assert get_status(channel, "n") == 30
        shutil.copytree(base / "1", tmp_path / "2")
        time.sleep(0.5)
        assert server.core.models.served_versions("n") == [1]


@pytest.mark.parametrize("ends", ["deadline", "cancel", "stop", "other reload"])
def test_reload_that_waits_for_a_version_ends(base, tmp_path, ends):
    """As do eight at a time; all other calls have places of their own."""
    code = {"deadline": "DEADLINE_EXCEEDED", "cancel": "CANCELLED", "stop": "UNAVAILABLE"}
    with connected(base, file_system_poll_wait_seconds=0) as (server, channel):
        folders, calls = {"m": base}, []
        for number in range(8):  # each adds one that has no version
            folders[f"n{number}"] = tmp_path
            timeout = 3 if ends == "deadline" else 60
            calls.append(reload_models(channel, timeout=timeout, wait=False, **folders))
            wait_until(lambda: server.core.models.names == list(folders))
        assert get_status(channel, "m") == 30
        assert predict(channel, x=[2.0]).outputs["y"].float_val == [3.0]
        if ends == "cancel":
            for call in calls:
                call.cancel()
        elif ends == "stop":
            server.stop(grace_s=5.0)
        elif ends == "other reload":
            server.core.models.reload(config_of_one("m", base))
        assert {call.code().name for call in calls} == {code.get(ends, "ABORTED")}
        if ends != "stop":
            assert patiently(5, lambda: reload_models(channel, m=base)).status.error_code == 0


def test_file_of_models_is_read_again(base, tmp_path, caplog):
    file = tmp_path / "models.config"
    entry = 'model_config_list {{ config {{ name: "{}" base_path: "{}" model_platform: "{}" }} }}'
    file.write_text(entry.format("m", base, "tensorflow"))
    ports = {"port": -1, "rest_api_port": -1, "file_system_poll_wait_seconds": 0.05}
    command = ServerCommand(
        model_config_file=file, model_config_file_poll_wait_seconds=0.05, **ports
    )
    with LocalServer(command) as server:
        for cut in ("model_config_list {", ""):  # while it is written
            file.write_text(cut)
            time.sleep(0.3)
            assert rest(server)[0] == 200
        assert "Cannot transition to requested config" in caplog.text
        file.write_text(entry.format("n", base, "tensorflow"))
        wait_until(lambda: rest(server, path="/v1/models/n")[0] == 200)
        file.write_text(entry.format("n", base, "other"))
        time.sleep(0.3)
        assert rest(server, path="/v1/models/n")[0] == 200


def test_models_that_were_reloaded_stay_without_a_file_of_models(base):
    with connected(base, model_config_file_poll_wait_seconds=0.05) as (server, channel):
        assert reload_models(channel, m=base, n=base).status.error_code == 0
        time.sleep(0.5)
        for name in ("m", "n"):
            assert rest(server, path=f"/v1/models/{name}")[0] == 200


def test_server_of_an_empty_list_serves_what_is_added_later(base, tmp_path):
    file = tmp_path / "models.config"
    file.write_text("model_config_list {}")
    with serving(None, model_config_file=file) as server, channel_of(server) as channel:
        assert str(server).startswith("serving no model at ")
        assert str(server).endswith(f":{server.rest_port}/v1/models (REST)")
        assert rest(server)[0] == 404
        reload_models(channel, m=base)
        assert rest(server)[0] == 200


def reload_models(channel, *, timeout=60, wait=True, **folders):
    """Has the server serve the models of some folders; the reply, or its future."""
    request = model_management_pb2.ReloadConfigRequest()
    for name, folder in folders.items():
        request.config.model_config_list.config.add(
            name=name, base_path=str(folder), model_platform="tensorflow"
        )
    call = model_service_pb2_grpc.ModelServiceStub(channel).HandleReloadConfigRequest
    return call(request, timeout=timeout) if wait else call.future(request, timeout=timeout)


def test_server_waits_for_a_model(base, tmp_path):
    with ThreadPoolExecutor(1) as pool, contextlib.ExitStack() as stack:
        starting = pool.submit(lambda: stack.enter_context(serving(tmp_path)))
        time.sleep(0.3)
        assert not starting.done()
        shutil.copytree(base / "1", tmp_path / ".tmp")
        (tmp_path / ".tmp").rename(tmp_path / "1")
        assert rest(starting.result(timeout=60))[0] == 200


@pytest.mark.parametrize("interval_s", [0, 0.05])
def test_server_of_a_broken_model_does_not_start(tmp_path, interval_s):
    (tmp_path / "1").mkdir()
    flags = {"max_num_load_retries": 1, "load_retry_interval_micros": 0}
    with (
        pytest.raises(InputError, match=r"must name models that can be loaded, .*not a SavedModel"),
        serving(tmp_path, file_system_poll_wait_seconds=interval_s, **flags),
    ):
        pytest.fail("it started")


def test_older_version_is_served_where_the_newest_is_removed(base, tmp_path):
    for version in ("1", "2"):
        shutil.copytree(base / "1", tmp_path / version)
    with serving(tmp_path) as server:
        assert "m version 2 at" in str(server)
        shutil.rmtree(tmp_path / "2")
        wait_until(lambda: rest(server, path="/v1/models/m/metadata")[1].find('"1"') > 0)


def test_reload_and_roll_back_lose_no_call(base, tmp_path):
    """Four clients call without a pause while a version is published and removed again."""
    shutil.copytree(base / "1", tmp_path / "1")
    with connected(tmp_path, max_running_calls=2) as (server, channel):
        versions, stopped = [], threading.Event()

        def call():
            while not stopped.is_set():
                versions.append(predict(channel, x=[2.0]).model_spec.version.value)

        with ThreadPoolExecutor(4) as pool:
            calling = [pool.submit(call) for _ in range(4)]
            wait_until(lambda: len(versions) > 20)
            shutil.copytree(tmp_path / "1", tmp_path / ".tmp-2")
            (tmp_path / ".tmp-2").rename(tmp_path / "2")
            wait_until(lambda: versions[-1] == 2)
            shutil.rmtree(tmp_path / "2")
            wait_until(lambda: versions[-1] == 1)
            stopped.set()
            for each in calling:
                each.result()  # raises what a call did
    states = server.core.models.statuses("m", None)
    assert (states[1].error_message, states[2].error_message) == ("", "")


def test_warm_up_requests_are_run_before_a_version_is_served(base, tmp_path):
    shutil.copytree(base / "1", tmp_path / "1")
    log = prediction_log_pb2.PredictionLog()
    log.predict_log.request.inputs["x"].CopyFrom(tf.make_tensor_proto([2.0]))
    path = tmp_path / "1" / WARM_UP_FILE
    path.parent.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        writer.write(log.SerializeToString())
    with contextlib.closing(load_session(tmp_path / "1", iterations=2)) as session:
        assert isinstance(session, SavedModelSession)
    log.predict_log.request.inputs["x"].CopyFrom(tf.make_tensor_proto(["a"]))
    with tf.io.TFRecordWriter(str(path)) as writer:
        writer.write(log.SerializeToString())
    with pytest.raises(StatusError, match="Expects arg"):
        load_session(tmp_path / "1", iterations=1)
    load_session(tmp_path / "1", iterations=0).close()


def test_rest_call_that_runs_is_answered_when_the_server_stops(base):
    """Within the time of grace; uvicorn alone would end it after a second."""
    with ThreadPoolExecutor(2) as pool, serving(base) as server:
        call = pool.submit(post_slowly, server)
        wait_until(lambda: running(server) == 1)
        stopping = pool.submit(server.stop, grace_s=60.0)
        time.sleep(1.5)
        assert not call.done()
        server.core.models.cancel_calls()  # stands for the end of the run
        assert call.result(timeout=20)[0] == 499
        stopping.result(timeout=20)


def test_rest_call_that_has_not_ended_is_answered_in_json(base, monkeypatch):
    """One that cannot be cancelled, as none of the runtime's kernels is in its midst."""
    monkeypatch.setattr(local_server, "_CANCEL_S", 0.2)
    monkeypatch.setattr(SavedModelSession, "close", lambda self: None)
    with ThreadPoolExecutor(1) as pool, serving(base, rest_api_timeout_in_ms=4000) as server:
        call = pool.submit(post_slowly, server)
        wait_until(lambda: running(server) == 1)
        server.stop(grace_s=0.1)
        status, text = call.result(timeout=20)
        assert (status, json.loads(text)) == (503, {"error": "the server is stopping"})


@pytest.mark.parametrize("busy", [False, True])
@pytest.mark.serving
def test_server_ends_on_sigterm(base, tmp_path, busy):
    """The process ends within the time of grace, and cancels what still runs."""
    shutil.copytree(base / "1", tmp_path / "1")
    command = [sys.executable, "-m", "serving.server", f"--model_base_path={tmp_path}", "--port=-1"]
    command += ["--model_name=m", "--rest_api_port=-1", "--grace_seconds=1"]
    command += ["--file_system_poll_wait_seconds=0.1"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes) as process, ThreadPoolExecutor(1) as pool:
        try:
            address, *_, url, _ = process.stdout.readline().split(" at ")[1].split()
            with grpc.insecure_channel(address) as channel:
                predict(channel, x=[2.0])
                port = int(url.split(":")[2].split("/")[0])
                calls = slow_calls(channel, port, pool, tmp_path) if busy else []
                started = time.monotonic()
                process.send_signal(signal.SIGTERM)
                assert process.wait(timeout=20) == 0
                assert time.monotonic() - started < 10
                assert [ended() for ended in calls] == ["CANCELLED", 499, "UNAVAILABLE"][
                    : len(calls)
                ]
                assert "Traceback" not in process.stderr.read()
        finally:
            process.kill()


def slow_calls(channel, port, pool, folder):
    """Makes a call that runs on a retired version, one over REST, and one that waits.

    Returns:
        A function for each, which gives its code or status.
    """
    old = predict_slowly(channel, wait=False)
    time.sleep(0.5)
    shutil.copytree(folder / "1", folder / ".tmp-2")
    (folder / ".tmp-2").rename(folder / "2")
    wait_until(lambda: "UNLOADING" in rest(port)[1])
    new = pool.submit(post_slowly, port)
    time.sleep(0.5)
    waiting = predict_slowly(channel, wait=False)
    time.sleep(0.5)
    return (
        lambda: code_of(old.result),
        lambda: new.result()[0],
        lambda: code_of(waiting.result),
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.serving
def test_server_that_waits_for_a_model_ends_on_a_signal(tmp_path, number):
    command = [sys.executable, "-m", "serving.server", f"--model_base_path={tmp_path}"]
    command += ["--port=-1", "--rest_api_port=-1"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        for line in process.stderr:
            if "no version of" in line:
                break
        process.send_signal(number)
        assert process.wait(timeout=20) == 0
        assert "Traceback" not in process.stderr.read()
