"""The validation loss is that of training, on patches that stay the same."""

from __future__ import annotations

import numpy as np
import pytest
from small_records import write_small_dataset
from small_runs import make_config

from fcnseg.config import ModelConfig, override
from fcnseg.losses import build_loss
from fcnseg.records import Dataset
from fcnseg.sampling import make_training_dataset
from fcnseg.training import train
from fcnseg.training.assembly import build_model
from fcnseg.training.validation_loss import ValidationLoss, make_validation_loss

CONFIG = make_config(ModelConfig(filters=(4, 8)), epochs=1, steps_per_epoch=2)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return Dataset.open(write_small_dataset(tmp_path_factory.mktemp("data") / "records"))


def test_it_is_the_mean_of_the_loss_over_patches(dataset):
    config = override(CONFIG, {"model.deep_supervision": 0, "model.l2": 0})
    model = build_model(config, dataset.info)
    patches = make_training_dataset(dataset, config.patches, seed=3, split="validation").take(3)
    loss = build_loss(config.loss)
    expected = [float(loss(label, model(hu, training=False))) for hu, label, _ in patches]
    assert len(expected) == 3
    assert ValidationLoss(model, patches)() == pytest.approx(np.mean(expected), rel=1e-5)


def test_patches_are_those_of_validation_and_stay_the_same(dataset):
    model = build_model(CONFIG, dataset.info)
    loss = make_validation_loss(model, CONFIG, dataset, fold=None)
    first = loss()
    assert loss() == first
    for weight in model.trainable_weights:
        weight.assign(weight + 0.1)
    assert loss() != first
    other = override(CONFIG, {"training.seed": 7, "augmentation.noise_hu": 30.0})
    model = build_model(CONFIG, dataset.info)
    assert make_validation_loss(model, other, dataset, fold=None)() == pytest.approx(
        first, rel=1e-5
    )


def test_history_has_it_where_a_run_validates(dataset, tmp_path):
    changes = {"training.epochs": 3, "training.validate_every": 2}
    result = train(override(CONFIG, changes), dataset, tmp_path / "run")
    assert len(result.history["val_loss"]) == len(result.history["val_dice"]) == 2
    header, *rows = (tmp_path / "run" / "history.csv").read_text().splitlines()
    column = header.split(",").index("val_loss")
    assert [bool(row.split(",")[column]) for row in rows] == [False, True, True]
