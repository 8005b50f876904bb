"""`fcnseg segment`: folders of scans with a served model, one that fails, one that is resumed."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import shutil
import subprocess
import sys
import time
from pathlib import Path

import dicom_series
import grpc
import numpy as np
import pydicom
import pytest
import tensorflow as tf
from canned_servers import canned_grpc
from running_server import running_server
from small_models import CROP, make_info, make_oblique_volume, write_run
from tensorflow_serving.apis import predict_pb2

from fcnseg.cli.predict import PredictCommand
from fcnseg.client import SegmentationClient, ServerError
from fcnseg.errors import InputError
from fcnseg.inference import load_run, make_segmenter
from fcnseg.runs import ModelInfo, Run
from fcnseg.saved_model.signatures import ServedModel
from fcnseg.volumes import Volume, read_ct, read_geometry, read_label, write_volume
from pipelines.worker_pool import free_port
from serving.client import PASSWORD_VARIABLE, ClientCommand

ROOT = Path(__file__).parent.parent
TABLES = {"volumes.csv", "organs.label", "organs.ctbl"}


def write_model(path, run, *, network):
    models, info = load_run(run)
    info = dataclasses.replace(info, networks_sha256=(network,))
    ServedModel(make_segmenter(models, info)).write(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run, its model, and images: two of NIfTI, and one folder of DICOM slices."""
    folder = tmp_path_factory.mktemp("segment")
    run = write_run(folder / "run")
    write_model(folder / "models/1", run, network=Run.open(run).network_digest())
    (folder / "images").mkdir()
    for name in ("one", "two"):
        volume = make_oblique_volume((9, 10, 11), seed=len(name) + ord(name[0]))
        write_volume(volume, folder / f"images/{name}.nii.gz")
    slices = dicom_series.make_slices(make_oblique_volume((5, 12, 14)).array)
    dicom_series.write(slices, folder / "images/three")
    return folder


@pytest.fixture(scope="module")
def servers(folder):
    with running_server(folder / "models") as addresses:
        yield addresses


def mask_of(path):
    return read_label(path).array


def names_in(folder):
    return {path.name for path in folder.iterdir()}


@pytest.fixture(scope="module")
def predicted(folder):
    """The files of predict."""
    output = folder / "predicted"
    PredictCommand((folder / "run",), images=folder / "images", output=output, accept=CROP).run()
    return output


@pytest.mark.parametrize("flags", [{}, {"tiled": True, "in_flight": 1}], ids=["whole", "tiled"])
def test_a_folder_of_scans_gets_the_files_of_predict(folder, servers, predicted, tmp_path, flags):
    ClientCommand(servers[0], tmp_path / "m", folder / "images", accept=CROP, **flags).run()
    assert names_in(tmp_path / "m") == names_in(predicted) > TABLES
    for case_id in ("one", "two", "three"):
        mask, expected = (
            mask_of(side / f"{case_id}.nii.gz") for side in (tmp_path / "m", predicted)
        )
        assert (mask == expected).mean() > (0.999 if flags else 0.999999)
        content = json.loads((tmp_path / f"m/{case_id}.json").read_text())
        assert content["made_with"]["version"] == 1
        network = Run.open(folder / "run").network_digest()
        assert content["made_with"]["networks_sha256"] == [network]
        assert content["volumes_ml"].keys() == {"liver", "spleen"}


def test_windows_are_enough_of_a_server_that_has_the_network_alone(folder, predicted, tmp_path):
    served = ServedModel(make_segmenter(*load_run(folder / "run")))
    served.write(tmp_path / "models/1", names=["serving_default"])
    image, info = folder / "images/one.nii.gz", folder / "run/model_info.json"
    with running_server(tmp_path / "models") as servers:
        ClientCommand(
            servers[0], tmp_path / "m", image, tiled=True, model_info=info, accept=CROP
        ).run()
    mask, expected = (mask_of(side / "one.nii.gz") for side in (tmp_path / "m", predicted))
    assert (mask == expected).mean() > 0.999


def test_resume_leaves_out_what_is_finished(folder, servers, tmp_path, caplog, capsys):
    images, masks = shutil.copytree(folder / "images", tmp_path / "images"), tmp_path / "masks"
    (images / "broken.nii.gz").write_bytes(b"no NIfTI")
    command = ClientCommand(servers[1], masks, images, accept=CROP, resume=True)
    with pytest.raises(InputError, match=r"1 of 4 volumes failed: broken: .*\[unreadable\]"):
        command.run()
    assert "failed: broken" in caplog.text
    before = {path.name: path.stat().st_mtime_ns for path in masks.glob("*.nii.gz")}
    assert set(before) == {"one.nii.gz", "two.nii.gz", "three.nii.gz"}
    (masks / "two.nii.gz").unlink()
    (images / "broken.nii.gz").unlink()
    with caplog.at_level("INFO"):
        command.run()
    assert "left out: 2 cases that are complete" in caplog.text
    assert caplog.messages[-1] == f"3 masks are in {masks}"
    assert not capsys.readouterr().err  # no bar in the log of a job
    for name in ("one.nii.gz", "three.nii.gz"):
        assert (masks / name).stat().st_mtime_ns == before[name]
    assert (masks / "two.nii.gz").exists()


@pytest.mark.parametrize("change", ["image", "flag"])
def test_resume_keeps_no_mask_of_something_else(folder, servers, tmp_path, change):
    images, masks = shutil.copytree(folder / "images", tmp_path / "images"), tmp_path / "masks"
    shutil.rmtree(images / "three")
    ClientCommand(servers[0], masks, images, accept=CROP).run()
    flags = {"resume": True, "tiled": change == "flag"}
    if change == "image":
        shutil.copy(images / "one.nii.gz", images / "two.nii.gz")
    with pytest.raises(InputError, match="resume needs what .* began with: (image_sha256|tiled)"):
        ClientCommand(servers[0], masks, images, accept=CROP, **flags).run()
    with pytest.raises(InputError, match="is there already: give --overwrite .* or --resume"):
        ClientCommand(servers[0], masks, images, accept=CROP).run()


def test_resume_keeps_no_mask_of_another_network_of_the_same_number(folder, tmp_path):
    """The model was deleted, and another one exported in its place."""
    masks, images = tmp_path / "masks", folder / "images/one.nii.gz"
    for network in ("a" * 64, "b" * 64):
        shutil.rmtree(tmp_path / "models", ignore_errors=True)
        write_model(tmp_path / "models/1", folder / "run", network=network)
        with running_server(tmp_path / "models") as servers:
            command = ClientCommand(servers[0], masks, images, accept=CROP, resume=True)
            if network[0] == "a":
                command.run()
                continue
            with pytest.raises(InputError, match="resume needs what .* began with: .*_sha256"):
                command.run()


@pytest.mark.parametrize(
    "change", [{"class_names": ("background", "spleen", "liver")}, {"spacing_mm": (3.0, 3.0, 3.0)}]
)
def test_resume_keeps_no_mask_of_other_facts_of_the_model(folder, servers, tmp_path, change):
    masks, images = tmp_path / "masks", folder / "images/one.nii.gz"
    info = ModelInfo.read(folder / "run")
    flags = {"tiled": True, "model_info": tmp_path / "info.json", "accept": CROP, "resume": True}
    flags["model_info"].write_text(info.to_json())
    for _ in range(2):
        ClientCommand(servers[0], masks, images, **flags).run()
    before = {path.name: path.read_bytes() for path in masks.iterdir()}
    flags["model_info"].write_text(dataclasses.replace(info, **change).to_json())
    with pytest.raises(InputError, match="resume needs what .* began with: model_info_sha256"):
        ClientCommand(servers[0], masks, images, **flags).run()
    assert {path.name: path.read_bytes() for path in masks.iterdir()} == before


def test_cases_come_from_a_list(folder, servers, tmp_path):
    lines = ["case_id,image,patient_id"]
    lines += [f"{name},{folder}/images/{name}.nii.gz,p" for name in ("one", "two")]
    (tmp_path / "cases.csv").write_text("\n".join(lines) + "\n")
    listed = ClientCommand(servers[0], tmp_path / "csv", cases=tmp_path / "cases.csv", accept=CROP)
    listed.run()
    assert names_in(tmp_path / "csv") == TABLES | {
        f"{name}.{end}" for name in ("one", "two") for end in ("nii.gz", "json")
    }
    with pytest.raises(InputError, match="images come from one of .*, got --images and --cases"):
        ClientCommand(
            servers[0], tmp_path / "x", images=folder / "images", cases=listed.cases
        ).run()
    with pytest.raises(InputError, match="images come from one of .*, got none"):
        ClientCommand(servers[0], tmp_path / "x").run()
    assert not (tmp_path / "x").exists()


def test_server_that_is_gone_ends_the_command(folder, tmp_path, caplog):
    """The other cases are not tried one by one."""
    info = predict_pb2.PredictResponse()
    info.outputs["info_json_bytes"].CopyFrom(tf.make_tensor_proto(make_info().to_json()))
    gone = (grpc.StatusCode.UNAVAILABLE, "Socket closed")
    with canned_grpc(info, gone, is_ready=True) as (server, requests):
        command = ClientCommand(
            server, tmp_path / "masks", folder / "images", accept=CROP, in_flight=1
        )
        with pytest.raises(InputError, match="1 of 1 volumes failed: .* closed the connection"):
            command.run()
    assert len(requests) == 2
    assert (
        "the model is gone: 2 cases not begun; --resume continues with the same version"
        in caplog.text
    )


def test_masks_tell_the_version_of_a_label(folder, tmp_path):
    """The newest version has no label, and is not the one that answers."""
    models = shutil.copytree(folder / "models", tmp_path / "models")
    shutil.copytree(models / "1", models / "2")
    config = f"""model_config_list {{ config {{
        name: "fcnseg" base_path: "{models}" model_platform: "tensorflow"
        model_version_policy {{ specific {{ versions: 1 versions: 2 }} }}
        version_labels {{ key: "stable" value: 1 }} }} }}"""
    (tmp_path / "models.config").write_text(config)
    flags = {"allow_version_labels_for_unavailable_models": True}
    flags |= {"model_config_file": tmp_path / "models.config"}
    image = folder / "images/one.nii.gz"
    asked = (({"label": "stable"}, 1), ({}, 2), ({"version": 1}, 1))
    with running_server(None, **flags) as addresses:
        for server, (options, version) in itertools.product(addresses, asked):
            masks = tmp_path / f"masks {addresses.index(server)} {options}"
            ClientCommand(server, masks, image, accept=CROP, **options).run()
            made_with = json.loads((masks / "one.json").read_text())["made_with"]
            assert (made_with["version"], made_with.get("label")) == (version, options.get("label"))
            with SegmentationClient(server, **options) as client:
                assert client.wait_until_ready(0).version == version
        for server in addresses:
            command = ClientCommand(server, tmp_path / "m", image, label="none", accept=CROP)
            with pytest.raises(ServerError, match="not ready: .*Unrecognized servable version lab"):
                command.run()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"accept": ("nonsense",)}, "accept must be of .*, got .*nonsense"),
        ({"wait_s": -5.0}, "wait_s must be a number from 0 up, got -5"),
        ({"timeout_s": 0.0}, "timeout_s must be positive and at most 1000000, got 0.0"),
        ({"timeout_s": math.nan}, "timeout_s must be positive and at most 1000000, got nan"),
        ({"timeout_s": 1e30}, "timeout_s must be positive and at most 1000000, got 1e"),
        ({"ca_file": Path("absent")}, "ca_file goes with grpcs:// and https://, got 127.0.0.1:1"),
    ],
)
def test_flags_that_cannot_work_are_refused_before_anything_is_sent(
    folder, tmp_path, flags, message
):
    command = ClientCommand("127.0.0.1:1", tmp_path / "masks", folder / "images", **flags)
    with pytest.raises(InputError, match=message):
        command.run()


@pytest.mark.parametrize("transport", [0, 1], ids=["grpc", "rest"])
def test_masks_of_a_folder_are_of_one_version(folder, tmp_path, caplog, monkeypatch, transport):
    """A version that is published in the middle makes none of them."""
    models = shutil.copytree(folder / "models", tmp_path / "models")
    with running_server(models) as addresses:
        server, masks = addresses[transport], tmp_path / "masks"
        segment = SegmentationClient.segment

        def segment_and_publish(client, volume, **options):
            mask = segment(client, volume, **options)
            shutil.copytree(models / "1", models / ".tmp")
            (models / ".tmp").rename(models / "2")
            with SegmentationClient(server) as other:
                while [each.state for each in other.status()] != ["AVAILABLE", "END"]:
                    time.sleep(0.05)
            return mask

        monkeypatch.setattr(SegmentationClient, "segment", segment_and_publish)
        command = ClientCommand(server, masks, folder / "images", accept=CROP, in_flight=1)
        with pytest.raises(
            InputError, match=r"1 of 2 .* no model fcnseg version 1 .* the server has version 2$"
        ):
            command.run()
    assert "the model is gone: 1 cases not begun; --resume continues with the same" in caplog.text
    (made,) = masks.glob("*.json")
    assert json.loads(made.read_text())["made_with"]["version"] == 1


def test_no_server_is_said_before_anything_is_read_or_made(folder, tmp_path):
    command = ClientCommand(
        f"127.0.0.1:{free_port()}", tmp_path / "new/masks", folder / "images", accept=CROP
    )
    with pytest.raises(ServerError, match="is not ready: no server at"):
        command.run()
    assert not (tmp_path / "new").exists()


def test_user_and_certificates_go_to_the_client(tmp_path, monkeypatch):
    """Over TLS, nginx is the server of tests/test_nginx.py."""
    monkeypatch.setenv(PASSWORD_VARIABLE, "secret")
    seen = []

    def connect(server, **options):
        seen.append(options)
        raise InputError("seen")

    monkeypatch.setattr("serving.client.SegmentationClient", connect)
    write_volume(make_oblique_volume(), tmp_path / "ct.nii")
    command = ClientCommand(
        "https://h", tmp_path / "m", tmp_path / "ct.nii", user="me", ca_file=tmp_path / "ca.pem"
    )
    with pytest.raises(InputError, match="seen"):
        command.run()
    assert seen[0]["credentials"].headers == {"authorization": "Basic bWU6c2VjcmV0"}
    assert seen[0]["credentials"].ca_file == tmp_path / "ca.pem"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"in_flight": 0}, "in_flight must be 1 to 64, got 0"),
        ({"model_info": Path("i.json")}, "model_info goes with tiled"),
        ({"overwrite": True, "resume": True}, "overwrite and resume exclude each other"),
        ({"dicom_seg": True}, r"dicom_seg must be given for images of DICOM alone.*\(case "),
        ({"rtstruct": True}, r"rtstruct must be given for images of DICOM alone.*\(case "),
        ({"version": 1, "label": "new"}, "version and label exclude each other"),
        ({"version": -3}, "version must be from 0 to 9223372036854775807, got -3"),
        (
            {"version": 2**63},
            "version must be from 0 to 9223372036854775807, got 92233720368547758",
        ),
    ],
)
def test_flags_that_cannot_be_are_refused_before_anything_is_sent(folder, tmp_path, flags, message):
    with pytest.raises(InputError, match=message):
        ClientCommand("127.0.0.1:1", tmp_path / "m", folder / "images", **flags).run()
    assert not (tmp_path / "m").exists()


def test_image_that_cannot_be_a_ct_fails_with_the_way_out(servers, tmp_path):
    not_ct = (np.arange(20 * 40 * 40) % 781).astype(np.int16).reshape(20, 40, 40)
    write_volume(Volume(not_ct, np.diag([2.5, 2.5, 2.5, 1.0])), tmp_path / "ct.nii.gz")
    message = r"ct: values are 0 to 780.*\[missing_rescale\]; --accept missing_rescale lets"
    with pytest.raises(InputError, match=message):
        ClientCommand(servers[0], tmp_path / "m", tmp_path / "ct.nii.gz").run()
    assert "ct.nii.gz" not in names_in(tmp_path / "m")


def test_dicom_of_dicom(folder, servers, tmp_path):
    image, masks = folder / "images/three", tmp_path / "masks"
    ClientCommand(
        servers[0], masks, image, dicom_seg=True, rtstruct=True, accept=CROP, version=1
    ).run()
    mask = mask_of(masks / "three.nii.gz")
    with SegmentationClient(servers[0]) as client:
        np.testing.assert_array_equal(mask, client.segment(read_ct(image), accept=CROP))
    found = read_label(masks / "three.seg.dcm", like=read_geometry(image)).array
    np.testing.assert_array_equal(found, mask)
    (algorithm,) = (
        pydicom.dcmread(masks / "three.seg.dcm")
        .SegmentSequence[0]
        .SegmentationAlgorithmIdentificationSequence
    )
    assert '"model_name":"fcnseg"' in algorithm.AlgorithmParameters
    assert pydicom.dcmread(masks / "three.rtstruct.dcm").StructureSetROISequence


def test_the_command_needs_no_tensorflow(tmp_path):
    """Failing where importing TensorFlow or Keras is an error."""
    write_volume(make_oblique_volume((4, 5, 6)), tmp_path / "ct.nii.gz")
    script = """
import sys
sys.modules["tensorflow"] = sys.modules["keras"] = sys.modules["apache_beam"] = None
from serving.client import main
main()
"""
    flags = ["--server", f"127.0.0.1:{free_port()}", "--images", tmp_path / "ct.nii.gz"]
    flags += ["--output", tmp_path / "masks"]
    done = subprocess.run(
        [sys.executable, "-c", script, *flags], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: model fcnseg at 127.0.0.1:")
    assert not (tmp_path / "masks").exists()
