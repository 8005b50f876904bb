"""What TensorFlow Serving answers, over both transports, by a table from its sources.

With `FCNSEG_TFSERVING_IMAGE` set, as by `make verify-docker`, the real server of that image is
asked instead of the local one.
"""

from __future__ import annotations

import contextlib
import http.client
import json

import grpc
import pytest
import tensorflow as tf
from google.protobuf import text_format
from real_server import IMAGE, SEEN_AS, real_server
from served_model import write_served_model
from serving_table import GRPC, REST
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_management_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
    regression_pb2,
)

from fcnseg.errors import InputError
from serving.config_files import read_metrics_path, read_model_config
from serving.flags import for_command
from serving.local_server import LocalServer
from serving.server import ServerCommand

MODELS = """
model_config_list {{ config {{
  name: "m" base_path: "{base}" model_platform: "tensorflow"
  model_version_policy {{ all {{}} }}
  {labels}
}} }}
"""
LABELS = 'version_labels { key: "stable" value: 1 }'


@pytest.fixture(scope="module")
def ports(tmp_path_factory):
    """The ports of gRPC and REST of a server of the table's model."""
    folder = tmp_path_factory.mktemp("served")
    write_served_model(folder / "1")
    write_served_model(folder / "2", offset=10.0)
    base = folder if IMAGE is None else SEEN_AS
    (folder / "models.config").write_text(MODELS.format(base=base, labels=""))
    flags = (f"--model_config_file={base}/models.config", "--rest_api_enable_cors_support=true")
    assert for_command(flags)  # they are flags of the local server too
    running = local_server(folder) if IMAGE is None else real_server(folder, *flags, model_name="m")
    with running as ports:
        assign_labels(ports[0], base)
        yield ports


def assign_labels(port, base):
    """As TensorFlow Serving asks for: once the versions that they name are served."""
    request = model_management_pb2.ReloadConfigRequest()
    text_format.Parse(MODELS.format(base=base, labels=LABELS), request.config)
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = model_service_pb2_grpc.ModelServiceStub(channel)
        assert stub.HandleReloadConfigRequest(request, timeout=60).status.error_code == 0


@contextlib.contextmanager
def local_server(folder):
    command = ServerCommand(
        model_config_file=folder / "models.config",
        port=-1,
        rest_api_port=-1,
        rest_api_enable_cors_support=True,
    )
    with LocalServer(command) as server:
        yield server.grpc_port, server.rest_port


def exchange(port, method, path, body, headers):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request(method, path, body, dict(headers))
        response = connection.getresponse()
        return response.status, dict(response.getheaders()), response.read().decode()
    finally:
        connection.close()


def fits(said, expected):
    """True if a message is the one expected, of which three dots may stand for any part."""
    start, *middle, end = expected.split("...") if "..." in expected else (expected, expected)
    return said.startswith(start) and said.endswith(end) and all(part in said for part in middle)


@pytest.mark.parametrize("row", REST.values(), ids=REST)
def test_rest_answers_as_the_real_server_does(ports, row):
    if IMAGE is not None and row.why_local:
        pytest.skip(f"the local server {row.why_local}")
    body = json.dumps(row.body).encode() if isinstance(row.body, dict) else row.body
    method = row.method or ("GET" if body is None else "POST")
    status, _, text = exchange(ports[1], method, row.path, body, row.headers)
    assert status == row.status, text
    if row.error is not None:
        reply = json.loads(text)
        assert text == '{\n    "error": ' + json.dumps(reply["error"], ensure_ascii=False) + "\n}"
        assert fits(reply["error"], row.error), (reply["error"], row.error)
    elif isinstance(row.reply, dict):
        check_reply(json.loads(text), row.reply)
    elif row.reply is not None:
        assert text == row.reply


def check_reply(reply, expected):
    """Compares parsed replies; `versions` stands for those of a status."""
    if "versions" in expected:
        assert [s["version"] for s in reply["model_version_status"]] == expected["versions"]
    elif isinstance(expected.get("outputs"), dict):
        wanted = {k: v for k, v in expected["outputs"].items() if v is not None}
        assert {k: reply["outputs"][k] for k in wanted} == wanted
    else:
        assert reply == expected


CALLS = {
    predict_pb2.PredictRequest: "Predict",
    classification_pb2.ClassificationRequest: "Classify",
    regression_pb2.RegressionRequest: "Regress",
    inference_pb2.MultiInferenceRequest: "MultiInference",
    get_model_metadata_pb2.GetModelMetadataRequest: "GetModelMetadata",
    get_model_status_pb2.GetModelStatusRequest: "GetModelStatus",
    model_management_pb2.ReloadConfigRequest: "HandleReloadConfigRequest",
}


@pytest.fixture(scope="module")
def stubs(ports):
    """Unmodified stubs of tensorflow-serving-api."""
    with grpc.insecure_channel(f"127.0.0.1:{ports[0]}") as channel:
        yield (
            prediction_service_pb2_grpc.PredictionServiceStub(channel),
            model_service_pb2_grpc.ModelServiceStub(channel),
        )


@pytest.mark.parametrize("row", GRPC.values(), ids=GRPC)
def test_grpc_answers_as_the_real_server_does(stubs, row):
    if IMAGE is not None and row.why_local:
        pytest.skip(f"the local server {row.why_local}")
    name = CALLS[type(row.request)]
    (call,) = [getattr(stub, name) for stub in stubs if hasattr(stub, name)]
    if row.code != "OK":
        with pytest.raises(grpc.RpcError) as caught:
            call(row.request, timeout=60)
        assert caught.value.code().name == row.code, caught.value.details()
        said = caught.value.details()
        assert fits(said, row.message), (said, row.message)
        return
    reply = call(row.request, timeout=60)
    for path, expected in row.reply:
        assert field(reply, path) == expected, path


def field(message, path):
    """The field of a message at the end of a path of names, keys and places."""
    for part in path.split("."):
        if part.isdecimal():
            message = message[int(part)]
        elif hasattr(message, part):
            message = getattr(message, part)
        else:
            message = message[part]
    return (
        list(message) if hasattr(message, "__len__") and not isinstance(message, str) else message
    )


def test_table_is_large_enough():
    assert len(REST) + len(GRPC) >= 120
    assert {CALLS[type(row.request)] for row in GRPC.values()} == set(CALLS.values())


def test_signatures_are_those_of_the_model(stubs, ports):
    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    request.model_spec.name = "m"
    reply = stubs[0].GetModelMetadata(request)
    signatures = get_model_metadata_pb2.SignatureDefMap()
    assert reply.metadata["signature_def"].Unpack(signatures)
    assert signatures.signature_def["two"].inputs["a"].dtype == tf.float32.as_datatype_enum
    _, _, text = exchange(ports[1], "GET", "/v1/models/m/metadata", None, ())
    said = json.loads(text)["metadata"]["signature_def"]["signature_def"]
    assert set(said) == set(signatures.signature_def)


def test_pages_of_other_sites_may_call(ports):
    for method, body in (("OPTIONS", None), ("GET", None)):
        status, headers, _ = exchange(
            ports[1], method, "/v1/models/m", body, (("Origin", "http://localhost:3000"),)
        )
        names = {name.lower(): value for name, value in headers.items()}
        assert status == 200
        assert names["access-control-allow-origin"] == "*"
        assert names["access-control-allow-methods"] == "POST, GET"
        assert names["access-control-allow-headers"] == "Content-Type"


OF_ITS_TESTS = [
    ("predict", {"instances": [1.0, 2.0]}, '{\n    "predictions": [2.5, 3.0\n    ]\n}'),
    (
        "classify",
        {"signature_name": "classify_x_to_y", "examples": [{"x": 1.0}, {"x": 2.0}]},
        '{\n    "results": [[["", 2.5]], [["", 3.0]]\n    ]\n}',
    ),
    (
        "regress",
        {"signature_name": "regress_x_to_y", "examples": [{"x": 1.0}, {"x": 2.0}]},
        '{\n    "results": [2.5, 3.0]\n}',
    ),
]


@pytest.mark.real_data
def test_models_of_the_real_servers_tests_are_served(real_data):
    """With the check of methods, for which those models were made."""
    folder = real_data / "tfserving_testdata"
    command = ServerCommand(
        folder / "saved_model_half_plus_two_cpu",
        "half",
        port=0,
        rest_api_port=-1,
        enable_signature_method_name_check=True,
    )
    with LocalServer(command) as server:
        for method, body, reply in OF_ITS_TESTS:
            path, content = f"/v1/models/half:{method}", json.dumps(body).encode()
            assert exchange(server.rest_port, "POST", path, content, ())[::2] == (200, reply)
        body = json.dumps({"examples": [{"x": 1.0}]}).encode()
        status, _, text = exchange(server.rest_port, "POST", "/v1/models/half:regress", body, ())
        assert status == 400
        assert "method_name to be tensorflow/serving/regress. Was: tensorflow/serving/p" in text


@pytest.mark.real_data
def test_files_of_the_real_servers_tests_are_read(real_data):
    folder = real_data / "tfserving_testdata"
    assert read_metrics_path(folder / "monitoring_config.txt") == "/monitoring/prometheus/metrics"
    listed = read_model_config(folder / "good_model_config.txt").model_config_list.config
    assert len(listed) == 2
    with pytest.raises(InputError, match="must be a ModelServerConfig in text form"):
        read_model_config(folder / "bad_model_config.txt")
