"""Steps of several smaller batches."""

from __future__ import annotations

import numpy as np
import pytest
from test_training import AUGMENTED_IN_THE_STEP, CONFIG, history_rows, train_on_two_devices

from fcnseg.config import override
from fcnseg.errors import ConfigError
from fcnseg.inference import load_run
from fcnseg.training import setting_checks, train

# A loss that is a mean over samples, and a norm that looks at each alone. Adam would make much of
# the last digits of gradients near 0.
PER_SAMPLE = {
    "model.norm": "instance",
    "loss.name": "dice_cross_entropy",
    "loss.batch_dice": False,
    "loss.class_balance": 0.0,  # its frequencies are of a part
    "training.optimizer": "sgd",
    "training.epochs": 2,
    "training.steps_per_epoch": 3,
    "training.tensorboard": False,
}


def in_parts(settings, count, *, patches=8):
    """The same patches a step, at once or in parts."""
    parts = {"patches.batch_size": patches // count, "training.accumulate_steps": count}
    return override(CONFIG, {**PER_SAMPLE, **settings, **parts})


@pytest.fixture(scope="module")
def whole(dataset, tmp_path_factory):
    """A run whose steps are of eight patches at once."""
    return train(in_parts({}, 1), dataset, tmp_path_factory.mktemp("whole") / "run")


@pytest.fixture(scope="module")
def halves(dataset, tmp_path_factory):
    """The same in two parts."""
    return train(in_parts({}, 2), dataset, tmp_path_factory.mktemp("halves") / "run")


def assert_trained_alike(run, other):
    for name in ("loss", "dice", "val_dice"):
        values = run.history[name], other.history[name]
        np.testing.assert_allclose(*values, rtol=0, atol=1e-6 if name == "loss" else 1e-3)
    weights = [load_run(each.run_dir)[0].get_weights() for each in (run, other)]
    for one, another in zip(*weights, strict=True):
        np.testing.assert_allclose(another, one, rtol=0, atol=1e-5)


@pytest.mark.slow
def test_parts_train_like_the_whole(whole, halves):
    assert_trained_alike(whole, halves)


@pytest.mark.slow
def test_more_parts_train_like_the_whole_whatever_is_in_the_step(dataset, tmp_path):
    """Losses at two levels, and of the weights; augmentation; and a limit to the gradient."""
    supervised = {"model.filters": [4, 8, 8], "model.deep_supervision": 1, "model.l2": 1e-3}
    settings = {**supervised, **AUGMENTED_IN_THE_STEP, "training.clip_norm": 0.1}
    runs = [
        train(in_parts(settings, count, patches=6), dataset, tmp_path / str(count))
        for count in (1, 3)
    ]
    assert_trained_alike(*runs)


@pytest.mark.slow
@pytest.mark.timeout(900)  # a whole run in a process of its own
def test_parts_on_two_devices_train_like_the_whole_on_one(whole, dataset, tmp_path):
    config = override(in_parts({}, 2), {"patches.batch_size": 2})
    train_on_two_devices({tmp_path / "run": (["2"], config)}, dataset)
    losses = [float(row["loss"]) for row in history_rows(tmp_path / "run")]
    np.testing.assert_allclose(losses, whole.history["loss"], rtol=0, atol=1e-6)


@pytest.mark.slow
def test_compiled_steps_give_the_same(halves, dataset, tmp_path):
    """In parts."""
    run = train(in_parts({"training.jit_compile": True}, 2), dataset, tmp_path / "run")
    np.testing.assert_allclose(run.history["loss"], halves.history["loss"], rtol=0, atol=1e-5)


def test_compiled_steps_on_several_devices_are_refused(dataset, tmp_path, monkeypatch):
    names = ["CPU:0", "CPU:1"]
    monkeypatch.setattr(setting_checks, "device_names", lambda devices: names[: int(*devices)])
    config = override(CONFIG, {"training.jit_compile": True})
    with pytest.raises(ConfigError, match="training.jit_compile is for one device, got 2"):
        train(config, dataset, tmp_path / "run", devices=["2"])
