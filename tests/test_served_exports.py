"""Exports behind both transports give what prediction and the session runtime give.

With `FCNSEG_TFSERVING_IMAGE` set, as by `make verify-docker`, the real server of that image serves
them instead of the local one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
import signal
import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest
from real_server import IMAGE, SEEN_AS, real_server
from running_server import running_server
from small_models import CROP, make_oblique_volume, write_run

from fcnseg.client import Credentials, SegmentationClient
from fcnseg.client.endpoint import Endpoint
from fcnseg.client.failures import CallError
from fcnseg.client.grpc_transport import GrpcTransport
from fcnseg.client.rest_transport import RestTransport
from fcnseg.client.served_model import ModelSpec
from fcnseg.evaluation.class_names import read_class_names
from fcnseg.inference import load_run, make_segmenter, predict_volume
from fcnseg.runs import Run
from fcnseg.saved_model.export import export_run
from fcnseg.saved_model.session import DEFAULT_SIGNATURE, SavedModelSession
from fcnseg.saved_model.signatures import ALL, SEGMENT_NIFTI, SEGMENT_VOLUME, ServedModel
from fcnseg.volumes import from_canonical, read_ct, to_canonical, write_volume
from serving.client import ClientCommand

TIMEOUT_S = 300.0
ALMOST_ALL = 0.9999  # of the voxels, where sums of float32 are in another order


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("served") / "run")


@pytest.fixture(scope="module")
def model_dir(run_dir):
    export_run(run_dir, run_dir.parent / "models")
    return run_dir.parent / "models"


@contextlib.contextmanager
def served(model_dir, *, as_content=False):
    """The addresses of a server of a model by transport; `as_content` is how gRPC has tensors."""
    flag = {"enable_serialization_as_tensor_content": as_content}
    if IMAGE is None:
        with running_server(model_dir, **flag) as (grpc, rest):
            yield {"grpc": grpc, "rest": rest}
        return
    flags = (f"--{name}={str(value).lower()}" for name, value in flag.items())
    base = f"--model_base_path={SEEN_AS}"
    running = real_server(model_dir, "--model_name=fcnseg", base, *flags, model_name="fcnseg")
    with running as (grpc_port, rest_port):
        yield {"grpc": f"127.0.0.1:{grpc_port}", "rest": f"http://127.0.0.1:{rest_port}"}


@pytest.fixture(scope="module")
def addresses(model_dir):
    with served(model_dir) as addresses:
        yield addresses


@pytest.fixture(scope="module")
def session(model_dir):
    return SavedModelSession(model_dir / "1")


@pytest.fixture(scope="module")
def requests(run_dir):
    """A request for each signature."""
    return ServedModel(make_segmenter(*load_run(run_dir))).example_requests()


@pytest.fixture(scope="module", params=["grpc", "rest"])
def call(request, addresses):
    """Runs a signature with inputs by name, as a client does."""
    kind = {"grpc": GrpcTransport, "rest": RestTransport}[request.param]
    transport = kind(Endpoint.parse(addresses[request.param]), Credentials())
    yield lambda *asked: transport.predict(ModelSpec("fcnseg"), *asked, timeout_s=TIMEOUT_S)
    transport.close()


@pytest.mark.parametrize("signature", ALL)
def test_outputs_of_each_signature_are_those_of_the_session(signature, call, requests, session):
    outputs = call(signature, requests[signature])
    expected = session.run(signature, requests[signature])
    assert outputs.keys() == expected.keys()
    for name, array in expected.items():
        # Another build of TensorFlow may order sums in another way; numbers travel as decimals.
        if array.dtype.kind == "f":
            np.testing.assert_allclose(outputs[name], array, rtol=0, atol=1e-5)
        else:
            np.testing.assert_array_equal(outputs[name], array)


@pytest.mark.parametrize("as_content", [False, True], ids=["typed", "content"])
def test_masks_are_those_of_prediction(run_dir, model_dir, session, as_content):
    volume = make_oblique_volume((17, 20, 60))  # turned, of another spacing than the model's
    volume.array[..., 25:] = -1000  # air, which is skipped
    with served(model_dir, as_content=as_content) as addresses:
        check_masks(volume, run_dir, addresses, session)


@pytest.mark.slow
@pytest.mark.real_data
def test_masks_of_a_real_scan_are_those_of_prediction(tmp_path, real_data):
    run_dir = write_run(tmp_path / "run", spacing_mm=(4.0, 4.0, 4.0), max_voxels=1_000_000)
    export_run(run_dir, tmp_path / "models")
    volume = read_ct(real_data / "abdomen_ct_sm/ct.nii.gz")
    session = SavedModelSession(tmp_path / "models" / "1")
    with served(tmp_path / "models", as_content=True) as addresses:
        check_masks(volume, run_dir, addresses, session)


def check_masks(volume, run_dir, addresses, session):
    """Voxel for voxel: prediction, the session runtime, and the server over gRPC and REST.

    The real server has sums of another build of TensorFlow, and the client its own.
    """
    segmenter = make_segmenter(*load_run(run_dir))
    mask = predict_volume(segmenter, volume)
    assert len(np.unique(mask)) > 1

    canonical = to_canonical(volume)
    inputs = {"volume": canonical.array, "spacing": np.array(canonical.spacing, np.float32)}
    outputs = session.run(SEGMENT_VOLUME, inputs)
    np.testing.assert_array_equal(from_canonical(outputs["labels"], volume), mask)
    assert outputs["voxel_counts"].tolist() == np.bincount(mask.ravel(), minlength=3).tolist()

    network = Run.open(run_dir).network_digest()
    for address in addresses.values():
        with SegmentationClient(address) as client:
            info = client.model_info()
            assert info.networks_sha256 == (network,)
            facts = dataclasses.replace(info, networks_sha256=(), precision="")
            assert facts == segmenter.info
            agreement = np.mean(client.segment(volume, accept=CROP) == mask)
            assert agreement == 1 if IMAGE is None else agreement >= ALMOST_ALL
            assert np.mean(client.segment_tiled(volume, accept=CROP) == mask) >= ALMOST_ALL


CUBE = np.zeros((4, 4, 4), np.int16)
MM = np.full(3, 2, np.float32)
BAD_INPUTS = {
    "patches of no axis": (
        DEFAULT_SIGNATURE,
        {"patches": np.float32(1)},
        "patches must have five axes",
        "shape []",
    ),
    "patches of one axis": (
        DEFAULT_SIGNATURE,
        {"patches": MM},
        "patches must have five axes",
        "shape [3]",
    ),
    "no patches": (
        DEFAULT_SIGNATURE,
        {"patches": MM[:0]},
        "patches must have five axes",
        "shape [0]",
    ),
    "number": (
        SEGMENT_VOLUME,
        {"volume": np.int16(1), "spacing": MM},
        "volume must have three",
        "shape []",
    ),
    "slice": (
        SEGMENT_VOLUME,
        {"volume": CUBE[0], "spacing": MM},
        "volume must have three",
        "shape [4 4]",
    ),
    "one spacing": (
        SEGMENT_VOLUME,
        {"volume": CUBE, "spacing": MM[0]},
        "spacing must be three",
        "shape []",
    ),
    "spacing": (
        SEGMENT_VOLUME,
        {"volume": CUBE, "spacing": MM * 99},
        "spacing must be three",
        "198",
    ),
    "no file": (SEGMENT_NIFTI, {"nifti_bytes": np.array(b"CT", object)}, "nifti_bytes", "2 bytes"),
}


@pytest.mark.parametrize("case", BAD_INPUTS)
def test_what_a_model_cannot_take_is_refused(case, call):
    signature, inputs, rule, value = BAD_INPUTS[case]
    with pytest.raises(CallError) as caught:
        call(signature, inputs)
    assert caught.value.code == "INVALID_ARGUMENT"
    assert rule in caught.value.details
    assert value in caught.value.details


@pytest.mark.serving
def test_commands_serve_segment_and_end(model_dir, run_dir, tmp_path):
    """The server and the client as a user starts them, each in a process of its own."""
    command = [sys.executable, "-m", "serving.server", "--model_base_path", str(model_dir)]
    flags = ["--model_name=abdomen", "--port=-1", "--rest_api_port", "-1"]
    image, output = tmp_path / "ct.nii.gz", tmp_path / "masks"
    volume = make_oblique_volume()
    write_volume(volume, image)
    log = tmp_path / "log"
    with (
        log.open("w") as stderr,
        subprocess.Popen(
            command + flags, stdout=subprocess.PIPE, stderr=stderr, text=True
        ) as server,
    ):
        try:
            ready = server.stdout.readline()
            address = re.search(r"serving abdomen version \d+ at (\S+) \(gRPC\)", ready)[1]
            ClientCommand(address, output, image, model_name="abdomen", accept=CROP).run()
        finally:
            server.send_signal(signal.SIGTERM)
        assert server.wait(timeout=30) == 0
    assert "server process" not in log.read_text()  # uvicorn's own lines
    file = nib.load(output / "ct.nii.gz")
    mask = np.asarray(file.dataobj).T
    expected = predict_volume(make_segmenter(*load_run(run_dir)), volume)
    np.testing.assert_array_equal(mask, expected)
    names = read_class_names(output / "ct.nii.gz", file.header)
    assert names == {1: "liver", 2: "spleen"}
