"""Optimizers, schedules, clipping and averages do what their settings say."""

from __future__ import annotations

import dataclasses
import math
import typing

import keras
import numpy as np
import pytest
import tensorflow as tf
from small_runs import ALL_STATE

from fcnseg.config import TrainingConfig, config_from_mapping, override
from fcnseg.errors import ConfigError
from fcnseg.inference import load_run
from fcnseg.networks.addons import ORIGINS
from fcnseg.networks.keras_compat import IS_KERAS_3, apply_gradients
from fcnseg.records import Dataset
from fcnseg.sampling import Batch, make_training_dataset
from fcnseg.training import LossError, read_run, train
from fcnseg.training.compiled_model import make_state
from fcnseg.training.ema import WeightAverage
from fcnseg.training.loop import TrainingLoop
from fcnseg.training.optimizer import build_optimizer, make_schedule
from fcnseg.training.step import TrainingStep, clip_together
from fcnseg.training.training import weights_digest


def settings(**changes):
    plain = {"epochs": 10, "steps_per_epoch": 10, "learning_rate": 0.5, "schedule": "constant"}
    plain["warmup_steps"] = 0
    return TrainingConfig(**{**plain, **changes})


SCHEDULES = {
    # The run has 100 steps.
    "constant": [(0, 0.5), (99, 0.5)],
    "cosine": [(0, 0.5), (25, 0.25 + 0.25 / math.sqrt(2)), (50, 0.25), (100, 0)],
    "poly": [(0, 0.5), (50, 0.5 * 0.5**0.9), (100, 0)],
    "step": [(0, 0.5), (49, 0.5), (50, 0.05), (74, 0.05), (75, 0.005), (99, 0.005)],
}


def rate_at(schedule, step):
    return float(schedule(step) if callable(schedule) else schedule)


@pytest.mark.parametrize("name", SCHEDULES)
def test_step_size_falls_as_the_schedule_says(name):
    schedule = make_schedule(settings(schedule=name))
    rates = [(step, rate_at(schedule, step)) for step, _ in SCHEDULES[name]]
    assert rates == [(step, pytest.approx(rate, abs=1e-7)) for step, rate in SCHEDULES[name]]


def test_step_size_falls_in_a_run_of_few_steps():
    """Parts 0.1, 0.2 and 0.25 of 4 steps are, rounded, before steps 0, 1 and 1."""
    schedule = make_schedule(
        settings(schedule="step", epochs=1, steps_per_epoch=4, milestones=(0.1, 0.2, 0.25))
    )
    assert [rate_at(schedule, step) for step in range(4)] == pytest.approx([0.05, *[5e-4] * 3])
    schedule = make_schedule(
        settings(schedule="step", epochs=1, steps_per_epoch=1, milestones=(0.1,))
    )
    assert rate_at(schedule, 0) == pytest.approx(0.05)


@pytest.mark.parametrize(("steps", "warmup"), [(4, 0), (20, 2), (499, 49), (500, 50), (9999, 50)])
def test_warm_up_is_a_tenth_of_a_short_run_unless_given(steps, warmup):
    config = TrainingConfig(epochs=1, steps_per_epoch=steps)
    assert config.warmup == warmup
    assert dataclasses.replace(config, warmup_steps=3).warmup == 3


@pytest.mark.parametrize("name", SCHEDULES)
def test_warm_up_comes_before_the_schedule(name):
    """50 steps of warm-up and then a schedule of 50."""
    schedule = make_schedule(settings(schedule=name, warmup_steps=50))
    assert [rate_at(schedule, step) for step in (0, 24, 49)] == pytest.approx([0.01, 0.25, 0.5])
    shorter = make_schedule(settings(schedule=name, epochs=5))
    for step in (0, 10, 40):
        assert rate_at(schedule, 50 + step) == pytest.approx(rate_at(shorter, step))
    again = type(schedule).from_config(schedule.get_config())
    assert rate_at(again, 60) == rate_at(schedule, 60)


FIRST_STEPS = {
    # What a weight of 2 is after one step with the gradient 3, at a step size of 0.5.
    "adam": ({}, 2 - 0.5),
    "adamw": ({"weight_decay": 0.1}, 2 - 0.5 - 0.5 * 0.1 * 2),
    "sgd": ({"momentum": 0.9}, 2 - 0.5 * 3 * 1.9),  # Nesterov: one more, shorter, step ahead
    "lamb": ({}, 2 - 0.5 * 2),  # Adam's direction, at the norm of the weight
}


def test_every_schedule_and_optimizer_is_tested():
    known = typing.get_type_hints(TrainingConfig)
    assert set(typing.get_args(known["schedule"])) == set(SCHEDULES)
    of_addons = {
        name for name, origin in ORIGINS["training.optimizer"].items() if not origin.keras_3
    }
    assert set(typing.get_args(known["optimizer"])) - of_addons == set(FIRST_STEPS)


@pytest.mark.parametrize("name", FIRST_STEPS)
def test_first_step_of_each_optimizer(name):
    changes, expected = FIRST_STEPS[name]
    weight = keras.Variable([2.0]) if IS_KERAS_3 else tf.Variable([2.0])
    optimizer = build_optimizer(settings(optimizer=name, **changes))
    apply_gradients(optimizer, [tf.constant([3.0])], [weight])
    assert np.asarray(weight) == pytest.approx([expected], rel=1e-5)


@pytest.mark.parametrize(("norm", "expected"), [(1.0, (0.6, 0.8)), (20.0, (3.0, 4.0))])
def test_gradients_are_clipped_together(norm, expected):
    clipped = clip_together([tf.constant([3.0]), tf.constant([4.0])], norm)
    assert np.concatenate(clipped) == pytest.approx(expected)


@pytest.mark.parametrize("precision", ["float32", "mixed_float16"])
@pytest.mark.parametrize("micro_batches", [1, 2])
def test_a_step_moves_weights_by_the_clipped_gradient(precision, micro_batches):
    """Plain SGD moves them by the gradient, whose norm the limit is; float16 scales the loss."""
    plain = {"optimizer": "sgd", "momentum": 0.0, "learning_rate": 1.0}
    model = keras.Sequential(
        [keras.Input((8, 8, 8, 1)), keras.layers.Conv3D(2, 1, dtype=precision)]
    )
    model.compile(
        optimizer=build_optimizer(settings(**plain, precision=precision)),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    make_state(model, size=(8, 8, 8), label_size=(8, 8, 8))
    before = [np.array(weight) for weight in model.trainable_weights]
    rng = np.random.default_rng(0)
    hu = tf.constant(rng.normal(0, 1, (2, 8, 8, 8, 1)).astype(np.float32))
    label = tf.constant(rng.integers(0, 2, (2, 8, 8, 8)).astype(np.uint8))
    TrainingStep(model, micro_batches=micro_batches, clip_norm=1e-3).on_replica(
        Batch(hu, label, {})
    )
    after = [np.array(weight) for weight in model.trainable_weights]
    moved = [a - b for a, b in zip(after, before, strict=True)]
    norm = np.sqrt(sum(np.sum(each.astype(np.float64) ** 2) for each in moved))
    assert norm == pytest.approx(1e-3, rel=0.02)


def test_average_follows_the_weights_and_can_stand_in_for_them():
    """The decay is 2/11, 3/12, and then 0.3, which is less than 4/13."""
    weight = tf.Variable([0.0])
    average = WeightAverage([weight], decay=0.3, strategy=tf.distribute.get_strategy())
    seen = []
    for step, value in enumerate((11.0, 5.0, -4.0, 10.0), start=1):
        weight.assign([value])
        average.update(tf.constant(step))
        (held,) = average.averages
        seen.append(held.numpy().item())
    assert seen == pytest.approx([9.0, 6.0, -1.0, 6.7])
    with average.applied():
        assert weight.numpy() == pytest.approx([6.7])
    assert weight.numpy().tolist() == [10.0]


# Time for one epoch: one that validates by itself, and one that would validate only later.
OF_ONE_EPOCH = {
    name: override(ALL_STATE, {"training.epochs": 9, "training.time_limit_hours": 1e-9, **changes})
    for name, changes in {
        "without average": {"training.ema_decay": 0.0, "training.validate_every": 1},
        "averaged": {"training.ema_decay": 0.9, "training.validate_every": 3},
    }.items()
}


@pytest.fixture(scope="module", params=OF_ONE_EPOCH)
def run_of_one_epoch(request, dataset, tmp_path_factory):
    """The configuration and the result."""
    config = OF_ONE_EPOCH[request.param]
    return config, train(config, dataset, tmp_path_factory.mktemp("limited") / "run")


def test_kept_network_is_the_average(run_of_one_epoch):
    config, result = run_of_one_epoch
    network, _ = load_run(result.run_dir)
    is_last = weights_digest(network) == read_run(result.run_dir).weights_sha256
    assert is_last == (config.training.ema_decay == 0)


def test_run_ends_with_the_epoch_in_which_its_time_is_over(run_of_one_epoch, dataset):
    config, result = run_of_one_epoch
    assert len(result.history["loss"]) == len(result.history["val_dice"]) == 1
    assert result.best_epoch == read_run(result.run_dir).best_epoch == 1
    again = train(config, dataset, result.run_dir, resume=True)
    assert (again.best_epoch, again.best_dice) == (1, result.best_dice)


@pytest.mark.parametrize("steps", [1, 3])
def test_loss_that_is_no_number_ends_the_run_with_its_cases(dataset, tmp_path, steps):
    """A step of that size leaves weights with which nothing can be computed."""
    changes = {"training.optimizer": "sgd", "training.learning_rate": 1e38}
    config = override(ALL_STATE, {**changes, "training.steps_per_execution": steps})
    with pytest.raises(LossError, match=r"the loss is (nan|inf) at step \d+, of patches of ") as e:
        train(config, dataset, tmp_path / "run")
    *_, number = str(e.value).split(",")[0].split()
    assert number == "2"  # of three in a call: the first has moved the weights
    patches = make_training_dataset(
        Dataset.open(dataset), ALL_STATE.patches, seed=0, with_case_ids=True
    )
    _, case_ids = list(patches.take(int(number)))[-1]
    named = str(e.value).partition("patches of ")[2]
    assert named == ", ".join(case_id.decode() for case_id in case_ids.numpy())


def test_run_ends_when_nothing_gets_better(dataset, tmp_path):
    """Steps of no size: the first validation stays the best, and the run waits for two more."""
    changes = {"training.learning_rate": 1e-30, "training.patience": 2, "training.epochs": 9}
    changes |= {"model.norm": "instance", "training.steps_per_epoch": 1}
    config = override(ALL_STATE, changes)
    result = train(config, dataset, tmp_path / "run")
    assert len(result.history["val_dice"]) == 3
    assert result.best_epoch == 1


@pytest.mark.slow
def test_run_whose_time_is_over_between_epochs_ends_with_the_next(dataset, tmp_path, monkeypatch):
    """Nothing of an epoch that was not validated would be kept."""
    advance = TrainingLoop._advance

    def advance_late(self, started, **changes):
        advance(self, started - 3600 * ("epochs" in changes), **changes)

    monkeypatch.setattr(TrainingLoop, "_advance", advance_late)
    changes = {"training.epochs": 9, "training.time_limit_hours": 1}
    config = override(ALL_STATE, {**changes, "training.validate_every": 3})
    result = train(config, dataset, tmp_path / "run")
    assert len(result.history["loss"]) == result.best_epoch == 2
    assert len(result.history["val_dice"]) == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"milestones": [0.5, 0.5]},
            r"milestones must be increasing .* got \(0.5, 0.5\)",
        ),
        ({"milestones": [0.0]}, r"milestones must be .* each above 0 and below 1, got \(0.0,\)"),
        (
            {"milestones": [0.5, 1.0]},
            r"milestones must be .* below 1, got \(0.5, 1.0\)",
        ),
        ({"warmup_steps": 8, "epochs": 2, "steps_per_epoch": 4}, "fewer than the steps .* 8, got"),
        ({"optimizer": "lion"}, "training.optimizer: .*'adam', .* or 'adabelief', got 'lion'"),
        ({"optimizer_wrapper": "swa", "ema_decay": 0.5}, "ema_decay must be 0 .* is swa, got 0.5"),
        ({"optimizer_wrapper": "moving_average"}, "ema_decay must be above 0 .* moving_average"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        config_from_mapping({"training": changes})
