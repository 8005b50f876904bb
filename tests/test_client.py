"""The client over gRPC and REST: against the local server, and against canned answers."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import dicom_series
import grpc
import numpy as np
import pytest
import tensorflow as tf
from canned_servers import canned_grpc, canned_http, hanging_up
from half_plus_two import write_half_plus_two
from running_server import running_server
from small_models import CROP, make_hu, make_info, make_oblique_volume, write_run
from tensorflow_serving.apis import predict_pb2
from threshold_model import BONE_HU, ORGAN_HU, write_threshold_model

from fcnseg.client import Credentials, SegmentationClient, ServerError, TooBusyError
from fcnseg.client.body import body_region
from fcnseg.client.window_sums import segment_windows
from fcnseg.errors import InputError
from fcnseg.inference import load_run, make_segmenter, predict_volume, regions
from fcnseg.inference.sliding_window import SlidingWindow
from fcnseg.saved_model.signatures import ServedModel
from fcnseg.testing.phantom import make_phantom
from fcnseg.volumes import Volume, read_ct, write_volume
from fcnseg.volumes.tiling import Tiling
from pipelines.worker_pool import free_port

TRANSPORTS = ("grpc", "rest")


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("client") / "run", skip_air=True)


@pytest.fixture(scope="module")
def segmenter(run_dir):
    return make_segmenter(*load_run(run_dir))


@pytest.fixture(scope="module")
def addresses(run_dir, segmenter):
    ServedModel(segmenter).write(run_dir.parent / "models/1")
    with running_server(run_dir.parent / "models") as (over_grpc, over_rest):
        yield {"grpc": over_grpc, "rest": over_rest}


def airy_volume():
    """A body and the air beside it, turned and of another spacing than the model's."""
    volume = make_oblique_volume((17, 20, 60))
    volume.array[..., 25:] = -1000
    return volume


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_the_mask_is_that_of_predict_for_each_format(addresses, segmenter, tmp_path, transport):
    volume = airy_volume()
    write_volume(volume, tmp_path / "ct.nii.gz")
    array = make_hu((5, 12, 14))
    folder = dicom_series.write(dicom_series.make_slices(array), tmp_path / "dicom")
    images = {
        "volume": (volume, volume),
        "NIfTI": (tmp_path / "ct.nii.gz", volume),
        "DICOM": (str(folder), read_ct(folder)),
    }
    with SegmentationClient(addresses[transport]) as client:
        for image, expected in images.values():
            mask = client.segment(image, accept=CROP)
            np.testing.assert_array_equal(mask, predict_volume(segmenter, expected))
            assert len(np.unique(mask)) > 1


def test_over_rest_a_volume_goes_as_a_file(tmp_path):
    """In any orientation; segment_nifti of a real export is tested with the export."""
    write_threshold_model(tmp_path / "1")
    image, _ = make_phantom(3, spacing=(10.0, 8.0, 8.0))
    turned = Volume(
        np.ascontiguousarray(image.array.transpose(2, 0, 1)[:, ::-1]),
        image.affine @ turn_of(image.shape),
    )
    with running_server(tmp_path) as (_, rest), SegmentationClient(rest) as client:
        mask = client.segment(turned)
    np.testing.assert_array_equal(mask, (turned.array > ORGAN_HU) + 1 * (turned.array > BONE_HU))
    assert len(np.unique(mask)) == 3


def turn_of(shape):
    """Index (i, j, k) of an array turned by (2, 0, 1), its new y reversed, to that of the array."""
    return np.array([[0.0, 0, 1, 0], [1, 0, 0, 0], [0, -1, 0, shape[0] - 1], [0, 0, 0, 1]])


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_what_a_server_says_of_a_model(addresses, segmenter, transport):
    with SegmentationClient(addresses[transport]) as client:
        assert client.model_info() == segmenter.info
        (state,) = client.status()
        assert (state.version, state.state) == (1, "AVAILABLE")
        assert client.wait_until_ready(0) == state
        metadata = client.metadata()
    assert metadata.version == 1
    signature = metadata.signatures["segment_volume"]
    assert signature.inputs["volume"].dtype == "int16"
    assert signature.inputs["spacing"].shape == (3,)
    assert signature.outputs["voxel_counts"].dtype == "int64"


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_tiled_is_the_sliding_window_of_the_server(addresses, segmenter, transport):
    """On the model's own grid: resampling may end on the other side of a half."""
    array = make_hu((13, 30, 29))
    array[:, :, 20:] = -1000
    volume = Volume(array, np.diag([-2.0, 2.0, 2.0, 1.0]))
    seen = []
    with SegmentationClient(addresses[transport]) as client:
        mask = client.segment_tiled(
            volume, accept=CROP, progress=lambda done, total: seen.append((done, total))
        )
    np.testing.assert_array_equal(mask, predict_volume(segmenter, volume))
    assert len(np.unique(mask)) > 1
    done, totals = zip(*seen, strict=True)
    assert list(done) == sorted(done)
    assert {done[-1]} == set(totals)


def test_tiled_agrees_with_the_server_at_another_spacing(addresses, segmenter):
    volume = airy_volume()
    with SegmentationClient(addresses["grpc"]) as client:
        mask = client.segment_tiled(volume, info=segmenter.info, accept=CROP)
    assert (mask == predict_volume(segmenter, volume)).mean() > 0.999


@pytest.mark.parametrize("tile", [(8, 12, 10), (4, 8, 6)], ids=["same", "valid"])
@pytest.mark.parametrize("shape", [(3, 5, 4), (20, 33, 27)])
@pytest.mark.parametrize("with_region", [False, True])
def test_windows_of_the_client_are_those_of_the_graph(tile, shape, with_region):
    """Tiles smaller than their windows too, as of convolutions that do not pad."""
    tiling = Tiling((8, 12, 10), tile, (3, 5, 4))
    margin = [(window - part) // 2 for window, part in zip(tiling.window, tile, strict=True)]
    middle = tuple(slice(m, m + part) for m, part in zip(margin, tile, strict=True))
    weights = np.random.default_rng(1).normal(size=3).astype(np.float32)

    def predict(patches):
        return tf.nn.softmax(patches[(slice(None), *middle)] / 100.0 * weights)

    hu, region = make_hu(shape), None
    if with_region:
        region = np.zeros(shape, bool)
        region[: shape[0] // 2, :, 1:3] = True
    window = SlidingWindow(predict, tiling, num_classes=3, batch_size=2)
    expected = tf.function(window.segment)(hu, region).numpy()
    found = segment_windows(
        hu, lambda patches: predict(patches).numpy(), tiling, region=region, batch_size=2
    )
    np.testing.assert_array_equal(found, expected)
    assert len(np.unique(found)) > 1


@pytest.mark.parametrize("shape", [(9, 40, 50), (8, 8, 8), (1, 3, 30)])
def test_the_body_is_that_of_the_graph(shape):
    hu = np.full(shape, -1000, np.int16)
    hu[:, shape[1] // 4 : -shape[1] // 3 or None, shape[2] // 3 : -2] = 40
    np.testing.assert_array_equal(body_region(hu), regions.body_region(tf.constant(hu)))


# -- Failures

VOLUME = make_oblique_volume((4, 5, 6))
CODE = grpc.StatusCode


def failure_of(server, message, **options):
    """The error of a volume that is sent to a server."""
    client = SegmentationClient(server, **options)
    with client, pytest.raises(ServerError, match=message) as caught:
        client.segment(VOLUME, accept=CROP)
    return caught.value


# What a server says, and what the user reads of it.
OVER_GRPC = {
    "message size": (
        (CODE.RESOURCE_EXHAUSTED, "Received message larger than max (16777301 vs. 4194304)"),
        ServerError,
        "takes messages of at most 4194304 bytes, and this one has 16777301: raise the limit",
    ),
    "busy": (
        (CODE.RESOURCE_EXHAUSTED, "Too many requests: 4 run and 4 wait"),
        TooBusyError,
        "is busy: Too many requests",
    ),
    "memory": (
        (CODE.RESOURCE_EXHAUSTED, "OOM when allocating tensor with shape[1,2]"),
        ServerError,
        "ran out of memory: OOM when allocating",
    ),
    "type": (
        (CODE.INVALID_ARGUMENT, "Expects arg[0] to be int32 but int16 is provided\n\t[[{{node}}]]"),
        InputError,
        "takes another type of input than fcnseg sends: Expects arg.0. to be int32",
    ),
    "rule": (
        (CODE.INVALID_ARGUMENT, "assertion failed: [volume must have at most 9 voxels]\n\t [[x]]"),
        InputError,
        r"refused the volume: \[volume must have at most 9 voxels\]$",
    ),
    "signature": (
        (CODE.FAILED_PRECONDITION, 'Serving signature key "segment_volume" not found.'),
        ServerError,
        "has no signature segment_volume: export it with fcnseg export, or use segment_tiled",
    ),
    "limit of the client": (
        (CODE.DEADLINE_EXCEEDED, "Stream removed (Deadline Exceeded)"),
        ServerError,
        "no answer from 127.* within [0-9.]+ s",
    ),
    "limit of the server": (
        (CODE.DEADLINE_EXCEEDED, "Timed out waiting for tensor to be ready"),
        ServerError,
        "ended the call at a limit of its own: Timed out .* raise --rest_api_timeout_in_ms",
    ),
    "label": (
        (CODE.INVALID_ARGUMENT, "Unrecognized servable version label: new"),
        ServerError,
        "no model fcnseg at 127.* Unrecognized servable version label",
    ),
    "no model": (
        (CODE.NOT_FOUND, "Servable not found for request: Latest(fcnseg)"),
        ServerError,
        "no model fcnseg at 127.*: Servable not found for request",
    ),
    "cancelled": (
        (CODE.CANCELLED, "Loop execution was cancelled."),
        ServerError,
        "ended the call, as it does when it stops or takes a version away: Loop execution",
    ),
    "fault": ((CODE.INTERNAL, "a fault"), ServerError, "model fcnseg at .* failed: INTERNAL: a fa"),
    "no mask": (predict_pb2.PredictResponse(), ServerError, "gave no mask of shape"),
}


@pytest.mark.parametrize(("answer", "kind", "message"), OVER_GRPC.values(), ids=OVER_GRPC)
def test_grpc_failure_is_one_sentence(answer, kind, message):
    with canned_grpc(answer) as (server, requests):
        with SegmentationClient(server, retry_s=0) as client, pytest.raises(kind, match=message):
            client.segment(VOLUME, accept=CROP)
        assert len(requests) == 1


SIGNATURE = {
    "inputs": {
        "volume": {"dtype": "DT_INT16", "tensor_shape": {"dim": [{"size": "-1"}] * 3}},
        "spacing": {"dtype": "DT_FLOAT", "tensor_shape": {"dim": [{"size": "3"}]}},
    },
    "outputs": {"labels": {"dtype": "DT_UINT8", "tensor_shape": {"unknown_rank": True}}},
}
METADATA = {
    "model_spec": {"name": "fcnseg", "version": "1"},
    "metadata": {"signature_def": {"signature_def": {"segment_volume": SIGNATURE}}},
}
GIVEN = (200, json.dumps(METADATA).encode())
PAGE = b"<html><center>nginx</center></html>"
OVER_REST = {
    "body size": ((413, PAGE), ServerError, "takes no body as large .*client_max_body_size"),
    "busy": ((429, PAGE), TooBusyError, "is busy: 429 Too Many Requests"),
    "limit of a proxy": ((504, PAGE), ServerError, "a limit of its own: 504 .*proxy_read_timeout"),
    "limit of the server": ((504, b'{"error": "Timed out"}'), ServerError, "its own: Timed out;"),
    "plain HTTP": (
        (400, b"<center>The plain HTTP request was sent to HTTPS port</center>"),
        ServerError,
        "takes TLS alone: give https://HOST:PORT",
    ),
    "password": ((401, PAGE), ServerError, "asks for a user and a password: 401"),
    "server stopped": ((502, PAGE), ServerError, "no server at http.*: 502 Bad Gateway"),
    "rule": ((400, b'{"error": "volume must be"}'), InputError, "refused the volume: volume must"),
    "fault": ((500, b'{"error": "a fault"}'), ServerError, "failed: INTERNAL: a fault"),
    "page": ((200, PAGE), ServerError, "does not answer as a model server does"),
    "no outputs": ((200, b"{}"), ServerError, "does not answer as a model server does"),
    "other outputs": ((200, b'{"outputs": {"x": 1}}'), ServerError, "gave what is no tensor"),
    "mask of another shape": ((200, b'{"outputs": [[[1]]]}'), ServerError, "gave no mask"),
}


@pytest.mark.parametrize(("answer", "kind", "message"), OVER_REST.values(), ids=OVER_REST)
def test_rest_failure_is_one_sentence(answer, kind, message):
    with canned_http(GIVEN, answer) as (server, paths):
        with SegmentationClient(server, retry_s=0) as client, pytest.raises(kind, match=message):
            client.segment(VOLUME, accept=CROP)
        assert paths == ["/v1/models/fcnseg:predict"]


@pytest.mark.parametrize("scheme", ["", "http://"])
def test_server_that_is_not_there_is_named_at_once(scheme):
    client = SegmentationClient(f"{scheme}127.0.0.1:{free_port()}", retry_s=60)
    with client, pytest.raises(ServerError, match="no server at .*127.0.0.1") as caught:
        client.segment(VOLUME, accept=CROP)
    assert caught.value.is_gone


@pytest.mark.parametrize("scheme", ["", "http://"])
def test_server_that_hangs_up_is_named(scheme):
    with hanging_up() as port:
        error = failure_of(f"{scheme}127.0.0.1:{port}", "127.0.0.1")
    assert error.status == "UNAVAILABLE"


def test_server_that_hangs_up_within_its_answer_is_named():
    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor(1) as pool:

        def answer():
            connection, _ = server.accept()
            with connection:
                connection.recv(2**16)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{")

        pool.submit(answer)
        client = SegmentationClient(f"http://127.0.0.1:{server.getsockname()[1]}")
        with client, pytest.raises(ServerError, match="closed the connection before it answered"):
            client.status()


def test_interfaces_that_are_mixed_up_are_named(addresses):
    grpc_as_http = SegmentationClient(f"http://{addresses['grpc']}", retry_s=0, timeout_s=5)
    http_as_grpc = SegmentationClient(addresses["rest"].removeprefix("http://"), retry_s=0)
    for client in (grpc_as_http, http_as_grpc):
        with client, pytest.raises(ServerError, match="does not answer as a model server|no serv"):
            client.status()


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_no_answer_in_time(transport):
    stopped = threading.Event()

    def wait(_):
        stopped.wait(10)
        return b""

    if transport == "grpc":
        with canned_grpc(wait) as (server, requests):
            failure_of(server, r"no answer from .* within 0.3 s", timeout_s=0.3)
            assert len(requests) == 1
            stopped.set()
    else:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            server = f"http://127.0.0.1:{silent.getsockname()[1]}"
            failure_of(server, r"no answer from .* within 0.3 s", timeout_s=0.3)


def test_call_of_a_client_that_is_closed_ends(transport_that_hangs):
    """As on Ctrl-C, while a server computes for minutes."""
    server, is_called = transport_that_hangs
    client = SegmentationClient(server, timeout_s=60)
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(client.model_info)
        assert is_called.wait(20)
        time.sleep(0.1)
        started = time.monotonic()
        client.close()
        with pytest.raises(ServerError, match="failed: CANCELLED"):
            call.result()
    assert time.monotonic() - started < 10
    with pytest.raises(ServerError, match="failed: CANCELLED"):
        client.status()


@pytest.fixture(params=[*TRANSPORTS, "rest, within the answer"])
def transport_that_hangs(request):
    """A server that leaves a call without its answer; and an event that is set by the call."""
    is_called, stopped = threading.Event(), threading.Event()

    def wait(_):
        is_called.set()
        stopped.wait(60)
        return b""

    def accept(silent):
        with contextlib.suppress(OSError):
            connection, _ = silent.accept()
            with connection:
                connection.recv(2**16)
                if "within" in request.param:
                    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{")
                is_called.set()
                stopped.wait(60)

    with contextlib.ExitStack() as stack:
        if request.param == "grpc":
            server, _ = stack.enter_context(canned_grpc(wait))
        else:
            silent = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            stack.enter_context(ThreadPoolExecutor(1)).submit(accept, silent)
            server = f"http://127.0.0.1:{silent.getsockname()[1]}"
        stack.callback(stopped.set)
        yield server, is_called


def test_busy_server_is_not_asked_again_by_a_client_that_is_closed():
    with canned_grpc(BUSY) as (server, requests), ThreadPoolExecutor(1) as pool:
        client = SegmentationClient(server)
        call = pool.submit(client.model_info)
        while len(requests) < 4:  # it waits longer each time
            time.sleep(0.05)
        client.close()
        with pytest.raises(TooBusyError):
            call.result(timeout=2)
        assert len(requests) == 4


BUSY = (CODE.RESOURCE_EXHAUSTED, "Too many requests")


def test_busy_server_is_asked_again():
    response = predict_pb2.PredictResponse()
    with canned_grpc(BUSY, BUSY, response) as (server, requests):
        with SegmentationClient(server) as client, pytest.raises(ServerError, match="gave no mask"):
            client.segment(VOLUME, accept=CROP)
        assert len(requests) == 3
    with canned_http(GIVEN, (429, PAGE), (200, b'{"outputs": []}')) as (server, paths):
        with SegmentationClient(server) as client, pytest.raises(ServerError, match="gave no mask"):
            client.segment(VOLUME, accept=CROP)
        assert len(paths) == 2


def test_server_that_restarts_is_asked_again():
    """It could be reached before, and a connection that is refused has sent nothing."""
    port, stopped = free_port(), threading.Event()

    def serve_later():
        with canned_grpc(predict_pb2.PredictResponse(), port=port):
            stopped.wait(30)

    with SegmentationClient(f"127.0.0.1:{port}", retry_s=30) as client:
        first = canned_grpc(predict_pb2.PredictResponse(), port=port)
        with first, pytest.raises(ServerError, match="gave no mask"):
            client.segment(VOLUME, accept=CROP)
        timer = threading.Timer(1.0, serve_later)
        timer.start()
        with pytest.raises(ServerError, match="gave no mask"):
            client.segment(VOLUME, accept=CROP)
        stopped.set()
        timer.join()


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_names_of_versions_and_signatures_that_are_not_served(tmp_path, transport):
    write_half_plus_two(tmp_path / "3")
    with running_server(tmp_path) as addresses:
        server = addresses[TRANSPORTS.index(transport)]
        no_version = "no model fcnseg version 7 at .*: the server has version 3"
        failure_of(server, no_version, version=7)
        failure_of(server, "no model a/b c at ", model_name="a/b c")
        failure_of(server, "has no signature segment_volume: export it")
        client = SegmentationClient(server)
        with client, pytest.raises(ServerError, match="gave no probabilities of 3 classes for 1"):
            client.segment_tiled(VOLUME, info=make_info(), accept=CROP)


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_waits_until_a_version_is_served(tmp_path, transport):
    port = free_port()
    server = f"127.0.0.1:{port}" if transport == "grpc" else f"http://127.0.0.1:{port}"
    client = SegmentationClient(server)
    with client, pytest.raises(ServerError, match="fcnseg at .* is not ready: no server at"):
        client.wait_until_ready(0)
    write_half_plus_two(tmp_path / "1")
    with contextlib.ExitStack() as stack:
        addresses = stack.enter_context(running_server(tmp_path))
        server = addresses[TRANSPORTS.index(transport)]
        with SegmentationClient(server, version=2) as client:
            with pytest.raises(ServerError, match="is not ready: no model fcnseg version 2"):
                client.wait_until_ready(0)
            timer = threading.Timer(0.5, write_half_plus_two, (tmp_path / "2",))
            timer.start()
            assert client.wait_until_ready(30).version == 2
            timer.join()


ADDRESSES = ["", "host", "ftp://host:1", "host:0", "host:99999", "grpc://h:1/path", "http://u@h:1"]


@pytest.mark.parametrize("address", ADDRESSES)
def test_address_of_another_form_is_refused(address):
    with pytest.raises(InputError, match="server must be HOST:PORT for gRPC, or a URL"):
        SegmentationClient(address)


def test_arguments_that_cannot_be_are_refused(tmp_path):
    with pytest.raises(InputError, match="version and label exclude each other"):
        SegmentationClient("h:1", version=1, label="new")
    key = tmp_path / "tls.key"
    key.write_text("-----BEGIN PRIVATE KEY-----\nMC4CAQ==\n-----END PRIVATE KEY-----\n")
    for server in ("grpcs://h:1", "https://h"):
        with pytest.raises(InputError, match="ca_file must be .* got .*tls.key, which has none: "):
            SegmentationClient(server, credentials=Credentials(ca_file=key))
    missing = Credentials(ca_file=tmp_path / "ca.pem")
    for server in ("grpcs://h:1", "https://h"):
        with pytest.raises(InputError, match="ca_file must be a file of certificates"):
            SegmentationClient(server, credentials=missing)
    assert "secret" not in repr(Credentials("me", "secret"))


# -- Input

NOT_CT = (np.arange(20 * 40 * 40) % 781).astype(np.int16).reshape(20, 40, 40)  # from 0 to 780
PADDED = np.random.default_rng(0).integers(-1000, 1000, (20, 40, 40)).astype(np.int16)
PADDED[..., :9] = -3024


def test_refuses_what_the_conversion_refuses_before_anything_is_sent(tmp_path):
    volume = Volume(NOT_CT, np.diag([2.5, 2.5, 2.5, 1.0]))
    write_volume(volume, tmp_path / "ct.nii.gz")
    client = SegmentationClient("127.0.0.1:1")
    for image in (volume, tmp_path / "ct.nii.gz"):
        with pytest.raises(InputError, match="was the rescale intercept") as caught:
            client.segment(image)
        assert caught.value.code == "missing_rescale"
    with pytest.raises(InputError, match="volume must be HU as int16, got float32"):
        client.segment(volume.with_array(volume.array.astype(np.float32)))


def test_sends_padding_as_air_and_leaves_the_volume_as_it_is():
    volume = Volume(PADDED.copy(), np.diag([-2.5, 2.5, 2.5, 1.0]))
    with canned_grpc(predict_pb2.PredictResponse()) as (server, requests):
        for writeable in (True, False):
            volume.array.flags.writeable = writeable
            client = SegmentationClient(server)
            with client, pytest.raises(ServerError, match="gave no mask"):
                client.segment(volume)
    assert len(requests) == 2
    for request in requests:
        sent = predict_pb2.PredictRequest.FromString(request).inputs["volume"]
        np.testing.assert_array_equal(tf.make_ndarray(sent)[..., ::-1], np.maximum(PADDED, -1024))
    np.testing.assert_array_equal(volume.array, PADDED)


def test_names_a_reply_that_is_no_tensor():
    response = predict_pb2.PredictResponse()
    response.outputs["labels"].CopyFrom(tf.make_tensor_proto([1, 2, 3]))
    response.outputs["labels"].tensor_shape.dim[0].size = -1
    with canned_grpc(response) as (server, _):
        failure_of(server, "gave what is no tensor: .* must not be negative")


def test_volume_of_too_many_voxels_is_refused_by_the_graph(addresses):
    large = Volume(np.zeros((99, 99, 99), np.int16), np.eye(4))
    for server in addresses.values():
        client = SegmentationClient(server)
        with client, pytest.raises(InputError, match=r"refused the volume: \[volume must have at"):
            client.segment(large, accept=("constant_image",))
