"""Networks and checkpoints of earlier versions still load.

`earlier_run/` is a run of version 0.1.0 that was stopped after its sixth step, with what its
network answered then.
"""

from __future__ import annotations

import json
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from small_models import write_run
from small_records import write_small_dataset

import fcnseg.networks.layers  # noqa: F401  registers the layers that a saved network is made of
from fcnseg.config import read_config
from fcnseg.config.renamed import RENAMED
from fcnseg.evaluation import Evaluation, OrganScores
from fcnseg.networks.keras_compat import IS_KERAS_3
from fcnseg.records import read_dataset_info
from fcnseg.runs import ModelInfo, read_run
from fcnseg.runs.run_folder import MANIFEST_FILE
from fcnseg.training.assembly import build_model, make_average
from fcnseg.training.checkpoints import Checkpoints
from fcnseg.training.compiled_model import state_of

EARLIER = Path(__file__).parent / "earlier_run"
only_keras_3 = pytest.mark.skipif(
    not IS_KERAS_3, reason="Keras 3 wrote it; tests/test_two_lines.py reads a run of another line"
)


@only_keras_3
def test_an_earlier_network_gives_the_same_logits():
    network = keras.models.load_model(EARLIER / "best.keras", compile=False)
    with np.load(EARLIER / "logits.npz") as then:
        logits = network(then["hu"], training=False).numpy()
        np.testing.assert_allclose(logits, then["logits"], rtol=1e-3, atol=1e-4)


def test_earlier_facts_of_a_network_are_read():
    assert ModelInfo.read(EARLIER).class_names == ("background", "liver", "spleen")


def test_earlier_names_in_an_evaluation_are_read():
    evaluation = Evaluation(("liver",), {"case": {"liver": OrganScores(reference_ml=7.0)}})
    text = evaluation.to_json()
    assert '"reference_ml": 7.0' in text
    assert Evaluation.from_json(text.replace("reference_ml", "truth_ml")) == evaluation


def test_an_earlier_name_in_the_manifest_of_a_run_is_read(tmp_path):
    run = write_run(tmp_path / "run")
    manifest = read_run(run)
    text = (run / MANIFEST_FILE).read_text()
    assert '"data_digest"' in text
    (run / MANIFEST_FILE).write_text(text.replace('"data_digest"', '"data_fingerprint"'))
    assert read_run(run) == manifest


@only_keras_3
def test_an_earlier_checkpoint_is_restored(tmp_path):
    with pytest.warns(FutureWarning) as warned:
        config = read_config(EARLIER / "config.yaml")
    assert {str(warning.message) for warning in warned} == {
        f"{section}.{old} is {section}.{new} now"
        for section, names in RENAMED.items()
        for old, new in names.items()
    }
    assert config.training.ema_decay == 0.9
    assert config.loss.batch_dice
    info = read_dataset_info(write_small_dataset(tmp_path / "data"))
    model = build_model(config, info)
    average = make_average(config, model)
    with np.load(EARLIER / "checkpoint.npz", allow_pickle=False) as arrays:
        identity = json.loads(arrays["progress"].item())["identity"]
        saved = [arrays[name] for name in arrays.files if name != "progress"]
    variables = [*state_of(model), *average.averages]
    checkpoints = Checkpoints(
        EARLIER / "checkpoint.npz", variables, model.distribute_strategy, identity
    )
    progress = checkpoints.restore()
    assert (progress.step, len(progress.epochs)) == (6, 1)
    assert len(variables) == len(saved)
    for variable, array in zip(variables, saved, strict=True):
        assert np.array_equal(tf.convert_to_tensor(variable).numpy(), array)
