"""What is published, that it gives in the server's runtime what the run gives, and what is not."""

from __future__ import annotations

import dataclasses
import functools
import json
import logging
import math
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import tensorflow as tf
from small_models import (
    AFFINE,
    CLASSES,
    CONFIG,
    CROP,
    make_hu,
    make_info,
    make_network,
    write_run,
)
from tensorflow_serving.apis import prediction_log_pb2

from fcnseg.config import ModelConfig
from fcnseg.errors import InputError, MissingExtraError, ModelError
from fcnseg.figures.palette import organ_rgb
from fcnseg.inference import load_run, load_runs, make_segmenter
from fcnseg.runs import Run
from fcnseg.runs.model_info import ModelInfo
from fcnseg.saved_model.export import export_run, export_segmenter
from fcnseg.saved_model.model_card import INTENDED_USE
from fcnseg.saved_model.options import ExportOptions
from fcnseg.saved_model.self_check import check_saved_model
from fcnseg.saved_model.session import DEFAULT_SIGNATURE, SavedModelSession, StatusError
from fcnseg.saved_model.signatures import (
    MODEL_INFO,
    SEGMENT_NIFTI,
    SEGMENT_VOLUME,
    ServedModel,
)
from serving.export import ExportCommand

RIGHT = np.full(3, 2, np.float32)


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("export") / "run")


@pytest.fixture(scope="module")
def exported(run_dir):
    """A version of a model after another one, and the messages that its export logged."""
    model_dir, messages = run_dir.parent / "models", []
    (model_dir / "6").mkdir(parents=True)
    (model_dir / "notes").mkdir()
    handler, root = logging.Handler(logging.INFO), logging.getLogger()
    handler.emit = lambda record: messages.append(record.getMessage())
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    logging.getLogger("tensorflow").setLevel(logging.NOTSET)
    ExportCommand((run_dir,), model_dir).run()
    root.setLevel(level)
    root.removeHandler(handler)
    return model_dir / "7", messages


@pytest.fixture(scope="module")
def version(exported):
    return exported[0]


@pytest.fixture(scope="module")
def session(version):
    return SavedModelSession(version)


@pytest.mark.slow
def test_saved_model_cli_shows_and_runs_a_version(version, run_dir, tmp_path):
    """TensorFlow's own command, which needs nothing of fcnseg."""
    tool = [sys.executable, "-m", "tensorflow.python.tools.saved_model_cli"]
    place = ["--dir", version, "--tag_set", "serve"]
    subprocess.run([*tool, "show", *place, "--all"], check=True)
    patches = tmp_path / "patches.npy"
    np.save(patches, np.zeros((1, *load_run(run_dir)[1].window, 1), np.float32))
    inputs = ["--signature_def", "serving_default", "--inputs", f"patches={patches}"]
    inputs += ["--outdir", str(tmp_path)]
    subprocess.run([*tool, "run", *place, *inputs], check=True)
    probabilities = np.load(tmp_path / "probabilities.npy")
    np.testing.assert_allclose(probabilities.sum(axis=-1), 1, atol=1e-5)


def test_signatures_are_those_of_the_serving_api(session):
    listed = {
        name: (sorted(signature.inputs), sorted(signature.outputs))
        for name, signature in session.signatures.items()
        if not name.startswith("__")
    }
    assert listed == {
        "serving_default": (["patches"], ["probabilities"]),
        "segment_volume": (["spacing", "volume"], ["labels", "voxel_counts"]),
        "segment_nifti": (["nifti_bytes"], ["labels_nifti_bytes", "voxel_counts"]),
        "model_info": (["unused"], ["info_json_bytes"]),
    }


def test_served_model_gives_what_the_run_gives(session, run_dir):
    segmenter = make_segmenter(*load_run(run_dir))
    volume, spacing = make_hu((30, 31, 21)), np.array((1.5, 2.5, 3.0), np.float32)
    outputs = session.run(SEGMENT_VOLUME, {"volume": volume, "spacing": spacing})
    for name, value in segmenter.segment_volume(volume, spacing).items():
        assert outputs[name].dtype == value.dtype.as_numpy_dtype
        np.testing.assert_array_equal(outputs[name], value)
    patches = make_hu((2, 8, 12, 10)).astype(np.float32)[..., None]
    probabilities = session.run(DEFAULT_SIGNATURE, {"patches": patches})["probabilities"]
    expected = segmenter.predict_patches(patches)["probabilities"]
    np.testing.assert_allclose(probabilities, expected, atol=1e-6)


@pytest.fixture(scope="module")
def exported_info(run_dir):
    return make_info(networks_sha256=(Run.open(run_dir).network_digest(),), precision="float32")


def test_a_model_that_takes_no_scan_is_refused_in_a_sentence(run_dir, tmp_path):
    info = dataclasses.replace(make_info(), max_voxels=1000)
    segmenter = make_segmenter(make_network(), info)
    message = "but segment_nifti refuses it: .*at most 1000 voxels, .*; raise inference.max_voxels"
    with pytest.raises(ModelError, match=message):
        export_segmenter(segmenter, tmp_path / "models")
    assert not any((tmp_path / "models").iterdir())


def test_model_tells_its_info(session, exported_info):
    outputs = session.run(MODEL_INFO, {"unused": np.zeros((), np.int32)})
    assert ModelInfo.from_json(outputs["info_json_bytes"].item()) == exported_info


PATCH = make_hu((8, 12, 10)).astype(np.float32)[None, ..., None]
VOLUME = make_hu((5, 6, 7))
# Each input in turn, and the rule and the shape that the error must name. Without the checks, those
# of fewer than four axes end the process.
AXES = "patches must have five axes (batch, z, y, x, 1) of at least one voxel, got shape "
FIT = "patches must be (2, 2, 2) voxels (z, y, x) or more in steps of (2, 2, 2), got shape "
FINITE = "patches must be finite HU, got NaN or infinity in patches of shape [1 8 12 10 1]"
THREE_AXES = "volume must have three axes (z, y, x) of at least one voxel, got shape "
LENGTHS = "spacing must be three positive numbers in mm, 0.01 to 100, got "
BAD_PATCHES = [
    *((PATCH[(0,) * n], AXES + str(list(PATCH.shape[n:])).replace(",", "")) for n in range(1, 6)),
    (PATCH[None], AXES + "[1 1 8 12 10 1]"),
    (np.repeat(PATCH, 2, axis=-1), AXES + "[1 8 12 10 2]"),
    (PATCH[..., :0], AXES + "[1 8 12 10 0]"),
    (PATCH[:0], AXES + "[0 8 12 10 1]"),
    (PATCH[:, :0], AXES + "[1 0 12 10 1]"),
    (PATCH[:, :7], FIT + "[1 7 12 10 1]"),
    (PATCH[:, :1, :1, :1], FIT + "[1 1 1 1 1]"),
    (np.repeat(PATCH, 17, axis=0), "at most 15360 voxels in all, got shape [17 8 12 10 1]"),
    (np.where(PATCH < 0, np.nan, PATCH), FINITE),
    (np.where(PATCH < 0, np.inf, PATCH), FINITE),
]
BAD_VOLUMES = [
    (VOLUME[0, 0, 0], THREE_AXES + "[]"),
    (VOLUME[0, 0], THREE_AXES + "[7]"),
    (VOLUME[0], THREE_AXES + "[6 7]"),
    (VOLUME[None], THREE_AXES + "[1 5 6 7]"),
    (VOLUME[:, :0], THREE_AXES + "[5 0 7]"),
    (make_hu((99, 99, 99)), "volume must have at most 100000 voxels, got shape [99 99 99]"),
    (make_hu((1, 5000, 1)), "volume must have at most 4096 voxels along each axis, got shape [1 5"),
]
BAD_SPACINGS = [
    (RIGHT[0], LENGTHS + "[2] of shape []"),
    (RIGHT[:2], LENGTHS + "[2 2] of shape [2]"),
    (RIGHT[None], LENGTHS + "[2 2 2] of shape [1 3]"),
    (0 * RIGHT, LENGTHS + "[0 0 0] of shape [3]"),
    (-RIGHT, LENGTHS + "[-2 -2 -2] of shape [3]"),
    (np.nan * RIGHT, LENGTHS + "[nan nan nan] of shape [3]"),
    (np.inf * RIGHT, LENGTHS + "[inf inf inf] of shape [3]"),
    (RIGHT / 1000, LENGTHS + "[0.002 0.002 0.002] of shape [3]"),
    (RIGHT * 1e37, LENGTHS + "[2e+37 2e+37 2e+37] of shape [3]"),
    (RIGHT * 50, "at most 100000 voxels at the spacing of the model, got shape [250 300 350]"),
]

BAD_INPUTS = [
    *((DEFAULT_SIGNATURE, {"patches": value}, message) for value, message in BAD_PATCHES),
    *((SEGMENT_VOLUME, {"volume": value}, message) for value, message in BAD_VOLUMES),
    *((SEGMENT_VOLUME, {"spacing": value}, message) for value, message in BAD_SPACINGS),
]


@pytest.mark.parametrize(("signature", "bad", "message"), BAD_INPUTS)
def test_served_model_refuses_a_bad_input_by_rule_and_shape(session, signature, bad, message):
    good = {"volume": VOLUME, "spacing": RIGHT} if signature == SEGMENT_VOLUME else {}
    with pytest.raises(StatusError) as caught:
        session.run(signature, {**good, **bad})
    assert caught.value.code == "INVALID_ARGUMENT"
    assert message in caught.value.message


def test_long_axis_at_the_spacing_of_the_model_is_refused(session):
    thin = {"volume": make_hu((4000, 1, 1)), "spacing": RIGHT * np.float32((10, 1, 1))}
    with pytest.raises(StatusError, match=r"along each axis at the spacing .* \[40000 1 1\]"):
        session.run(SEGMENT_VOLUME, thin)


@pytest.mark.slow
def test_no_tensor_ends_the_servers_process(version):
    """Of any rank, size and type, for any signature: an answer, or a refusal of the request."""
    count, seed = 1000, 1
    script = Path(__file__).with_name("raw_requests.py")
    done = subprocess.run(
        [sys.executable, script, version, str(count), str(seed)],
        capture_output=True,
        text=True,
        check=False,
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, f"{lines[-1:]} ended the process: {done.stderr[-2000:]}"
    sent, replies = lines[::2], lines[1::2]
    assert len(replies) == count
    codes = {
        name: {
            reply["code"]
            for each, reply in zip(sent, replies, strict=True)
            if each["signature"] == name
        }
        for name in (DEFAULT_SIGNATURE, SEGMENT_VOLUME, SEGMENT_NIFTI, MODEL_INFO)
    }
    assert all(each == {"OK", "InvalidArgumentError"} for each in codes.values()), codes


def export_only(names, monkeypatch):
    """Makes exports have, and check, some of the signatures: it takes a part of the time."""
    write = functools.partialmethod(ServedModel.write, names=names)
    check = functools.partial(check_saved_model, names=names)
    monkeypatch.setattr(ServedModel, "write", write)
    monkeypatch.setattr("fcnseg.saved_model.export.check_saved_model", check)


@pytest.mark.slow
def test_network_without_padding_is_exported(tmp_path, monkeypatch):
    """The check before publication compares it, so that it is published is the proof."""
    export_only((DEFAULT_SIGNATURE, SEGMENT_VOLUME), monkeypatch)
    model = ModelConfig(filters=(4, 8), padding="valid")
    network = make_network(dataclasses.replace(CONFIG, model=model))
    info = make_info(window=(20, 24, 22), overlap=(1, 3, 0))
    assert export_segmenter(make_segmenter(network, info), tmp_path) == tmp_path / "1"


def test_each_export_is_the_next_version(exported):
    version, messages = exported
    limit, published = messages  # TensorFlow logs nothing
    assert limit.startswith("volumes have at most 100000 voxels; memory of a request: at most 0.8 ")
    assert published == f"published {version}"
    assert (version / "saved_model.pb").is_file()
    assert {child.name for child in version.parent.iterdir()} == {"6", "7", "notes"}


def test_model_that_gives_something_else_is_not_published(tmp_path, monkeypatch):
    """A network whose weights change while it is exported stands for any export gone wrong."""
    network = make_network()
    segmenter = make_segmenter(network, make_info())
    export_only((DEFAULT_SIGNATURE,), monkeypatch)
    write = ServedModel.write

    def write_and_change(*arguments):
        write(*arguments)
        network.set_weights(make_network(seed=1).get_weights())

    monkeypatch.setattr(ServedModel, "write", write_and_change)
    with pytest.raises(ModelError, match="gives another serving_default: probabilities"):
        export_segmenter(segmenter, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_model_that_fails_in_the_servers_runtime_is_not_published(tmp_path, monkeypatch):
    segmenter = make_segmenter(make_network(), make_info())
    export_only((DEFAULT_SIGNATURE,), monkeypatch)
    write = ServedModel.write

    def write_half(model, directory):
        write(model, directory)
        (directory / "variables" / "variables.index").unlink()

    monkeypatch.setattr(ServedModel, "write", write_half)
    with pytest.raises(ModelError, match="fails in the server's runtime"):
        export_segmenter(segmenter, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_warm_up_is_of_one_window_and_runs(session, version):
    """Read as TensorFlow Serving reads it, and replayed."""
    path = version / "assets.extra" / "tf_serving_warmup_requests"
    replayed = {}
    for record in tf.data.TFRecordDataset(str(path)):
        log = prediction_log_pb2.PredictionLog.FromString(record.numpy())
        request = log.predict_log.request
        inputs = {name: tf.make_ndarray(value) for name, value in request.inputs.items()}
        name = request.model_spec.signature_name
        replayed[name] = session.run(name, inputs)
    assert set(replayed) == {DEFAULT_SIGNATURE, SEGMENT_VOLUME, SEGMENT_NIFTI}
    assert replayed[DEFAULT_SIGNATURE]["probabilities"].shape == (1, 8, 12, 10, 3)
    assert replayed[SEGMENT_VOLUME]["labels"].shape == (8, 12, 10)


def test_files_beside_the_model_tell_its_classes_and_origin(version, run_dir, exported_info):
    folder = version / "assets.extra"
    classes = json.loads((folder / "classes.json").read_text())
    assert [(each["index"], each["name"]) for each in classes] == list(enumerate(CLASSES))
    assert classes[1]["rgb"] == list(organ_rgb(1))
    assert ModelInfo.from_json((folder / "model_info.json").read_text()) == exported_info
    assert '"liver"' in (folder / "organs.label").read_text()
    assert "1 liver" in (folder / "organs.ctbl").read_text()
    card = json.loads((folder / "model_card.json").read_text())
    (network,) = card["networks"]
    assert network["network_sha256"] == Run.open(run_dir).network_digest()
    assert network["validation_dice"] == 0.5
    assert network["organ_dice"] == {"liver": 0.625}
    assert card["intended_use"] == INTENDED_USE
    page = (folder / "model_card.md").read_text()
    for expected in (
        INTENDED_USE,
        "| 2 | spleen |",
        "| liver | 0.6250 |",
        "| spleen | none |",
        network["network_sha256"][:12],
        "0.500",
    ):
        assert expected in page


@pytest.mark.parametrize("content", ["", "loss\n0.5\n", "epoch,val_dice_liver\n1,high\n"])
def test_scores_of_a_broken_history_are_refused(tmp_path, content):
    run = write_run(tmp_path / "run")
    (run / "history.csv").write_text(content)
    with pytest.raises(InputError, match=r"incomplete or corrupt history: .*history\.csv: "):
        Run.open(run).organ_dice()


@pytest.mark.slow
def test_options_of_an_export(tmp_path, run_dir):
    """The check before publication compares each signature, so here is what they are."""
    other = write_run(tmp_path / "other", seed=1)
    models = tmp_path / "models"
    (models / "5").mkdir(parents=True)
    ExportCommand(
        (run_dir, other),
        models,
        precision="bfloat16",
        overlap=(1, 2, 3),
        flips=("x",),
        accept=CROP,
        keep=1,
        intended_use="Counting voxels.",
    ).run()
    assert [child.name for child in models.iterdir()] == ["6"]
    session = SavedModelSession(models / "6")
    info = session.run(MODEL_INFO, {"unused": np.zeros((), np.int32)})["info_json_bytes"].item()
    info = ModelInfo.from_json(info)
    assert (info.overlap, info.flips, info.precision) == (
        (1, 2, 3),
        ("x",),
        "float32, mixed_bfloat16",
    )
    assert info.networks_sha256 == tuple(Run.open(run).network_digest() for run in (run_dir, other))
    networks, _ = load_runs([run_dir, other])
    exact = make_segmenter(networks, make_info(overlap=(1, 2, 3)), flips=("x",))
    patches = {"patches": make_hu((2, 8, 12, 10)).astype(np.float32)[..., None]}
    served = session.run(DEFAULT_SIGNATURE, patches)["probabilities"]
    expected = exact.predict_patches(**patches)["probabilities"].numpy()
    assert served.dtype == np.float32
    assert 0 < np.abs(served - expected).max() < 0.05  # the last digits of bfloat16
    card = json.loads((models / "6" / "assets.extra" / "model_card.json").read_text())
    assert len(card["networks"]) == 2
    assert card["intended_use"] == "Counting voxels."
    assert card["settings"]["flips averaged"] == "x"
    assert card["settings"]["memory of a request"].endswith(" GiB, reckoned")
    small = nib.Nifti1Image(make_hu((9, 7, 6)), AFFINE)  # a crop, which is accepted
    small.set_sform(AFFINE, code=1)
    nifti = {"nifti_bytes": np.array(small.to_bytes(), object)}
    labels = session.run(SEGMENT_NIFTI, nifti)["labels_nifti_bytes"].item()
    assert nib.Nifti1Image.from_bytes(labels).shape == (9, 7, 6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"flips": ("x", "x")}, "flips must name each axis once, got x x"),
        ({"max_memory_gib": 0.0}, "max_memory_gib must be positive and finite, got 0.0"),
        ({"max_memory_gib": math.inf}, "max_memory_gib must be positive and finite, got inf"),
        ({"keep": 0}, "keep must be 1 or more, got 0"),
        ({"accept": ("noise",)}, "accept must be of .*, got noise"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        ExportOptions(**options)


def test_overlap_of_a_window_is_refused(tmp_path, run_dir):
    with pytest.raises(ModelError, match="overlap must be smaller"):
        export_run(run_dir, tmp_path, options=ExportOptions(overlap=(8, 12, 10)))


def test_the_extra_of_warm_up_requests_is_asked_for_before_work_begins(
    run_dir, tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, "tensorflow_serving", None)
    with pytest.raises(MissingExtraError, match="tensorflow_serving .* fcnseg's extra serving, "):
        export_run(run_dir, tmp_path / "models")
    assert not (tmp_path / "models").exists()
    assert list(tmp_path.iterdir()) == []


def test_unfinished_run_is_refused(tmp_path):
    run_dir = write_run(tmp_path / "run", finished=False)
    with pytest.raises(InputError, match=f"{run_dir} is not a finished run"):
        export_run(run_dir, tmp_path / "models")
    assert not (tmp_path / "models").exists()
