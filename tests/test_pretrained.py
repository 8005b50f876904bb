"""A run that starts from the weights of another one."""

from __future__ import annotations

import dataclasses
import logging
import shutil

import numpy as np
import pytest
from small_models import write_run
from small_records import CLASSES
from small_runs import make_config, stop_after

from fcnseg.cli.command import run_command
from fcnseg.cli.train import TrainCommand
from fcnseg.config import ModelConfig, override, write_config
from fcnseg.errors import InputError
from fcnseg.inference import load_run
from fcnseg.networks.build import build_fcn, full_resolution
from fcnseg.training import TrainingStoppedError, read_run, train
from fcnseg.training.pretrained import load_pretrained

# The architecture of `write_run`. With steps of no size, the weights stay what they were at first.
CONFIG = make_config(
    ModelConfig(filters=(4, 8)),
    epochs=1,
    steps_per_epoch=2,
    checkpoint_every=1,
    learning_rate=1e-30,
    ema_decay=0.9,
    tensorboard=False,
)


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("other") / "run", seed=7)


def trainable_weights(network):
    """By layer and number; Keras 2 has no paths of weights."""
    return {
        f"{layer.name}/{number}": np.array(weight)
        for layer in network.layers
        for number, weight in enumerate(layer.trainable_weights)
    }


def kept_weights(run_dir):
    return trainable_weights(load_run(run_dir)[0])


def assert_same(one, other):
    """But for steps of no size."""
    assert one.keys() == other.keys()
    for path, weight in one.items():
        np.testing.assert_allclose(weight, other[path], rtol=0, atol=1e-20, err_msg=path)


def test_command_starts_from_the_weights_of_another_run(dataset, other, tmp_path):
    write_config(CONFIG, tmp_path / "config.yaml")
    argv = ["--config", tmp_path / "config.yaml", "--data", dataset, "--run_dir", tmp_path / "run"]
    run_command(TrainCommand, [*map(str, argv), "--init_from", str(other)])
    assert_same(kept_weights(tmp_path / "run"), kept_weights(other))
    assert read_run(tmp_path / "run").init_from == str(other)
    train(CONFIG, dataset, tmp_path / "drawn")
    first = next(iter(kept_weights(other)))
    assert not np.array_equal(kept_weights(tmp_path / "drawn")[first], kept_weights(other)[first])
    assert read_run(tmp_path / "drawn").init_from is None


def test_other_classes_get_a_last_layer_of_their_own(other, caplog):
    model = build_fcn(CONFIG.model, num_classes=5)
    drawn = trainable_weights(model)
    with caplog.at_level(logging.INFO):
        load_pretrained(model, other, CONFIG.model)
    (line,) = [message for message in caplog.messages if message.startswith("starts from")]
    assert line.endswith("new are logits")
    now, then = trainable_weights(model), kept_weights(other)
    for path, weight in now.items():
        expected = drawn if path.startswith("logits/") else then
        assert np.array_equal(weight, expected[path]), path


def test_moving_means_are_taken_too(tmp_path):
    other = write_run(tmp_path / "run")
    model = build_fcn(CONFIG.model, num_classes=len(CLASSES))
    network, _ = load_run(other)
    layer = next(layer for layer in network.layers if layer.non_trainable_weights)
    values = [np.full(weight.shape, 3.0) for weight in layer.weights]
    layer.set_weights(values)
    network.save(other / "best.keras")
    load_pretrained(model, other, CONFIG.model)
    for got, value in zip(model.get_layer(layer.name).get_weights(), values, strict=True):
        np.testing.assert_array_equal(got, value)


def test_what_does_not_change_the_weights_may_differ(other):
    """Also what says the defaults in full."""
    changes = {"norm": "sync_batch", "dropout": 0.5, "l2": 1e-5, "kernels": [[3, 3, 3]] * 2}
    config = override(CONFIG, {f"model.{name}": value for name, value in changes.items()}).model
    model = build_fcn(config, num_classes=len(CLASSES), supervised=True)
    load_pretrained(model, other, config)
    assert_same(trainable_weights(model), kept_weights(other))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"filters": [4, 16]}, r"model.filters was \(4, 8\), got \(4, 16\)"),
        (
            {"skip": "concat", "activation": "leaky_relu"},
            "model.skip was sum, got concat, model.activation was relu, got leaky_relu",
        ),
        ({"strides": [[1, 2, 2]]}, r"model.strides was \(\(2, 2, 2\),\), got \(\(1, 2, 2\),\)"),
        ({"hu_window": [-100, 200]}, "model.hu_window was "),
    ],
)
def test_another_architecture_is_refused(other, changes, message):
    config = override(CONFIG, {f"model.{name}": value for name, value in changes.items()}).model
    model = build_fcn(config, num_classes=3)
    with pytest.raises(InputError, match=f"init_from needs the network of the run in .*{message}"):
        load_pretrained(model, other, config)


def test_run_that_is_not_finished_is_refused(dataset, tmp_path):
    unfinished = write_run(tmp_path / "unfinished", finished=False)
    with pytest.raises(InputError, match="unfinished is not a finished run"):
        train(CONFIG, dataset, tmp_path / "run", init_from=unfinished)
    assert not (tmp_path / "run" / "config.yaml").exists()


@pytest.mark.slow
def test_run_that_goes_on_does_not_start_again(dataset, other, tmp_path, monkeypatch):
    """The other run may be gone by then, and none may take its place."""
    source, run_dir = tmp_path / "source", tmp_path / "run"
    shutil.copytree(other, source)
    config = override(CONFIG, {"training.learning_rate": 1e-2})
    undisturbed = train(config, dataset, tmp_path / "undisturbed", init_from=source)
    with monkeypatch.context() as patch:
        stop_after(patch, 1)
        with pytest.raises(TrainingStoppedError):
            train(config, dataset, run_dir, init_from=source)
    shutil.rmtree(source)
    message = rf"began with: init_from was {source}, got "
    with pytest.raises(InputError, match=message + "None"):
        train(config, dataset, run_dir, resume=True)
    train(config, dataset, run_dir, resume=True, init_from=source)
    weights = [read_run(folder).weights_sha256 for folder in (undisturbed.run_dir, run_dir)]
    assert weights[0] == weights[1]
    with pytest.raises(InputError, match=message + str(other)):  # finished by now
        train(config, dataset, run_dir, resume=True, init_from=other)


def test_network_with_several_outputs_starts_from_the_one_that_was_kept(tmp_path, caplog):
    """What is for coarser levels is in no kept network; a pyramid's later networks see the classes
    of the one before."""
    changes = {"filters": [4, 8, 8], "deep_supervision": 1, "pyramid": 2}
    config = override(CONFIG, {f"model.{name}": value for name, value in changes.items()})
    other = write_run(tmp_path / "run")
    dataclasses.replace(read_run(other), config=config).write(other)
    kept = full_resolution(build_fcn(config.model, num_classes=3, supervised=True))
    kept.save(other / "best.keras")
    model = build_fcn(config.model, num_classes=5, supervised=True)
    drawn = trainable_weights(model)
    with caplog.at_level(logging.INFO):
        load_pretrained(model, other, config.model)
    new = caplog.messages[-1].partition("new are ")[2].split(", ")
    assert "logits" in new
    assert len(new) == len(model.outputs) + 1  # one for each output, and where the second begins
    for path, weight in trainable_weights(model).items():
        expected = drawn if path.split("/")[0] in new else trainable_weights(kept)
        np.testing.assert_array_equal(weight, expected[path], err_msg=path)
