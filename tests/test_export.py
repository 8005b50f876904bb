"""What is published, that it gives in the server's runtime what the run gives, and what is not."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from small_models import (
    CONFIG,
    make_hu,
    make_info,
    make_network,
    write_run,
)

from fcnseg import export
from fcnseg.config import ModelConfig
from fcnseg.errors import InputError, ModelError
from fcnseg.export import MODEL_INFO, SEGMENT_VOLUME, export_run, export_segmenter
from fcnseg.inference import load_run, make_segmenter
from fcnseg.model_info import ModelInfo
from fcnseg.saved_model import DEFAULT_SIGNATURE, SavedModelSession, StatusError
from serving.export import ExportCommand

RIGHT = np.full(3, 2, np.float32)


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("export") / "run")


@pytest.fixture(scope="module")
def model_dir(run_dir):
    folder = run_dir.parent / "models"
    export_run(run_dir, folder)
    return folder


@pytest.fixture(scope="module")
def session(model_dir):
    return SavedModelSession(model_dir / "1")


def test_signatures_are_those_of_the_serving_api(session):
    told = {
        name: (sorted(signature.inputs), sorted(signature.outputs))
        for name, signature in session.signatures.items()
        if not name.startswith("__")
    }
    assert told == {
        "serving_default": (["patches"], ["probabilities"]),
        "segment_volume": (["spacing", "volume"], ["labels", "voxel_counts"]),
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


def test_model_tells_its_info(session):
    outputs = session.run(MODEL_INFO, {"unused": np.zeros((), np.int32)})
    assert ModelInfo.from_json(outputs["info_json_bytes"].item()) == make_info()


@pytest.mark.parametrize(
    ("volume", "spacing", "message"),
    [
        (make_hu((5, 6)), RIGHT, r"volume must have three axes (z, y, x) .* got shape [5 6]"),
        (make_hu((1, 5, 6, 7)), RIGHT, r"volume must have three axes .* got shape [1 5 6 7]"),
        (make_hu((5, 6, 7)), RIGHT[:2], "spacing must be three positive numbers .* got [2 2]"),
        (make_hu((5, 6, 7)), 0 * RIGHT, "spacing must be three positive numbers .* got [0 0 0]"),
        (make_hu((99, 99, 99)), RIGHT, "volume must have at most 100000 voxels, got shape [99"),
    ],
    ids=["two axes", "four axes", "two lengths", "zero", "large"],
)
def test_served_model_refuses_a_bad_request_by_name_and_value(session, volume, spacing, message):
    with pytest.raises(StatusError) as caught:
        session.run(SEGMENT_VOLUME, {"volume": volume, "spacing": spacing})
    assert caught.value.code == "INVALID_ARGUMENT"
    for part in message.split(" .* "):
        assert part in caught.value.message


@pytest.mark.slow
def test_network_without_padding_is_exported(tmp_path):
    """The check before publication compares it, so that it is published is the proof."""
    model = ModelConfig(filters=(4, 8), padding="valid")
    network = make_network(dataclasses.replace(CONFIG, model=model))
    info = make_info(window=(20, 24, 22), overlap=(1, 3, 0))
    assert export_segmenter(make_segmenter(network, info), tmp_path) == tmp_path / "1"


def test_each_export_is_the_next_version(model_dir, run_dir):
    (model_dir / "6").mkdir()
    (model_dir / "notes").mkdir()
    ExportCommand(run_dir, model_dir).run()
    assert (model_dir / "7" / "saved_model.pb").is_file()
    assert {child.name for child in model_dir.iterdir()} == {"1", "6", "7", "notes"}


def test_model_that_gives_something_else_is_not_published(tmp_path, monkeypatch):
    """A network whose weights change while it is exported stands for any export gone wrong."""
    network = make_network()
    segmenter = make_segmenter(network, make_info())
    write = export.write_saved_model

    def write_and_change(*arguments):
        write(*arguments)
        network.set_weights(make_network(seed=1).get_weights())

    monkeypatch.setattr(export, "write_saved_model", write_and_change)
    with pytest.raises(ModelError, match="gives another serving_default: probabilities"):
        export_segmenter(segmenter, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_model_that_fails_in_the_servers_runtime_is_not_published(tmp_path, monkeypatch):
    segmenter = make_segmenter(make_network(), make_info())
    write = export.write_saved_model

    def write_half(segmenter, directory):
        write(segmenter, directory)
        (directory / "variables" / "variables.index").unlink()

    monkeypatch.setattr(export, "write_saved_model", write_half)
    with pytest.raises(ModelError, match="fails in the server's runtime"):
        export_segmenter(segmenter, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_unfinished_run_is_refused(tmp_path):
    run_dir = write_run(tmp_path / "run", finished=False)
    with pytest.raises(InputError, match=f"{run_dir} is not a finished run"):
        export_run(run_dir, tmp_path / "models")
    assert not (tmp_path / "models").exists()
