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
from fcnseg.records import Dataset
from fcnseg.sampling import make_training_dataset
from fcnseg.training import LossError, read_run, train
from fcnseg.training.ema import WeightAverage
from fcnseg.training.optimizer import build_optimizer, make_schedule
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
}


def test_every_schedule_and_optimizer_is_tested():
    known = typing.get_type_hints(TrainingConfig)
    assert set(typing.get_args(known["schedule"])) == set(SCHEDULES)
    assert set(typing.get_args(known["optimizer"])) == set(FIRST_STEPS)


@pytest.mark.parametrize("name", FIRST_STEPS)
def test_first_step_of_each_optimizer(name):
    changes, expected = FIRST_STEPS[name]
    weight = keras.Variable([2.0])
    build_optimizer(settings(optimizer=name, **changes)).apply([tf.constant([3.0])], [weight])
    assert np.asarray(weight) == pytest.approx([expected], rel=1e-5)


@pytest.mark.parametrize(("norm", "moved"), [(1.0, (0.6, 0.8)), (20.0, (3.0, 4.0))])
def test_gradients_are_clipped_together(norm, moved):
    weights = [keras.Variable([0.0]), keras.Variable([0.0])]
    sgd = settings(optimizer="sgd", momentum=0.0, learning_rate=1.0, clip_norm=norm)
    build_optimizer(sgd).apply([tf.constant([3.0]), tf.constant([4.0])], weights)
    assert [-float(np.asarray(weight)[0]) for weight in weights] == pytest.approx(moved)


def test_average_follows_the_weights_and_can_stand_in_for_them():
    weight = tf.Variable([0.0])
    average = WeightAverage([weight], decay=0.3, strategy=tf.distribute.get_strategy())
    # The decay is 2/11, then 3/12, then 0.3, since 4/13 and 5/14 are more.
    by_hand = {
        1.0: 9 / 11,  # 2/11 of 0 and 9/11 of 1
        2.0: 75 / 44,  # 1/4 of 9/11 and 3/4 of 2
        -3.0: -69.9 / 44,  # 3/10 of 75/44 and 7/10 of -3
        5.0: 133.03 / 44,  # 3/10 of -69.9/44 and 7/10 of 5
    }
    for step, (value, expected) in enumerate(by_hand.items(), start=1):
        weight.assign([value])
        average.move(tf.constant(average.share(step)))
        with average.applied():
            assert weight.numpy() == pytest.approx([expected])
        assert weight.numpy().tolist() == [value]


@pytest.mark.parametrize("decay", [0.0, 0.9])
def test_kept_network_is_the_average(dataset, tmp_path, decay):
    config = override(ALL_STATE, {"training.epochs": 1, "training.ema_decay": decay})
    train(config, dataset, tmp_path / "run")
    network, _ = load_run(tmp_path / "run")
    is_last = weights_digest(network) == read_run(tmp_path / "run").weights_sha256
    assert is_last == (decay == 0)


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
    batch = list(patches.take(int(number)))[-1]
    told = str(e.value).partition("patches of ")[2]
    assert told == ", ".join(case_id.decode() for case_id in batch[-1].numpy())


def test_run_ends_when_nothing_gets_better(dataset, tmp_path):
    """Steps of no size: the first validation stays the best, and the run waits for two more."""
    changes = {"training.learning_rate": 1e-30, "training.patience": 2, "training.epochs": 9}
    config = override(ALL_STATE, {**changes, "model.norm": "instance"})
    result = train(config, dataset, tmp_path / "run")
    assert len(result.history["val_dice"]) == 3
    assert result.best_epoch == 1


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
        ({"optimizer": "lion"}, "training.optimizer: .*'adam', 'adamw' or 'sgd', got 'lion'"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        config_from_mapping({"training": changes})
