"""Names of tensorflow-addons train on the old line; elsewhere an error says what they need."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import typing
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from killed_training import train_and_die
from running_server import running_server
from scipy import interpolate
from small_models import CROP, make_oblique_volume
from small_runs import ALL_STATE, assert_same_runs, stop_after

from fcnseg.client import SegmentationClient
from fcnseg.config import AugmentationConfig, Config, TrainingConfig, override, write_config
from fcnseg.errors import ConfigError
from fcnseg.inference import load_run, make_segmenter, predict_volume
from fcnseg.networks.addons import ORIGINS, find_class, is_of_addons
from fcnseg.networks.keras_compat import (
    IS_KERAS_3,
    apply_gradients,
    build_optimizer_state,
    optimizer_variables,
)
from fcnseg.records import Dataset
from fcnseg.sampling.augmentation.deformation import control_shape, displacements
from fcnseg.saved_model.export import export_run
from fcnseg.training import TrainingStoppedError, read_run, train
from fcnseg.training.assembly import build_model, make_average, make_step, patches_maker
from fcnseg.training.optimizer import build_optimizer, first_average_step, restart_slots
from fcnseg.training.setting_checks import check_settings
from fcnseg.training.step import make_steps
from fcnseg.training.training import weights_digest

old_line = pytest.mark.skipif(
    IS_KERAS_3, reason="tensorflow-addons needs Keras 2: make test-addons"
)

ROOT = Path(__file__).parent.parent
NAMES = [(setting, name) for setting, names in ORIGINS.items() for name in names]
OPTIMIZERS = [name for setting, name in NAMES if setting == "training.optimizer"]
WRAPPERS = {
    # Settings that a wrapper needs.
    "lookahead": {"training.lookahead_steps": 3},
    "swa": {"training.swa_start": 0.5, "training.ema_decay": 0.0},
    "moving_average": {"training.ema_decay": 0.9},
}
OF_ADDONS = [name for name, origin in ORIGINS["training.optimizer"].items() if not origin.keras_3]
# Whole runs: each optimizer of tensorflow-addons, alone, and each wrapper around one of Keras and
# one of its own.
RUNS = {
    **{name: {"training.optimizer": name} for name in ["lamb", *OF_ADDONS]},
    **{
        f"{wrapper} {name}": {
            "training.optimizer": name,
            "training.optimizer_wrapper": wrapper,
            **changes,
        }
        for wrapper, changes in WRAPPERS.items()
        for name in ("adam", "radam")
    },
}


def settings(**changes):
    plain = {"epochs": 10, "steps_per_epoch": 10, "learning_rate": 0.5, "schedule": "constant"}
    return TrainingConfig(**{**plain, "warmup_steps": 0, **changes})


def test_table_has_every_name_of_the_settings():
    sections = typing.get_type_hints(Config)
    for setting, names in ORIGINS.items():
        section, _, key = setting.partition(".")
        values = set(typing.get_args(typing.get_type_hints(sections[section])[key]))
        assert values - {"none", "coefficients", "field"} == set(names)
    assert set(WRAPPERS) == set(ORIGINS["training.optimizer_wrapper"])


@pytest.mark.parametrize(("setting", "name"), NAMES)
def test_each_name_is_a_class_or_an_error_that_says_what_it_needs(setting, name):
    origin = ORIGINS[setting][name]
    if not IS_KERAS_3 or origin.keras_3:
        found = find_class(setting, name)
        expected = origin.keras_3 if IS_KERAS_3 else origin.keras_2
        assert found.__name__ == expected.rpartition(".")[2]
        assert is_of_addons(setting, name) == ("addons" in found.__module__)
        return
    need = (
        "alone, which comes with fcnseg's extra addons for Python 3.10 or 3.11 and TensorFlow 2.15"
    )
    with pytest.raises(
        ConfigError, match=rf"{setting} {name} is in .* {need}, got TensorFlow 2\.2"
    ):
        find_class(setting, name)


@pytest.mark.parametrize("setting", ORIGINS)
def test_a_run_is_refused_before_anything_is_built(dataset, tmp_path, setting):
    name = next((name for name, origin in ORIGINS[setting].items() if not origin.keras_3))
    config = override(ALL_STATE, {setting: name, "training.ema_decay": 0.0})
    if not IS_KERAS_3:
        check_settings(config, Dataset.open(dataset).info)
        return
    with pytest.raises(ConfigError, match=f"{setting} {name} is in tensorflow-addons alone"):
        train(config, dataset, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@old_line
def test_polyharmonic_deformation_is_that_of_scipy():
    """A triharmonic spline with a linear part, through the drawn displacements, clipped."""
    size, most = (9, 12, 14), (2.0, 3.0, 4.0)
    config = AugmentationConfig(
        deformation_voxels=most,
        deformation_of="polyharmonic",
        control_spacing_voxels=(6.0, 8.0, 8.0),
    )
    counts = control_shape(size, config)
    limits = np.reshape(most, (3, 1, 1, 1))
    drawn = np.random.default_rng(0).uniform(-1, 1, (2, 3, *counts)) * limits
    moved = displacements(tf.constant(drawn, tf.float32), size, config)
    points = positions(counts)
    voxels = positions(size) / config.control_spacing_voxels
    for number in range(2):
        values = drawn[number].reshape(3, -1).T
        spline = interpolate.RBFInterpolator(points, values, kernel="cubic", degree=1)
        expected = np.clip(spline(voxels).T.reshape(3, *size), -limits, limits)
        found = np.stack([axis[number] for axis in moved])
        np.testing.assert_allclose(found, expected, atol=5e-3)  # of voxels, in float32


def positions(shape):
    """Positions (n, 3) of a grid from its centre, in its steps."""
    return np.argwhere(np.ones(shape)) - (np.array(shape) - 1) / 2


@old_line
def test_a_run_trains_on_polyharmonic_deformations(dataset, tmp_path):
    changes = {
        "augmentation.deformation_of": "polyharmonic",
        "augmentation.deformation_voxels": (2, 2, 2),
        "augmentation.control_spacing_voxels": (6, 6, 6),
    }
    result = train(override(ALL_STATE, changes), dataset, tmp_path / "run")
    assert np.isfinite(result.history["loss"]).all()


@old_line
def test_adamw_has_no_wrapper(dataset):
    config = override(
        ALL_STATE, {"training.optimizer": "adamw", "training.optimizer_wrapper": "lookahead"}
    )
    with pytest.raises(ConfigError, match="must be one of adam, sgd, lamb, radam, .* got adamw"):
        check_settings(config, Dataset.open(dataset).info)


FIRST_STEPS = {
    # What a weight of 2 is after one step with the gradient 3, at a step size of 0.5.
    "radam": 2 - 0.5 * 3,  # no variance yet: the gradient itself
    "adabelief": 2 - 0.5 * 3,  # rectified in the same way
    "novograd": 2 - 0.5,  # the gradient of a layer has the norm 1
    "yogi": 2 - 0.5 * 3 / (3 + 1e-3 / math.sqrt(0.001)),  # Adam with a larger epsilon
}


@old_line
@pytest.mark.parametrize("name", OF_ADDONS)
def test_first_step_of_each_optimizer(name):
    weight = tf.Variable([2.0])
    optimizer = build_optimizer(settings(optimizer=name))
    apply_gradients(optimizer, [tf.constant([3.0])], [weight])
    assert weight.numpy() == pytest.approx([FIRST_STEPS[name]], rel=1e-3)


def steps_of(optimizer, weight, gradients):
    """The weight after each step."""
    values = []
    for gradient in gradients:
        apply_gradients(optimizer, [tf.constant([gradient])], [weight])
        values.append(weight.numpy().item())
    return values


@old_line
def test_wrappers_move_the_weights_as_their_papers_say():
    """Plain descent by 1, 2, 3 and 4 from 0, at a step size of 1."""
    plain = {"optimizer": "sgd", "momentum": 0.0, "learning_rate": 1.0, "epochs": 4}
    plain["steps_per_epoch"] = 1
    gradients = [-1.0, -2.0, -3.0, -4.0]

    def run(**changes):
        weight = tf.Variable([0.0])
        optimizer = build_optimizer(settings(**plain, **changes))
        build_optimizer_state(optimizer, [weight])
        return steps_of(optimizer, weight, gradients), optimizer, weight

    # Every two steps half the way back to where they began.
    values, *_ = run(optimizer_wrapper="lookahead", lookahead_steps=2)
    assert values == [1.0, 1.5, 4.5, (1.5 + 8.5) / 2]
    # The mean of the weights after epochs 3 and 4.
    values, optimizer, weight = run(optimizer_wrapper="swa", swa_start=0.75)
    assert values == [1.0, 3.0, 6.0, 10.0]
    assert optimizer.get_slot(weight, "average").numpy() == pytest.approx([8.0])
    # Decays 1/10, 2/11, 0.2 and 0.2, as of fcnseg's own average one step later.
    values, optimizer, weight = run(optimizer_wrapper="moving_average", ema_decay=0.2)
    average = 0.0
    for decay, value in zip((1 / 10, 2 / 11, 0.2, 0.2), values, strict=True):
        average = decay * average + (1 - decay) * value
    assert optimizer.get_slot(weight, "average").numpy() == pytest.approx([average])


@pytest.mark.parametrize(("start", "step"), [(0.0, 5), (0.1, 5), (0.75, 15), (0.8, 20), (1.0, 20)])
def test_swa_begins_at_the_end_of_an_epoch(start, step):
    swa = settings(epochs=4, steps_per_epoch=5, swa_start=start, optimizer_wrapper="swa")
    assert first_average_step(swa) == step


@old_line
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name in ("radam", "lookahead adam") else pytest.mark.slow)
        for name in RUNS
    ],
)
def test_stopped_run_goes_on_as_if_nothing_had_happened(dataset, tmp_path, monkeypatch, name):
    """With clipping, accumulation, warm-up, a schedule, half precision and, mostly, an average."""
    changes = {
        "training.clip_norm": 0.5,
        "training.accumulate_steps": 2,
        "training.warmup_steps": 2,
        "training.precision": "mixed_bfloat16",
        "patches.batch_size": 1,  # oneDNN's gradients of larger ones are wrong on some CPUs
        **RUNS[name],
    }
    config = override(ALL_STATE, changes)
    train(config, dataset, tmp_path / "undisturbed")
    with monkeypatch.context() as patch:
        stop_after(patch, 6)
        with pytest.raises(TrainingStoppedError):
            train(config, dataset, tmp_path / "run")
    train(config, dataset, tmp_path / "run", resume=True)
    assert_same_runs(tmp_path / "undisturbed", tmp_path / "run")


@old_line
@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("name", "devices"), [("radam", 2), ("lookahead radam", 1)])
def test_killed_run_resumes_and_is_exported_and_served(dataset, tmp_path, name, devices):
    """From a process that dies without a word to masks of a server, over both transports."""
    config = tmp_path / "config.yaml"
    write_config(override(ALL_STATE, RUNS[name]), config)

    def run(folder, *, last_step=-1):
        place = (config, dataset, tmp_path / folder)
        return train_and_die(*place, cpus=devices, last_step=last_step)

    assert run("undisturbed") == 0
    assert run("killed", last_step=6) == -signal.SIGKILL
    assert run("killed") == 0
    assert len(read_run(tmp_path / "killed").devices) == devices
    assert_same_runs(tmp_path / "undisturbed", tmp_path / "killed")

    export_run(tmp_path / "killed", tmp_path / "models")
    volume = make_oblique_volume()
    expected = predict_volume(make_segmenter(*load_run(tmp_path / "killed")), volume)
    with running_server(tmp_path / "models") as addresses:
        for address in addresses:
            with SegmentationClient(address) as client:
                np.testing.assert_array_equal(client.segment(volume, accept=CROP), expected)


@old_line
@pytest.mark.parametrize("name", RUNS)
def test_all_that_a_step_changes_is_in_the_checkpoint(name):
    weight = tf.Variable([2.0, 1.0])
    changes = {key.removeprefix("training."): value for key, value in RUNS[name].items()}
    optimizer = build_optimizer(settings(**changes))
    build_optimizer_state(optimizer, [weight])
    known = {each.ref() for each in optimizer_variables(optimizer)}
    apply_gradients(optimizer, [tf.constant([3.0, 1.0])], [weight])
    assert {each.ref() for each in optimizer.weights} <= known
    assert int(optimizer.iterations) == 1


@old_line
@pytest.mark.parametrize("wrapper", ["swa", "moving_average"])
def test_average_of_a_wrapper_is_what_is_validated(dataset, wrapper):
    config = override(ALL_STATE, {**RUNS[f"{wrapper} adam"], "model.norm": "instance"})
    data = Dataset.open(dataset)
    model = build_model(config, data.info)
    average = make_average(config, model)
    patches = patches_maker(config, data, replicas=1)(start_step=0)
    batches = iter(model.distribute_strategy.experimental_distribute_dataset(patches))
    run = make_steps(make_step(config, model, data.info), average)
    run(batches, 1, 3)  # an epoch has four steps: swa has no average yet
    before, inside = weights_with(average, model)
    assert all(map(np.array_equal, before, inside)) == (wrapper == "swa")
    run(batches, 4, 5)
    before, inside = weights_with(average, model)
    slots = [model.optimizer.get_slot(weight, "average") for weight in model.trainable_weights]
    assert all(map(np.array_equal, inside, [slot.numpy() for slot in slots]))
    assert not any(map(np.array_equal, inside, before))
    assert all(map(np.array_equal, before, model.get_weights()))


@old_line
@pytest.mark.slow
@pytest.mark.parametrize("wrapper", ["swa", "moving_average"])
def test_average_of_a_wrapper_is_what_is_exported(dataset, tmp_path, wrapper):
    """An export is compared with the best network, and that with the state of the last step."""
    changes = {"training.validate_every": 2, "model.norm": "instance"}
    train(override(ALL_STATE, {**RUNS[f"{wrapper} adam"], **changes}), dataset, tmp_path / "run")
    export_run(tmp_path / "run", tmp_path / "models")
    network, _ = load_run(tmp_path / "run")
    with np.load(tmp_path / "run" / "final_state.npz") as state:
        arrays = [state[name] for name in state.files]
    for weight in network.get_weights():
        assert any(np.array_equal(weight, array) for array in arrays)
    assert weights_digest(network) != read_run(tmp_path / "run").weights_sha256  # not the last


def weights_with(average, model):
    """The weights, and those that stand in for them."""
    before = model.get_weights()
    with average.applied():
        return before, model.get_weights()


@old_line
@pytest.mark.parametrize(
    ("wrapper", "slot"), [("lookahead", "slow"), ("moving_average", "average")]
)
def test_slots_begin_with_weights_of_another_run(dataset, wrapper, slot):
    config = override(ALL_STATE, RUNS[f"{wrapper} adam"])
    model = build_model(config, Dataset.open(dataset).info)
    model.set_weights([weight + 1 for weight in model.get_weights()])
    restart_slots(model, config.training)
    for weight in model.trainable_weights:
        assert np.array_equal(model.optimizer.get_slot(weight, slot).numpy(), weight.numpy())


@old_line
@pytest.mark.slow
def test_two_devices_do_what_one_does(tmp_path):
    """Each optimizer, alone and in each wrapper: the weights and the slots of the wrapper."""
    results = []
    for devices in (1, 2):
        path = tmp_path / f"{devices}.npz"
        subprocess.run(
            [sys.executable, ROOT / "tests" / "addons_replicas.py", str(devices), path],
            check=True,
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2"},
        )
        with np.load(path) as arrays:
            results.append(dict(arrays))
    one, two = results
    assert len(one) == 4 * (len(OPTIMIZERS) - 1) + 1
    assert {name: pytest.approx(values, abs=1e-5) for name, values in one.items()} == two
