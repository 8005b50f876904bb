"""The local server over gRPC and REST, with models of ours and of the real server's tests."""

from __future__ import annotations

import gzip
import json
import re
import socket
import time
import urllib.error
import urllib.request

import grpc
import numpy as np
import pytest
import tensorflow as tf
from half_plus_two import write_half_plus_two
from tensorflow.core.framework import tensor_pb2
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from fcnseg.errors import InputError
from fcnseg.saved_model.session import SavedModelSession
from serving.local_server import LocalServer
from serving.server import ServerCommand


def make_server(model_base_path, **flags):
    return LocalServer(
        ServerCommand(
            model_base_path,
            port=-1,
            rest_api_port=-1,
            file_system_poll_wait_seconds=0.05,
            **{"model_name": "half", **flags},
        )
    )


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("half")
    write_half_plus_two(folder / "3")
    with make_server(folder) as running:
        yield running


@pytest.fixture(scope="module")
def channel(server):
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
        yield channel


@pytest.fixture(scope="module")
def prediction(channel):
    return prediction_service_pb2_grpc.PredictionServiceStub(channel)


def predict_request(name="half", signature="", version=None, output_filter=(), **inputs):
    request = predict_pb2.PredictRequest(output_filter=output_filter)
    request.model_spec.name = name
    request.model_spec.signature_name = signature
    if version is not None:
        request.model_spec.version.value = version
    for alias, values in inputs.items():
        request.inputs[alias].CopyFrom(tf.make_tensor_proto(values))
    return request


def rest(server, path, body=None, headers=None):
    """Status and JSON of a GET, or of a POST if there is a body."""
    content = json.dumps(body).encode() if isinstance(body, dict) else body
    url = f"http://127.0.0.1:{server.rest_port}{path}"
    request = urllib.request.Request(url, content, headers or {})
    try:
        with urllib.request.urlopen(request) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


X = np.array([1.0, 5.0], np.float32)


def test_grpc_predict(prediction):
    response = prediction.Predict(predict_request(x=X))
    np.testing.assert_array_equal(tf.make_ndarray(response.outputs["y"]), [2.5, 4.5])
    assert response.outputs["y"].float_val == [2.5, 4.5]  # typed, as the real server's default
    spec = response.model_spec
    assert (spec.name, spec.version.value, spec.signature_name) == ("half", 3, "serving_default")


def broken_tensor(shape, dtype=tf.int16.as_datatype_enum, **fields):
    tensor = tensor_pb2.TensorProto(dtype=dtype, **fields)
    for size in shape:
        tensor.tensor_shape.dim.add(size=size)
    return tensor


def test_grpc_tells_of_a_fault_of_its_own(prediction, monkeypatch):
    def fail(*arguments, **named):
        raise RuntimeError("a fault\nof two lines")

    monkeypatch.setattr(SavedModelSession, "run", fail)
    with pytest.raises(grpc.RpcError) as caught:
        prediction.Predict(predict_request(x=X))
    assert caught.value.code() == grpc.StatusCode.INTERNAL
    assert caught.value.details() == "RuntimeError: a fault of two lines"


def test_grpc_metadata(prediction):
    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    request.model_spec.name = "half"
    response = prediction.GetModelMetadata(request)
    signatures = get_model_metadata_pb2.SignatureDefMap()
    assert response.metadata["signature_def"].Unpack(signatures)
    assert set(signatures.signature_def["label"].inputs) == {"number", "word"}
    assert response.model_spec.version.value == 3


def test_grpc_status(channel):
    stub = model_service_pb2_grpc.ModelServiceStub(channel)
    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name = "half"
    (status,) = stub.GetModelStatus(request).model_version_status
    assert (status.version, status.state, status.status.error_code) == (3, 30, 0)


PREDICT = "/v1/models/half:predict"


def exchange(server, *pieces, end=False):
    """What the server says to raw bytes until it closes the connection; `end` is of our side."""
    with socket.create_connection(("127.0.0.1", server.rest_port), timeout=30) as connection:
        for piece in pieces:
            connection.sendall(piece)
        if end:
            connection.shutdown(socket.SHUT_WR)
        with connection.makefile("rb") as stream:
            return stream.read()


def status_and_reply(answer):
    head, _, body = answer.partition(b"\r\n\r\n")
    version, status, *_ = head.split()
    assert version == b"HTTP/1.1"
    return int(status), json.loads(body)


POST = f"POST {PREDICT} HTTP/1.1\r\nHost: x\r\n".encode()
CLOSE = b"Connection: close\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"


@pytest.mark.parametrize(
    "chunks",
    [
        b'e\r\n{"inputs":[2]}\r\n0\r\n\r\n',
        b'4;name=value\r\n{"in\r\nA\r\nputs":[2]}\r\n000\r\nTrailer: x\r\n\r\n',
    ],
)
def test_rest_takes_a_chunked_body(server, chunks):
    answer = exchange(server, POST + CLOSE + CHUNKED + b"\r\n", chunks)
    assert status_and_reply(answer) == (200, {"outputs": [3.0]})


def test_rest_takes_a_chunked_body_in_gzip(server):
    packed = gzip.compress(b'{"inputs": [2]}')
    head = POST + CLOSE + CHUNKED + b"Content-Encoding: gzip\r\n\r\n"
    answer = exchange(server, head, b"%x\r\n%b\r\n0\r\n\r\n" % (len(packed), packed))
    assert status_and_reply(answer) == (200, {"outputs": [3.0]})


def test_rest_request_after_a_body_is_one_of_its_own(server):
    """On one connection: a chunked body, then a GET with a body, then a GET."""
    get = b"GET /v1/models/half HTTP/1.1\r\nHost: x\r\n"
    answer = exchange(
        server,
        POST + CHUNKED + b'\r\ne\r\n{"inputs":[2]}\r\n0\r\n\r\n',
        get + b"Content-Length: 5\r\n\r\nGET x",
        get + CLOSE + b"\r\n",
    )
    assert re.findall(rb"HTTP/1.1 (\d+)", answer) == [b"200", b"200", b"200"]


def test_rest_leaves_a_client_that_sends_no_more(tmp_path):
    write_half_plus_two(tmp_path / "1")
    with make_server(tmp_path, idle_seconds=0.2) as server:
        for body in (b"Content-Length: 9\r\n\r\n{}", CHUNKED + b"\r\n9\r\n{}"):
            status, reply = status_and_reply(exchange(server, POST + body))
            assert status == 408
            assert "must come without a pause of 0.2 s" in reply["error"]
        # Not yet a request: just closed.
        assert exchange(server, POST[:20]) == exchange(server) == b""


def test_rest_tells_of_a_fault_of_its_own(server, monkeypatch):
    def fail(*arguments, **named):
        raise RuntimeError("a fault")

    monkeypatch.setattr(SavedModelSession, "run", fail)
    assert rest(server, PREDICT, {"inputs": [1]}) == (500, {"error": "RuntimeError: a fault"})


def test_rest_takes_gzip(server):
    packed = gzip.compress(b'{"inputs": [2]}')
    header = {"Content-Encoding": "gzip"}
    assert rest(server, PREDICT, packed, header) == (200, {"outputs": [3.0]})
    empty = {"error": "JSON Parse error: The document is empty"}  # as the real server says
    assert rest(server, PREDICT, packed[:-9], header) == (400, empty)


def test_rest_status(server):
    status = {"error_code": "OK", "error_message": ""}
    entry = {"version": "3", "state": "AVAILABLE", "status": status}
    for path in ("/v1/models/half", "/v1/models/half/versions/3"):
        assert rest(server, path) == (200, {"model_version_status": [entry]})


@pytest.mark.real_data
def test_rest_metadata_is_what_the_real_server_said(real_data):
    folder = real_data / "tfserving_testdata"
    expected = json.loads((folder / "half_plus_two_model_metadata.json").read_text())
    with make_server(folder / "saved_model_half_plus_two_cpu", model_name="default") as server:
        status, answer = rest(server, "/v1/models/default/metadata")
    assert status == 200
    assert answer["model_spec"] == expected["model_spec"]
    said, signatures = (
        part["metadata"]["signature_def"]["signature_def"] for part in (expected, answer)
    )
    for name, signature in said.items():
        assert signature | signatures[name] == signatures[name]  # newer protos have more fields


@pytest.mark.real_data
def test_newest_version_of_the_real_servers_tests_is_served(real_data):
    folder = real_data / "tfserving_testdata" / "saved_model_half_plus_two_2_versions"
    with make_server(folder) as server:
        assert "half version 124 at" in str(server)
        assert rest(server, PREDICT, {"instances": [1.0, 2.0]}) == (
            200,
            {"predictions": [2.5, 3.0]},
        )


def test_new_version_replaces_the_old_one(tmp_path):
    folder = tmp_path / "half"
    folder.mkdir()
    write_half_plus_two(folder / "1")
    (folder / "not_a_version").mkdir()
    with make_server(folder) as server:
        assert rest(server, PREDICT, {"inputs": [2]}) == (200, {"outputs": [3.0]})
        write_half_plus_two(folder / "2", offset=10.0)
        deadline = time.monotonic() + 30
        while rest(server, PREDICT, {"inputs": [2]}) != (200, {"outputs": [11.0]}):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        _, answer = rest(server, "/v1/models/half")
        states = {status["version"]: status["state"] for status in answer["model_version_status"]}
        assert states == {"2": "AVAILABLE", "1": "END"}


def test_broken_version_leaves_the_old_one(tmp_path):
    folder = tmp_path / "half"
    folder.mkdir()
    write_half_plus_two(folder / "1")
    with make_server(folder) as server:
        (folder / "2").mkdir()
        deadline = time.monotonic() + 30
        while rest(server, "/v1/models/half/versions/2")[0] != 200:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        _, answer = rest(server, "/v1/models/half/versions/2")
        (status,) = answer["model_version_status"]
        assert status["state"] == "END"
        assert "not a SavedModel" in status["status"]["error_message"]
        assert rest(server, PREDICT, {"inputs": [2]}) == (200, {"outputs": [3.0]})


def test_port_that_is_taken_is_named(server, tmp_path):
    write_half_plus_two(tmp_path / "1")
    for flag, port in (("port", server.grpc_port), ("rest_api_port", server.rest_port)):
        ports = {"port": -1, "rest_api_port": -1, flag: port}
        with pytest.raises(InputError, match=f"port must be free, got 127.0.0.1:{port}"):
            LocalServer(ServerCommand(tmp_path, **ports))
