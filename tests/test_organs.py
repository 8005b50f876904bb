"""Organs that a run cannot learn are refused, and those that it is losing are named."""

from __future__ import annotations

import dataclasses
import logging
import re
import types

import numpy as np
import pytest
import tensorflow as tf
import yaml
from small_records import make_record, write_dataset
from small_runs import make_config

from fcnseg.config import (
    PRESETS,
    Config,
    LossConfig,
    ModelConfig,
    PatchConfig,
    TrainingConfig,
    override,
)
from fcnseg.errors import DatasetError
from fcnseg.records import Dataset, Fold
from fcnseg.sampling import make_volume_dataset
from fcnseg.training import read_run, train
from fcnseg.training.callbacks import Validation
from fcnseg.training.dataset_checks import check_each_organ
from fcnseg.training.lost_organs import LostOrgans, TrainingOrgan, check_organs
from fcnseg.training.preemption import StopRequest

ORGANS = (TrainingOrgan("liver", 9, 80_000), TrainingOrgan("gallbladder", 9, 1_200))
NAN = float("nan")


def watch(validations, *, config=None):
    """The callback after epochs with a validation Dice of liver and gallbladder each, or None."""
    lost = LostOrgans(ORGANS, config or Config())
    rows = []
    for epoch, dices in enumerate(validations):
        logs = {"loss": 0.5}
        if dices is not None:
            liver, gallbladder = dices
            mean = np.nanmean(dices)
            logs |= {
                "val_dice": mean,
                "val_dice_liver": liver,
                "val_dice_gallbladder": gallbladder,
            }
        lost.on_epoch_end(epoch, logs)
        rows.append(logs)
    return lost, rows


@pytest.mark.parametrize(
    ("validations", "lost", "warnings"),
    [
        ([(0.2, 0.0), (0.3, 0.0), (0.4, 0.0)], (), 0),  # the liver is only being learnt
        ([(0.6, 0.0), (0.7, 0.01), (0.8, 0.0)], ("gallbladder",), 1),
        ([(0.6, 0.0), (0.7, 0.01), (0.8, 0.0), (0.8, 0.0)], ("gallbladder",), 1),  # said once
        ([(0.6, 0.0), (0.7, 0.01)], (), 0),  # too early to say
        ([(0.6, 0.0), None, (0.7, 0.01), None, (0.8, 0.0)], ("gallbladder",), 1),
        ([(0.1, 0.0), (0.2, 0.0), (0.2, 0.0)], (), 0),  # nothing is learnt yet
        ([(0.6, 0.0), (0.7, 0.0), (0.8, 0.2)], (), 0),  # found
        ([(0.6, 0.5), (0.7, 0.0), (0.7, 0.0), (0.8, 0.0)], ("gallbladder",), 1),  # fell back
        ([(0.6, NAN), (0.7, NAN), (0.8, NAN)], (), 0),  # no case validates it
        ([(0.6, 0.0)] * 3 + [(0.7, 0.4)] + [(0.7, 0.0)] * 3, ("gallbladder",), 2),
        # The liver is worse for once: the gallbladder was not found in between.
        ([(0.6, 0.0)] * 3 + [(0.4, 0.0), (0.6, 0.0)], ("gallbladder",), 1),
        ([(0.0, 0.6), (0.0, 0.7), (0.0, 0.8)], ("liver",), 1),
        ([(0.0, 0.0)] * 3, (), 0),
    ],
)
def test_organ_is_lost_when_others_are_learnt(validations, lost, warnings, caplog):
    with caplog.at_level(logging.WARNING):
        callback, rows = watch(validations)
    assert callback.names == lost
    assert rows[-1]["lost_organs"] == len(lost)
    assert len(caplog.messages) == warnings


def test_most_organs_may_be_lost():
    """The mean of the others would hide it."""
    organs = [TrainingOrgan(f"organ {number}", 9, 1_000) for number in range(7)]
    lost = LostOrgans(organs, Config())
    dices = [0.93, *[0.0] * 6]
    row = {f"val_dice_{organ.name}": dice for organ, dice in zip(organs, dices, strict=True)}
    for epoch in range(3):
        lost.on_epoch_end(epoch, {"val_dice": 0.13, **row})
    assert lost.names == tuple(organ.name for organ in organs[1:])


def test_organs_that_an_epoch_did_not_find():
    """Of the best epoch, which may be any; without the patience of a warning."""
    lost, _ = watch([(0.6, 0.0), None, (0.7, 0.4), (0.0, NAN)])
    assert [lost.not_found_in(epoch) for epoch in (1, 3, 4)] == [("gallbladder",), (), ("liver",)]


def test_warning_names_organ_counts_and_what_to_try(caplog):
    config = Config(
        loss=LossConfig(name="dice"),
        training=TrainingConfig(learning_rate=0.01, warmup_steps=0),
        patches=PatchConfig(foreground_fraction=0.5),
    )
    watch([(0.6, 0.5), (0.7, 0.0), (0.7, 0.0), (0.8, 0.0)], config=config)
    assert caplog.messages == [
        "losing gallbladder (1200 voxels in 9 training cases): validation Dice below 0.05 in the"
        " last 3 validations after 0.50, while other organs are learnt; try"
        " loss.name=dice_cross_entropy, model.deep_supervision=1, training.warmup_steps=50, a"
        " training.learning_rate below 0.01, a patches.foreground_fraction above 0.5"
    ]


@pytest.mark.parametrize(
    ("changed", "advised"),
    [
        ({}, []),  # a class balance above the default is worse
        ({"loss.class_balance": 0.2}, ["loss.class_balance=0.5"]),
        ({"loss.name": "dice"}, ["loss.name=dice_cross_entropy"]),
        ({"loss.name": "tversky", "loss.alpha": 0.4}, []),  # the other has no alpha
        ({"training.warmup_steps": 0}, ["training.warmup_steps=50"]),
        ({"training": {"warmup_steps": 0, "epochs": 1, "steps_per_epoch": 50}}, []),  # too short
        ({"model": {"filters": [4, 8, 16]}}, ["model.deep_supervision=1"]),
        ({"model": {"filters": [4, 8]}}, []),  # no level to supervise
        ({"model": {"filters": [4, 8, 16], "padding": "valid"}}, []),
    ],
)
def test_advice_names_settings_that_the_run_can_have(changed, advised):
    config = override(PRESETS["demo"], {"model": {"filters": [4, 8, 16], "deep_supervision": 1}})
    config = override(config, changed)
    settings = [part for part in LostOrgans(ORGANS, config).advice.split(", ") if "=" in part]
    assert settings == advised
    for setting in settings:
        key, value = setting.split("=")
        override(config, {key: yaml.safe_load(value)})  # is not refused


def test_resumed_run_does_not_warn_again(caplog):
    _, rows = watch([(0.6, 0.0), (0.7, 0.01), (0.8, 0.0)])
    caplog.clear()
    resumed = LostOrgans(ORGANS, Config())
    resumed.resume(rows)
    assert resumed.names == ("gallbladder",)
    resumed.on_epoch_end(3, {"val_dice": 0.4, "val_dice_liver": 0.8, "val_dice_gallbladder": 0.0})
    assert caplog.messages == []


def test_end_names_the_organs_that_no_warning_has_named(caplog):
    lost, rows = watch([(0.6, 0.0), (0.7, 0.0)])  # too few validations for a warning
    resumed = LostOrgans(ORGANS, Config())
    resumed.resume(rows)
    for callback in (lost, resumed):
        caplog.clear()
        callback.warn_of_best(2)
        assert caplog.messages == [
            "lost organs, of a validation Dice below 0.05 in epoch 2, the best: gallbladder (1200"
            f" voxels in 9 training cases); try {callback.advice}"
        ]


def test_end_advises_more_epochs_where_nothing_is_learnt_yet(caplog):
    lost, _ = watch([(0.0, 0.0)])
    lost.warn_of_best(1)
    (message,) = caplog.messages
    assert message.endswith("in 9 training cases); try more training.epochs")


def test_end_does_not_warn_again(caplog):
    lost, rows = watch([(0.6, 0.0), (0.7, 0.0), (0.8, 0.0), (0.9, 0.4)])
    assert len(caplog.messages) == 1
    resumed = LostOrgans(ORGANS, Config())
    resumed.resume(rows)
    for callback in (lost, resumed):
        callback.warn_of_best(3)  # warned of before
        callback.warn_of_best(4)  # found
    assert len(caplog.messages) == 1


def test_organ_in_few_cases_is_warned_of(caplog):
    check_organs([*ORGANS, TrainingOrgan("pancreas", 2, 300)], source="the training cases of data")
    assert caplog.messages == [
        "organs in fewer than 3 cases: pancreas (300 voxels in 2 training cases)"
    ]


def test_organ_in_few_cases_of_records_without_fingerprint_is_warned_of(tmp_path, caplog):
    organs = {seed: (1, 2) if seed < 2 else (1,) for seed in range(5)}
    cases = [make_record(f"case_{seed}", seed=seed, organs=organs[seed]) for seed in organs]
    voxels = sum(int(np.count_nonzero(case.label == 2)) for case in cases)
    splits = {"train": [cases[:3], cases[3:]], "validation": [[make_record("case_5", seed=5)]]}
    dataset = Dataset.open(write_dataset(tmp_path / "data", splits))
    assert dataset.info.fingerprint is None
    check_each_organ(dataset)
    assert caplog.messages == [
        f"organs in fewer than 3 cases: spleen ({voxels} voxels in 2 training cases)"
    ]


def test_organ_in_no_validation_case_is_warned_of(tmp_path, caplog):
    cases = [make_record(f"case_{seed}", seed=seed) for seed in range(3)]
    without = make_record("case_3", seed=3, organs=(1,))
    dataset = Dataset.open(
        write_dataset(tmp_path / "data", {"train": [cases], "validation": [[without]]})
    )
    check_each_organ(dataset)
    assert caplog.messages == [
        "organs in no validation case, so no validation tells whether they are lost: spleen"
    ]
    caplog.clear()
    check_each_organ(dataset, ignore_label=2)
    assert caplog.messages == []


def livers_alone(folder):
    """Four cases, none of which has a spleen."""
    records = [make_record(f"case_{seed}", seed=seed, organs=(1,)) for seed in range(4)]
    return write_dataset(folder, {"train": [records[:3]], "validation": [records[3:]]})


def test_organ_without_a_voxel_in_training_is_refused(tmp_path):
    data = livers_alone(tmp_path / "data")
    with pytest.raises(DatasetError, match=r"the training cases of .* have no voxel of spleen"):
        check_each_organ(Dataset.open(data))
    check_each_organ(Dataset.open(data), ignore_label=2)  # counts nowhere


def test_fold_without_a_voxel_of_an_organ_is_refused(dataset_with_one_spleen):
    data, patient = dataset_with_one_spleen
    refused = 0
    for number in range(2):
        fold = Fold(number, 2)
        validating = fold.validating([f"case_{seed}" for seed in range(4)], seed=0)
        if patient in validating:
            refused += 1
            with pytest.raises(DatasetError, match=rf"fold {number} of 2 of .* voxel of spleen"):
                check_each_organ(Dataset.open(data), fold=fold)
        else:
            check_each_organ(Dataset.open(data), fold=fold)
    assert refused == 1


@pytest.fixture
def dataset_with_one_spleen(tmp_path):
    """Four cases of which one, of the named patient, has a spleen."""
    organs = {seed: (1, 2) if seed == 2 else (1,) for seed in range(4)}
    records = [make_record(f"case_{seed}", seed=seed, organs=organs[seed]) for seed in organs]
    data = tmp_path / "data"
    return write_dataset(data, {"train": [records[:3]], "validation": [records[3:]]}), "case_2"


@dataclasses.dataclass
class FixedMasks:
    """Stands for a segmenter that gives these masks in turn, again and again."""

    masks: list[np.ndarray]
    info: object = dataclasses.field(
        default_factory=lambda: types.SimpleNamespace(class_names=("background", "liver", "spleen"))
    )

    def segment_model_grid(self, image):
        del image
        self.masks = [*self.masks[1:], self.masks[0]]
        return tf.constant(self.masks[-1])


def test_an_organ_that_no_validation_case_has_is_left_out(tmp_path):
    """One voxel of it in a mask would make its Dice 0, lower the mean, and look like a loss."""
    data = livers_alone(tmp_path / "data")
    volumes = make_volume_dataset(Dataset.open(data), "validation")
    mask = next(iter(volumes))["label"].numpy()
    mask[0, 0, 0] = 2
    validation = Validation(FixedMasks([mask]), volumes, every=1, stop=StopRequest())
    mean, liver, spleen = validation.score()
    assert mean == liver > 0.9
    assert np.isnan(spleen)


def test_false_positives_do_not_make_an_organ_lost(tmp_path, caplog):
    """A voxel of it in each case that lacks it makes its validation Dice 0.04."""
    cases = [make_record(f"case_{n}", seed=n, organs=(1, 2) if n == 0 else (1,)) for n in range(25)]
    data = Dataset.open(write_dataset(tmp_path / "data", {"validation": [cases]}))
    volumes = make_volume_dataset(data, "validation")
    segmenter = FixedMasks([volume["label"].numpy() for volume in volumes])
    for mask in segmenter.masks:
        mask[0, 0, 0] = 2
    validation = Validation(segmenter, volumes, every=1, stop=StopRequest())
    lost = LostOrgans([TrainingOrgan(name, 9, 1_000) for name in ("liver", "spleen")], Config())
    validation.set_params({"epochs": 3})
    for epoch in range(3):
        logs = {}
        validation.on_epoch_end(epoch, logs)
        lost.on_epoch_end(epoch, logs)
    assert logs["val_dice_spleen"] < 0.05
    assert logs["lost_organs"] == 0
    assert lost.not_found_in(3) == ()
    assert caplog.messages == []


def unlearnable(record):
    """The case with a spleen of scattered voxels that look like what surrounds them."""
    rng = np.random.default_rng(int(record.case_id[-1]))
    label = np.where(record.label == 2, 0, record.label).astype(np.uint8)
    hu = np.where(label == 1, 200, -100) + rng.normal(0, 5, label.shape)
    rows = rng.choice(np.argwhere(label == 0), 12, replace=False)
    label[tuple(rows.T)] = 2
    coordinates = [np.argwhere(label == organ)[:1000] for organ in (1, 2)]
    return dataclasses.replace(
        record,
        image=hu.astype(np.int16),
        label=label,
        class_histogram=np.bincount(label.ravel(), minlength=3),
        foreground_coordinates=np.concatenate(coordinates).astype(np.int32),
        foreground_counts=np.array([0, *map(len, coordinates)]),
    )


@pytest.mark.parametrize(
    ("validate_every", "warning"),
    [(1, "losing spleen"), pytest.param(5, "lost organs, .* spleen", marks=pytest.mark.slow)],
)
def test_run_names_an_organ_that_cannot_be_learnt(tmp_path, caplog, validate_every, warning):
    records = [unlearnable(make_record(f"case_{seed}", seed=seed)) for seed in range(4)]
    data = write_dataset(tmp_path / "data", {"train": [records[:3]], "validation": [records[3:]]})
    config = make_config(
        ModelConfig(filters=(4, 8)),
        epochs=5,
        steps_per_epoch=20,
        learning_rate=1e-2,
        validate_every=validate_every,
    )
    train(override(config, {"loss.name": "dice"}), data, tmp_path / "run")
    assert read_run(tmp_path / "run").lost_organs == ("spleen",)
    assert sum(re.match(warning, message) is not None for message in caplog.messages) == 1
    assert sum("; try " in message for message in caplog.messages) == 1
