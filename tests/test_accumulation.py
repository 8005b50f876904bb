"""Steps of several smaller batches."""

from __future__ import annotations

import logging
import subprocess

import numpy as np
import pytest
import tensorflow as tf
from test_training import AUGMENTED_IN_THE_STEP, CONFIG, train_on

from fcnseg.config import override
from fcnseg.inference import load_run
from fcnseg.training import train

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


def in_parts(settings, count):
    """The same eight patches a step, at once or in parts."""
    parts = {"patches.batch_size": 8 // count, "training.accumulate_steps": count}
    return override(CONFIG, {**PER_SAMPLE, **settings, **parts})


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({}, id="plain"),
        pytest.param(
            {"model.filters": [4, 8, 8], "model.deep_supervision": 1, "model.l2": 1e-3},
            id="supervised",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            {**AUGMENTED_IN_THE_STEP, "training.clip_norm": 0.1},
            id="augmented",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_parts_train_like_the_whole(dataset, tmp_path, settings):
    runs = [train(in_parts(settings, count), dataset, tmp_path / str(count)) for count in (1, 4)]
    for name in ("loss", "dice", "val_dice"):
        values = [run.history[name] for run in runs]
        np.testing.assert_allclose(*values, rtol=0, atol=1e-6 if name == "loss" else 1e-3)
    weights = [load_run(run.run_dir)[0].get_weights() for run in runs]
    for whole, parts in zip(*weights, strict=True):
        np.testing.assert_allclose(parts, whole, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({}, id="plain"),
        pytest.param(AUGMENTED_IN_THE_STEP, id="augmented", marks=pytest.mark.slow),
    ],
)
def test_parts_are_trained_without_a_warning_of_autograph(dataset, tmp_path, caplog, settings):
    logger = tf.get_logger()
    logger.addHandler(caplog.handler)  # where it does not propagate
    try:
        with caplog.at_level(logging.WARNING):
            changes = {**settings, "training.epochs": 1, "training.steps_per_epoch": 1}
            train(in_parts(changes, 2), dataset, tmp_path / "run")
    finally:
        logger.removeHandler(caplog.handler)
    assert not [text for text in caplog.messages if "AutoGraph" in text or "report this" in text]


@pytest.mark.slow
@pytest.mark.timeout(900)  # whole runs in processes of their own
def test_parts_on_two_devices_train_like_the_whole_on_one(dataset, tmp_path):
    losses = []
    for devices, count in ((["1"], 1), (["2"], 2)):
        config = override(in_parts({}, count), {"patches.batch_size": 8 // count // int(*devices)})
        _, rows = train_on(devices, config, dataset, tmp_path / devices[0])
        losses.append([float(row["loss"]) for row in rows])
    np.testing.assert_allclose(*losses, rtol=0, atol=1e-6)


@pytest.mark.slow
def test_compiled_steps_give_the_same(dataset, tmp_path):
    """Also in parts."""
    runs = [
        train(in_parts({"training.jit_compile": jit}, 2), dataset, tmp_path / str(jit))
        for jit in (False, True)
    ]
    losses = [run.history["loss"] for run in runs]
    np.testing.assert_allclose(*losses, rtol=0, atol=1e-5)


@pytest.mark.slow
def test_compiled_steps_on_several_devices_are_refused(dataset, tmp_path, capfd):
    config = override(CONFIG, {"training.jit_compile": True})
    with pytest.raises(subprocess.CalledProcessError) as caught:
        train_on(["2"], config, dataset, tmp_path / "run")
    assert caught.value.returncode == 2
    assert "error: training.jit_compile is for one device, got 2" in capfd.readouterr().err
