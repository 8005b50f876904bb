"""The local server over gRPC and REST, with models of ours and of the real server's tests."""

from __future__ import annotations

import base64
import dataclasses
import gzip
import json
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import grpc
import nibabel as nib
import numpy as np
import pytest
import tensorflow as tf
from small_models import CROP, make_oblique_volume, write_run
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from fcnseg.client import SegmentationClient, ServerError
from fcnseg.errors import InputError
from fcnseg.evaluation.class_names import read_class_names
from fcnseg.export import SEGMENT_VOLUME, export_run
from fcnseg.inference import load_run, make_segmenter, predict_volume
from fcnseg.saved_model import SavedModelSession
from fcnseg.volumes import Volume, from_canonical, read_ct, to_canonical, write_volume
from serving.client import ClientCommand
from serving.server import LocalServer, ServerCommand


class HalfPlusTwo(tf.Module):
    """What the real server's tests serve, with an input and an output of each kind."""

    def __init__(self, offset=2.0):
        super().__init__()
        self.offset = tf.Variable(offset)
        self.half = tf.function(self._half, input_signature=[tf.TensorSpec([None], tf.float32)])
        self.label = tf.function(
            self._label,
            input_signature=[
                tf.TensorSpec([None], tf.int16, name="number"),
                tf.TensorSpec([None], tf.string, name="word"),
            ],
        )

    def _half(self, x):
        return {"y": x / 2 + self.offset}

    def _label(self, number, word):
        text = tf.strings.join([word, tf.strings.as_string(number)])
        return {"text": text, "raw_bytes": text, "total": tf.reduce_sum(number)}


def write_half_plus_two(folder: Path, offset=2.0):
    """Publishes as an export does: written elsewhere, then renamed."""
    module = HalfPlusTwo(offset)
    hidden = folder.parent / f".tmp-{folder.name}"
    signatures = {"serving_default": module.half, "label": module.label}
    tf.saved_model.save(module, hidden, signatures=signatures)
    hidden.rename(folder)


def make_server(model_base_path, **flags):
    return LocalServer(
        ServerCommand(
            model_base_path,
            port=0,
            rest_api_port=0,
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


NO_VERSION = "Servable not found for request: Specific(half, 7)"


@pytest.mark.parametrize(
    ("request_", "code", "message"),
    [
        (predict_request("", x=X), "INVALID_ARGUMENT", "ModelSpec has no name specified."),
        (predict_request("no", x=X), "NOT_FOUND", "Servable not found for request: Latest(no)"),
        (predict_request(version=7, x=X), "NOT_FOUND", NO_VERSION),
        (predict_request(signature="no"), "FAILED_PRECONDITION", 'signature key "no" not found.'),
        (predict_request(), "INVALID_ARGUMENT", "Missing but required: {x}."),
        (predict_request(x=X, output_filter=["z"]), "INVALID_ARGUMENT", "alias not found"),
    ],
)
def test_grpc_errors_are_the_real_servers(prediction, request_, code, message):
    with pytest.raises(grpc.RpcError) as caught:
        prediction.Predict(request_)
    assert caught.value.code().name == code
    assert message in caught.value.details()


def test_grpc_label_and_broken_tensor_are_refused(prediction):
    labelled = predict_request(x=X)
    labelled.model_spec.version_label = "stable"
    with pytest.raises(grpc.RpcError, match="Unrecognized servable version label: stable"):
        prediction.Predict(labelled)
    broken = predict_request(x=X)
    broken.inputs["x"].tensor_content = b"123"
    with pytest.raises(grpc.RpcError, match="tensor parsing error: x"):
        prediction.Predict(broken)


def test_grpc_metadata(prediction):
    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    request.model_spec.name = "half"
    response = prediction.GetModelMetadata(request)
    signatures = get_model_metadata_pb2.SignatureDefMap()
    assert response.metadata["signature_def"].Unpack(signatures)
    assert set(signatures.signature_def["label"].inputs) == {"number", "word"}
    assert response.model_spec.version.value == 3


@pytest.mark.parametrize(
    ("fields", "message"),
    [([], "must specify at least one metadata_field"), (["x"], "field x is not supported")],
)
def test_grpc_metadata_is_signature_def_only(prediction, fields, message):
    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=fields)
    request.model_spec.name = "half"
    with pytest.raises(grpc.RpcError, match=message):
        prediction.GetModelMetadata(request)


def test_grpc_status(channel):
    stub = model_service_pb2_grpc.ModelServiceStub(channel)
    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name = "half"
    (status,) = stub.GetModelStatus(request).model_version_status
    assert (status.version, status.state, status.status.error_code) == (3, 30, 0)


def test_grpc_calls_that_fcnseg_has_no_use_for_are_unimplemented(prediction):
    with pytest.raises(grpc.RpcError) as caught:
        prediction.Classify(classification_pb2.ClassificationRequest())
    assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED


PREDICT = "/v1/models/half:predict"


@pytest.mark.parametrize(
    ("path", "body", "reply"),
    [
        (PREDICT, {"instances": [1.0, 5]}, {"predictions": [2.5, 4.5]}),
        (PREDICT, {"instances": [{"x": 1.0}, {"x": 5}]}, {"predictions": [2.5, 4.5]}),
        (PREDICT, {"inputs": [1.0, 5]}, {"outputs": [2.5, 4.5]}),
        (PREDICT, {"inputs": {"x": [0.4]}}, {"outputs": [2.2]}),
        ("/V1/Models/half/Versions/3:Predict", {"inputs": [2]}, {"outputs": [3.0]}),
        (
            PREDICT,
            {
                "signature_name": "label",
                "inputs": {"number": [7, -8], "word": ["a", {"b64": "/wA="}]},
            },
            {
                "outputs": {
                    "raw_bytes": [
                        {"b64": base64.b64encode(b"a7").decode()},
                        {"b64": base64.b64encode(b"\xff\x00-8").decode()},
                    ],
                    "text": ["a7", "\ufffd\x00-8"],
                    "total": -1,
                }
            },
        ),
    ],
)
def test_rest_predict(server, path, body, reply):
    assert rest(server, path, body) == (200, reply)


@pytest.mark.parametrize(
    ("path", "body", "status", "message"),
    [
        (PREDICT, b"", 400, "JSON Parse error: The document is empty"),
        (PREDICT, b"{", 400, "JSON Parse error"),
        (PREDICT, b"[1]", 400, "Is not object"),
        (PREDICT, {}, 400, "Missing 'inputs' or 'instances' key"),
        (PREDICT, {"inputs": [1], "instances": [1]}, 400, "expecting only one of"),
        (PREDICT, {"instances": 1}, 400, "to be an list/array"),
        (PREDICT, {"instances": []}, 400, "No values in 'instances' array"),
        (PREDICT, {"instances": [{"z": 1}]}, 400, "keys must be equal to: x"),
        (PREDICT, {"inputs": ["a"]}, 400, "is not of expected type: float32"),
        (PREDICT, {"inputs": [1e39]}, 400, "is not of expected type: float32"),
        (PREDICT, {"inputs": [[1], [2, 3]]}, 400, "is not a tensor"),
        (PREDICT, {"inputs": {"z": [1]}}, 400, "Missing named input: x in 'inputs' object."),
        (PREDICT, {"signature_name": "no"}, 400, 'name: "no" not found in signature def'),
        (PREDICT, {"signature_name": ["label"]}, 400, "key must be a string value"),
        (
            PREDICT,
            {"signature_name": "label", "inputs": {"number": [1], "word": [["a"], ["b", "c"]]}},
            400,
            "is not a tensor",
        ),
        (
            PREDICT,
            {"signature_name": "label", "instances": [1]},
            400,
            "instances is a plain list, but expecting list of objects",
        ),
        (
            PREDICT,
            {"signature_name": "label", "inputs": {"number": [1.5], "word": ["a"]}},
            400,
            "JSON Value: [1.5] is not of expected type: int16",
        ),
        (
            PREDICT,
            {"signature_name": "label", "inputs": {"number": [40000], "word": ["a"]}},
            400,
            "is not of expected type: int16",
        ),
        (
            PREDICT,
            {"signature_name": "label", "inputs": {"number": [1], "word": [{"b64": "?"}]}},
            400,
            "Unable to base64 decode",
        ),
        (
            PREDICT,
            {"signature_name": "label", "instances": [{"number": 1, "word": "a"}]},
            400,
            "Tensor name: total has no shape information",
        ),
        ("/v1/models/no:predict", {"inputs": [1]}, 404, "not found for request: Latest(no)"),
        ("/v1/models/half/versions/7:predict", {"inputs": [1]}, 404, NO_VERSION),
        ("/v1/models/half/labels/a:predict", {"inputs": [1]}, 400, "version label: a"),
        ("/v1/models/half:classify", {"examples": []}, 501, "classify is not implemented"),
        ("/v1/foo", {}, 400, "Malformed request: POST /v1/foo"),
        ("/v1/models/half/versions/x", None, 400, "Malformed request: GET /v1/models/half/"),
        ("/v1/models/no", None, 404, "Could not find any versions of model no"),
        ("/v1/models/half/versions/7", None, 404, "Could not find version 7 of model half"),
        ("/v1/models/no/metadata", None, 404, "Servable not found for request: Latest(no)"),
    ],
)
def test_rest_errors_are_the_real_servers(server, path, body, status, message):
    got, reply = rest(server, path, body)
    assert got == status
    assert set(reply) == {"error"}
    assert message in reply["error"]


def test_rest_path_outside_the_api_is_a_plain_404(server):
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(f"http://127.0.0.1:{server.rest_port}/index.html")
    with caught.value as error:
        assert error.code == 404


def test_rest_takes_gzip(server):
    packed = gzip.compress(b'{"inputs": [2]}')
    header = {"Content-Encoding": "gzip"}
    assert rest(server, PREDICT, packed, header) == (200, {"outputs": [3.0]})
    status, reply = rest(server, PREDICT, packed[:-9], header)
    assert (status, set(reply)) == (400, {"error"})


def test_rest_status(server):
    status = {"error_code": "OK", "error_message": ""}
    told = {"version": "3", "state": "AVAILABLE", "status": status}
    for path in ("/v1/models/half", "/v1/models/half/versions/3"):
        assert rest(server, path) == (200, {"model_version_status": [told]})


@pytest.mark.real_data
def test_rest_metadata_is_what_the_real_server_said(real_data):
    folder = real_data / "tfserving_testdata"
    expected = json.loads((folder / "half_plus_two_model_metadata.json").read_text())
    with make_server(folder / "saved_model_half_plus_two_cpu", model_name="default") as server:
        status, told = rest(server, "/v1/models/default/metadata")
    assert status == 200
    assert told["model_spec"] == expected["model_spec"]
    said, signatures = (
        part["metadata"]["signature_def"]["signature_def"] for part in (expected, told)
    )
    for name, signature in said.items():
        assert signature | signatures[name] == signatures[name]  # newer protos have more fields


@pytest.mark.real_data
def test_newest_version_of_the_real_servers_tests_is_served(real_data):
    folder = real_data / "tfserving_testdata" / "saved_model_half_plus_two_2_versions"
    with make_server(folder) as server:
        assert server.version == 124
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
        _, told = rest(server, "/v1/models/half")
        states = {status["version"]: status["state"] for status in told["model_version_status"]}
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
        _, told = rest(server, "/v1/models/half/versions/2")
        (status,) = told["model_version_status"]
        assert status["state"] == "END"
        assert "not a SavedModel" in status["status"]["error_message"]
        assert rest(server, PREDICT, {"inputs": [2]}) == (200, {"outputs": [3.0]})


@pytest.mark.parametrize(("name", "reason"), [("absent", ""), ("broken", "not a SavedModel")])
def test_server_without_a_model_does_not_start(tmp_path, name, reason):
    (tmp_path / "broken" / "1").mkdir(parents=True)
    with pytest.raises(InputError, match=f"must hold a numbered version.*{name}.*{reason}"):
        make_server(tmp_path / name)


def test_port_that_is_taken_is_named(server, tmp_path):
    write_half_plus_two(tmp_path / "1")
    for flag, port in (("port", server.grpc_port), ("rest_api_port", server.rest_port)):
        ports = {"port": 0, "rest_api_port": 0, flag: port}
        with pytest.raises(InputError, match=f"port must be free, got 127.0.0.1:{port}"):
            LocalServer(ServerCommand(tmp_path, **ports))


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("serving") / "run")


@pytest.fixture(scope="module")
def model_dir(run_dir):
    export_run(run_dir, run_dir.parent / "models")
    return run_dir.parent / "models"


@pytest.mark.parametrize("tensor_content", [False, True], ids=["typed", "content"])
def test_four_ways_give_the_same_mask(run_dir, model_dir, tensor_content):
    volume = make_oblique_volume((17, 20, 60))  # turned, of another spacing than the model's
    volume.array[..., 25:] = -1000  # air, which is skipped
    check_four_ways(volume, run_dir, model_dir, tensor_content=tensor_content)


@pytest.mark.slow
@pytest.mark.real_data
def test_four_ways_give_the_same_mask_of_a_real_scan(tmp_path, real_data):
    run_dir = write_run(tmp_path / "run", spacing_mm=(4.0, 4.0, 4.0), max_voxels=1_000_000)
    export_run(run_dir, tmp_path / "models")
    volume = read_ct(real_data / "abdomen_ct_sm/ct.nii.gz")
    check_four_ways(volume, run_dir, tmp_path / "models", tensor_content=True)


def check_four_ways(volume, run_dir, model_dir, *, tensor_content):
    """Voxel for voxel: prediction, the session runtime, and the server over gRPC and REST."""
    segmenter = make_segmenter(*load_run(run_dir))
    canonical = to_canonical(volume)
    inputs = {"volume": canonical.array, "spacing": np.array(canonical.spacing, np.float32)}
    mask = predict_volume(segmenter, volume)
    assert len(np.unique(mask)) > 1

    outputs = SavedModelSession(model_dir / "1").run(SEGMENT_VOLUME, inputs)
    np.testing.assert_array_equal(from_canonical(outputs["labels"], volume), mask)

    flags = {"model_name": "fcnseg", "enable_serialization_as_tensor_content": tensor_content}
    with make_server(model_dir, **flags) as server:
        with SegmentationClient(f"127.0.0.1:{server.grpc_port}") as client:
            np.testing.assert_array_equal(client.segment(volume, accept=CROP), mask)
            assert client.model_info() == segmenter.info
        lists = {name: array.tolist() for name, array in inputs.items()}
        body = {"signature_name": SEGMENT_VOLUME, "inputs": lists}
        status, reply = rest(server, "/v1/models/fcnseg:predict", body)
    assert status == 200
    labels = np.array(reply["outputs"]["labels"], np.uint8)
    np.testing.assert_array_equal(from_canonical(labels, volume), mask)
    assert reply["outputs"]["voxel_counts"] == np.bincount(mask.ravel(), minlength=3).tolist()


def test_client_names_what_went_wrong(server):
    volume = make_oblique_volume((4, 5, 6))
    address = f"127.0.0.1:{server.grpc_port}"
    with pytest.raises(ServerError, match=f"no model other at {address}: Servable not found"):
        SegmentationClient(address, model_name="other").segment(volume, accept=CROP)
    with pytest.raises(ServerError, match="FAILED_PRECONDITION: Serving signature key"):
        SegmentationClient(address, model_name="half").model_info()
    with pytest.raises(ServerError, match="no server at 127.0.0.1:1: "):
        SegmentationClient("127.0.0.1:1").segment(volume, accept=CROP)
    with pytest.raises(InputError, match="volume must be HU as int16, got float32"):
        SegmentationClient(address).segment(volume.with_array(volume.array.astype(np.float32)))


def test_client_is_told_why_a_volume_is_refused(model_dir):
    large = Volume(np.zeros((99, 99, 99), np.int16), np.eye(4))
    with make_server(model_dir, model_name="fcnseg") as server:
        address = f"127.0.0.1:{server.grpc_port}"
        with pytest.raises(InputError, match=r"refused the volume: \[volume must have at most"):
            SegmentationClient(address).segment(large, accept=("constant_image",))


NOT_CT = np.add.outer(np.zeros((20, 40)), np.arange(40)).astype(np.int16) * 20  # from 0 to 780


def test_client_refuses_what_the_conversion_refuses(tmp_path):
    """Before anything is sent: there is no server."""
    volume = Volume(NOT_CT, np.diag([2.5, 2.5, 2.5, 1.0]))
    with pytest.raises(InputError, match="was the rescale intercept") as caught:
        SegmentationClient("127.0.0.1:1").segment(volume)
    assert caught.value.code == "missing_rescale"
    write_volume(volume, tmp_path / "ct.nii.gz")
    command = ClientCommand("127.0.0.1:1", tmp_path / "ct.nii.gz", tmp_path / "mask.nii.gz")
    told = r"ct: values are 0 to 780.*\[missing_rescale\]; --accept missing_rescale lets"
    with pytest.raises(InputError, match=told):
        command.run()
    with pytest.raises(ServerError, match="no server"):
        dataclasses.replace(command, accept=("missing_rescale",)).run()
    assert not (tmp_path / "mask.nii.gz").exists()


@pytest.mark.serving
def test_commands_serve_segment_and_end(model_dir, run_dir, tmp_path):
    """The server and the client as a user starts them, each in a process of its own."""
    command = [sys.executable, "-m", "serving.server", "--model_base_path", str(model_dir)]
    flags = ["--model_name", "abdomen", "--port", "0", "--rest_api_port", "0"]
    image, output = tmp_path / "ct.nii.gz", tmp_path / "masks" / "mask.nii.gz"
    volume = make_oblique_volume()
    write_volume(volume, image)
    with subprocess.Popen(command + flags, stdout=subprocess.PIPE, text=True) as server:
        try:
            ready = server.stdout.readline()
            address = re.search(r"serving abdomen version \d+ at (\S+) \(gRPC\)", ready)[1]
            ClientCommand(address, image, output, model_name="abdomen", accept=CROP).run()
        finally:
            server.send_signal(signal.SIGTERM)
        assert server.wait(timeout=30) == 0
    mask = np.asarray(nib.load(output).dataobj).T
    expected = predict_volume(make_segmenter(*load_run(run_dir)), volume)
    np.testing.assert_array_equal(mask, expected)
    names = read_class_names(output, nib.load(output).header)
    assert names == {1: "liver", 2: "spleen"}


def test_client_needs_no_tensorflow(tmp_path):
    """Reading, asking and failing, where importing TensorFlow or Keras is an error."""
    write_volume(make_oblique_volume((4, 5, 6)), tmp_path / "ct.nii.gz")
    shutil.copytree(Path(__file__).parent.parent / "serving", tmp_path / "serving")
    script = """
import sys
sys.modules["tensorflow"] = sys.modules["keras"] = sys.modules["apache_beam"] = None
from serving.client import ClientCommand, main
main()
"""
    flags = ["--server", "127.0.0.1:1", "--image", "ct.nii.gz", "--output", "mask.nii.gz"]
    flags += ["--accept", *CROP]
    done = subprocess.run(
        [sys.executable, "-c", script, *flags], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 2
    warning, error = done.stderr.splitlines()
    assert "[field_of_view_implausible]" in warning
    assert error.startswith("error: no server at 127.0.0.1:1")
    assert not (tmp_path / "mask.nii.gz").exists()
