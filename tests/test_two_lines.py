"""Records, configurations, networks and SavedModels of one line of TensorFlow serve the other."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from running_server import running_server
from small_models import CONFIG, CROP, make_oblique_volume

from fcnseg.client import SegmentationClient
from fcnseg.config import override, read_config
from fcnseg.errors import InputError
from fcnseg.inference import load_run
from fcnseg.networks.keras_compat import IS_KERAS_3, LINE
from fcnseg.records import Dataset
from fcnseg.runs.run_folder import CONFIG_FILE
from fcnseg.saved_model.session import DEFAULT_SIGNATURE, SavedModelSession
from fcnseg.saved_model.signatures import MODEL_INFO
from fcnseg.training import train

ROOT = Path(__file__).parent.parent
OTHER = Path(os.environ.get("FCNSEG_OTHER_PYTHON", ROOT / "absent"))
if not OTHER.exists():
    OTHER = ROOT / (".venv-addons" if IS_KERAS_3 else ".venv") / "bin" / "python"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def other(tmp_path_factory) -> Path:
    """What the other line has written."""
    if not OTHER.exists():
        pytest.skip(f"no environment of the other line: {OTHER} (make setup, make test-addons)")
    folder = tmp_path_factory.mktemp("other")
    environment = {"PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "2"}
    subprocess.run(
        [OTHER, ROOT / "tests" / "other_line.py", folder],
        check=True,
        env={**os.environ, **environment},
    )
    return folder


@pytest.mark.parametrize("name", ["run", "trained"])
def test_network_of_the_other_line_gives_the_same_logits(other, name):
    network, _ = load_run(other / name)
    with np.load(other / "outputs.npz") as then:
        np.testing.assert_allclose(network(then["hu"]).numpy(), then[name], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["run", "trained"])
def test_weights_file_of_the_other_line_gives_the_same_logits(other, name):
    network, _ = load_run(other / name)
    network.set_weights([np.zeros_like(each) for each in network.get_weights()])
    network.load_weights(other / f"{name}.weights.h5")
    with np.load(other / "outputs.npz") as then:
        np.testing.assert_allclose(network(then["hu"]).numpy(), then[name], atol=1e-4, rtol=1e-4)


def test_configuration_of_the_other_line_is_read(other):
    assert read_config(other / "run" / CONFIG_FILE) == CONFIG


def test_saved_model_of_the_other_line_runs_as_in_a_server(other):
    session = SavedModelSession(other / "models" / "1")
    with np.load(other / "outputs.npz") as then:
        outputs = session.run(DEFAULT_SIGNATURE, {"patches": then["hu"]})
        expected = tf.nn.softmax(then["run"]).numpy()
        np.testing.assert_allclose(outputs["probabilities"], expected, atol=1e-5)
    assert (
        b"spleen"
        in session.run(MODEL_INFO, {"unused": np.zeros((), np.int32)})["info_json_bytes"].item()
    )


def test_server_of_this_line_gives_the_mask_of_the_other(other):
    """Signatures with int16 and with the bytes of a NIfTI file: REST takes the latter."""
    with np.load(other / "outputs.npz") as then:
        expected = then["mask"]
    with running_server(other / "models") as addresses:
        for address in addresses:
            with SegmentationClient(address) as client:
                mask = client.segment(make_oblique_volume(), accept=CROP)
            assert (mask == expected).mean() > 0.999  # a voxel may be on the border of two classes


def test_training_begins_with_records_and_weights_of_the_other_line(other, tmp_path):
    records = Dataset.open(other / "records")
    config = read_config(other / "trained" / CONFIG_FILE)
    result = train(config, records, tmp_path / "run", init_from=other / "trained")
    assert np.isfinite(result.history["loss"]).all()


def test_run_of_the_other_line_does_not_resume_here(other):
    config = read_config(other / "trained" / CONFIG_FILE)
    longer = override(config, {"training.epochs": 2})
    with pytest.raises(InputError, match=rf"keras was {5 - LINE}, got {LINE}"):
        train(longer, other / "records", other / "trained", resume=True)
