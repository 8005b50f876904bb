"""Requests that are malformed in any way: each has its status, and the server lives on.

`FCNSEG_FUZZ_EXAMPLES=2500` sends 10,000 of them, in some twenty minutes.
"""

from __future__ import annotations

import base64
import collections
import contextlib
import gzip
import http.client
import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import grpc
import nibabel as nib
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from served_model import TYPES, write_served_model
from small_models import CROP, write_run
from tensorflow.core.framework import tensor_pb2
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

from fcnseg.saved_model.export import export_run
from fcnseg.saved_model.options import ExportOptions

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

EXAMPLES = int(os.environ.get("FCNSEG_FUZZ_EXAMPLES", "250"))  # of each transport, twice
GROWTH = 128 * 2**20  # bytes: what the allocator may keep of the largest requests
SIGNATURES = ["", "two", "regress", "classify", "total", "uneven", "no"]
SIGNATURES += [f"id_{dtype.name}" for dtype in TYPES]
MALFORMED = {400, 404, 431, 501}  # statuses of requests that cannot be answered

many = settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)


class Server:
    """A local server in a process of its own, whose memory is nobody else's."""

    def __init__(self, process, grpc_address, rest_port):
        self.process = process
        self.grpc_address = grpc_address
        self.rest_port = rest_port

    def memory(self):
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) * 1024  # KiB

    def rest(self, method, path, body, headers):
        """Status and text of an answer; what http.client cannot send is no request."""
        connection = http.client.HTTPConnection("127.0.0.1", self.rest_port, timeout=60)
        with contextlib.closing(connection):
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            return response.status, response.read()


@contextlib.contextmanager
def served(base, *, timeout_ms=10_000):
    command = [sys.executable, "-m", "serving.server", f"--model_base_path={base}"]
    flags = ["--model_name=m", "--port=-1", "--rest_api_port=-1"]
    flags.append(f"--rest_api_timeout_in_ms={timeout_ms}")
    with subprocess.Popen([*command, *flags], stdout=subprocess.PIPE, text=True) as process:
        try:
            words = process.stdout.readline().split()
            grpc_address, url = words[words.index("at") + 1], words[words.index("(REST)") - 1]
            yield Server(process, grpc_address, int(url.split(":")[2].split("/")[0]))
        finally:
            process.terminate()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    base = tmp_path_factory.mktemp("served")
    write_served_model(base / "1")
    with served(base) as running:
        yield running


@pytest.fixture(scope="module")
def segmenting_server(tmp_path_factory):
    """A server of an export, which takes files."""
    folder = tmp_path_factory.mktemp("export")
    export_run(write_run(folder / "run"), folder / "models", options=ExportOptions(accept=CROP))
    with served(folder / "models", timeout_ms=60_000) as running:
        yield running


numbers = st.one_of(
    st.integers(-3, 300),
    st.integers(-(2**70), 2**70),
    st.floats(width=32, allow_nan=False, allow_infinity=False),
    st.just(1e308),
)
values = st.recursive(
    st.one_of(
        *(numbers, st.booleans(), st.none(), st.text(max_size=8)),
        st.builds(lambda text: {"b64": text}, st.text(max_size=8)),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.sampled_from(["x", "a", "t", "b64", "inputs"]), inner, max_size=3),
    ),
    max_leaves=12,
)
bodies = st.dictionaries(
    st.sampled_from(["instances", "inputs", "examples", "context", "signature_name", "u"]),
    st.one_of(values, st.lists(values, max_size=4), st.sampled_from(SIGNATURES)),
    max_size=4,
).map(lambda body: json.dumps(body).encode())


@st.composite
def spoiled(draw, texts):
    """Bytes of which some are changed, left out or repeated."""
    text = bytearray(draw(texts))
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, len(text)))
        match draw(st.integers(0, 2)):
            case 0:
                text[place:place] = draw(st.binary(min_size=1, max_size=3))
            case 1:
                del text[place : place + draw(st.integers(1, 8))]
            case _:
                text[place:place] = text[place : place + draw(st.integers(1, 30))]
    return bytes(text)


def requests_of_rest():
    names = st.sampled_from(["m", "no", "%6D", "..", "%2e%2e%2fetc", "%ff", "%", "m%00", "%c3%a9"])
    choices = st.sampled_from(["", "/versions/1", "/versions/7", f"/versions/{2**70}", "/labels/l"])
    calls = st.sampled_from([":predict"] * 6 + [":classify", ":regress", ":Predict", ":x", "", "/"])
    paths = st.builds(lambda *parts: "/v1/models/" + "".join(parts), names, choices, calls)
    usual = st.builds(lambda call: f"/v1/models/m{call}", calls)
    any_path = st.text(st.characters(codec="ascii", exclude_categories=["C", "Z"]), max_size=30)
    contents = st.one_of(bodies, spoiled(bodies), spoiled(bodies), st.binary(max_size=40))
    return st.tuples(
        st.sampled_from(["POST"] * 12 + ["GET", "PUT", "DELETE", "HEAD", "OPTIONS", "X"]),
        st.one_of(usual, usual, paths, any_path.map(lambda text: f"/{text}")),
        contents,
        st.sampled_from(["", "", "", "gzip", "spoiled gzip"]),
    )


@many
@given(request=requests_of_rest())
def check_rest(server, request):
    method, path, body, packing = request
    headers = {}
    if packing:
        headers["Content-Encoding"] = "gzip"
        body = gzip.compress(body)[: -9 if packing.startswith("spoiled") else None]
    status, answer = server.rest(method, path, body, headers)
    assert status == 200 or status in MALFORMED, (status, answer)
    if status in (400, 501) and method != "HEAD":
        assert set(json.loads(answer)) == {"error"}


METHODS = [
    *("PredictionService/Predict", "PredictionService/Predict", "PredictionService/Classify"),
    *("PredictionService/Regress", "PredictionService/MultiInference"),
    *("PredictionService/GetModelMetadata", "ModelService/GetModelStatus", "PredictionService/X"),
]
sizes = st.one_of(st.integers(0, 4), st.integers(-3, 2**62), st.integers(2**20, 2**34))


@st.composite
def tensors(draw):
    dtype = draw(st.one_of(st.integers(0, 30), st.integers(-5, 130)))
    tensor = tensor_pb2.TensorProto(dtype=dtype)
    for size in draw(st.lists(sizes, max_size=4)):
        tensor.tensor_shape.dim.add(size=size)
    tensor.tensor_shape.unknown_rank = draw(st.integers(0, 9)) == 0
    if draw(st.booleans()):
        tensor.tensor_content = draw(st.binary(max_size=40))
    tensor.int_val.extend(draw(st.lists(st.integers(-(2**31), 2**31 - 1), max_size=4)))
    tensor.float_val.extend(draw(st.lists(st.floats(width=32), max_size=4)))
    tensor.half_val.extend(draw(st.lists(st.integers(-(2**31), 2**31 - 1), max_size=2)))
    tensor.string_val.extend(draw(st.lists(st.binary(max_size=4), max_size=2)))
    return tensor


@st.composite
def messages(draw):
    request = predict_pb2.PredictRequest()
    request.model_spec.name = draw(st.sampled_from(["m", "m", "m", "", "no", "../m"]))
    request.model_spec.signature_name = draw(st.sampled_from(SIGNATURES))
    for name in draw(st.lists(st.sampled_from(["x", "x", "a", "t", ""]), max_size=3)):
        request.inputs[name].CopyFrom(draw(tensors()))
    request.output_filter.extend(draw(st.lists(st.sampled_from(["y", "z"]), max_size=2)))
    return request.SerializeToString()


ANSWERS = {"OK", "INVALID_ARGUMENT", "NOT_FOUND", "FAILED_PRECONDITION", "UNIMPLEMENTED"}


@many
@given(
    method=st.sampled_from(METHODS),
    message=st.one_of(messages(), messages(), spoiled(messages()), st.binary(max_size=60)),
)
def check_grpc(channel, method, message):
    call = channel.unary_unary(f"/tensorflow.serving.{method}", lambda m: m, lambda m: m)
    try:
        call(message, timeout=60)
    except grpc.RpcError as error:
        code, details = error.code().name, error.details()
        is_known = code in ANSWERS or details == "Failed to parse the message"
        if not is_known:
            pytest.fail(f"{code}: {details}")


def good_answer(server):
    body = json.dumps({"instances": [2.0]})
    return server.rest("POST", "/v1/models/m:predict", body, {})[1]


def test_malformed_requests_of_rest_are_answered(server):
    run_and_measure(server, lambda: check_rest(server))


def test_malformed_requests_of_grpc_are_answered(server):
    with grpc.insecure_channel(server.grpc_address) as channel:
        run_and_measure(server, lambda: check_grpc(channel))


def run_and_measure(server, check):
    """Runs the same requests twice: the second time, memory must not grow."""
    check()
    before = server.memory()
    check()
    assert server.memory() - before < GROWTH
    assert server.process.poll() is None
    assert good_answer(server) == b'{\n    "predictions": [3.0\n    ]\n}'


# -- Files that are malformed, to a model that reads them

DTYPES_OF_NIFTI = ["u1", "i1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8"]
# Numbers that are wrong in one place or another: sizes, codes, offsets and reals, as 4 bytes.
ODD_NUMBERS = [0, 1, 2, 16, 348, 352, 540, 1024, 32767, -1, -(2**31), 2**31 - 1]
ODD_REALS = [0.0, -1.0, 1e-40, 1e-6, 1e9, 1e38, float("nan"), float("inf"), float("-inf")]
HEADER_BYTES = {nib.Nifti1Image: 348, nib.Nifti2Image: 540}


@st.composite
def nifti_files(draw):
    """A NIfTI file that is good but for some numbers of its header, its end, or its gzip."""
    kind = draw(st.sampled_from([nib.Nifti1Image, nib.Nifti1Image, nib.Nifti2Image]))
    order = draw(st.sampled_from("<>"))
    shape = (*draw(st.tuples(*[st.integers(4, 12)] * 3)), *draw(st.sampled_from([(), (), (1,)])))
    hu = np.arange(np.prod(shape)).reshape(shape) % 90
    dtype = draw(st.sampled_from(DTYPES_OF_NIFTI))
    affine = np.diag([*draw(st.tuples(*[st.sampled_from([-3, 0.5, 2, 9])] * 3)), 1])
    header = kind.header_class(endianness=order)
    image = kind(hu.astype(dtype), affine, header)
    image.header.set_slope_inter(*draw(st.sampled_from([(1, 0), (20, -1000), (0.5, 7)])))
    content = bytearray(image.to_bytes())
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 2, 3]))):
        form, numbers = draw(
            st.sampled_from([("h", ODD_NUMBERS[:-2]), ("i", ODD_NUMBERS), ("f", ODD_REALS)])
        )
        packed = struct.pack(order + form, draw(st.sampled_from(numbers)))
        start = draw(st.integers(0, HEADER_BYTES[kind] // 2 - 2)) * 2
        content[start : start + len(packed)] = packed
    end = draw(st.one_of(st.none(), st.none(), st.none(), st.integers(0, len(content))))
    content = bytes(content[:end])
    match draw(st.integers(0, 4)):
        case 0 | 1:
            return content
        case 2:
            return gzip.compress(content, 1)
        case 3:  # two members
            return gzip.compress(content[:400], 1) + gzip.compress(content[400:], 1)
    return draw(spoiled(st.just(gzip.compress(content, 1))))


def nifti_over_grpc(channel, file):
    """The code, and the bytes of the mask or the details."""
    request = predict_pb2.PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = "m", "segment_nifti"
    request.inputs["nifti_bytes"].CopyFrom(tf.make_tensor_proto(file))
    stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
    try:
        response = stub.Predict(request, timeout=60)
    except grpc.RpcError as error:
        return error.code().name, error.details()
    return "OK", response.outputs["labels_nifti_bytes"].string_val[0]


def nifti_over_rest(server, file):
    text = base64.b64encode(file).decode()
    body = {"signature_name": "segment_nifti", "inputs": {"nifti_bytes": {"b64": text}}}
    status, answer = server.rest("POST", "/v1/models/m:predict", json.dumps(body), {})
    if status == 200:
        mask = json.loads(answer)["outputs"]["labels_nifti_bytes"]["b64"]
        return "OK", base64.b64decode(mask)
    return {400: "INVALID_ARGUMENT"}.get(status, status), json.loads(answer)["error"]


def count_answers(server, channel):
    """Sends files over both transports, which must say the same."""
    answers = collections.Counter()

    @many
    @given(file=nifti_files())
    def check(file):
        code, content = nifti_over_grpc(channel, file)
        assert code in ("OK", "INVALID_ARGUMENT"), content
        assert nifti_over_rest(server, file) == (code, content)
        answers[code] += 1

    check()
    return answers


def test_malformed_nifti_files_are_answered_alike_over_both_transports(segmenting_server):
    with grpc.insecure_channel(segmenting_server.grpc_address) as channel:
        answers = count_answers(segmenting_server, channel)
        before = segmenting_server.memory()
        assert count_answers(segmenting_server, channel) == answers
    assert segmenting_server.memory() - before < GROWTH
    assert segmenting_server.process.poll() is None
    assert min(answers["OK"], answers["INVALID_ARGUMENT"]) > EXAMPLES // 20
