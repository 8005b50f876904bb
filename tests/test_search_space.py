"""The search space: what is drawn from it, and what is refused before any trial."""

from __future__ import annotations

import datetime

import pytest
import yaml

from fcnseg.config import PRESETS, Config, override
from fcnseg.errors import ConfigError
from tuning.running import SPACES
from tuning.space import SearchSpace
from tuning.space_checks import checked_space

BASE = override(Config(), {"patches.size": [16, 16, 16], "inference.overlap": [4, 4, 4]})
LOSSES = {"loss.name": {"choice": ["dice", "tversky"]}}


def read(folder, content):
    path = folder / "space.yaml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return SearchSpace.read(path)


def check(folder, content, base=BASE):
    return checked_space(read(folder, content), base)


def test_drawn_settings_make_configurations(tmp_path):
    content = {
        "training.learning_rate": {"float": [1e-4, 1e-1], "log": True},
        "model.filters": {"choice": [[4, 8], [2, 4, 8]]},
        "patches.samples_per_volume": {"int": [2, 8], "step": 2},
        "patches.shuffle_buffer": {"int": [4, 64], "step": 2, "log": True},
    }
    space = check(tmp_path, content)
    found = {key: set() for key in content}
    for seed in range(60):
        drawn = {each.name: each.random_sample(seed) for each in space.hyperparameters().space}
        config = override(BASE, space.decoded(drawn))
        for key, value in space.own_values(config).items():
            found[key].add(str(value))
    rates = sorted(map(float, found["training.learning_rate"]))
    assert 1e-4 <= rates[0] < 1e-3 < 1e-2 < rates[-1] <= 1e-1
    assert found["model.filters"] == {"[4, 8]", "[2, 4, 8]"}
    assert found["patches.samples_per_volume"] == {"2", "4", "6", "8"}
    assert found["patches.shuffle_buffer"] == {"4", "8", "16", "32", "64"}


STEPS = [
    ({"float": [0.0, 0.3], "step": 0.1}, [0.0, 0.1, 0.2, 0.3]),
    ({"float": [0.2, 0.5], "step": 0.1}, [0.2, 0.3, 0.4, 0.5]),
    ({"float": [0.8, 1.0], "step": 0.1}, [0.8, 0.9, 1.0]),
    ({"float": [0.33, 0.99], "step": 0.33}, [0.33, 0.66, 0.99]),
    ({"float": [0.2, 1.0], "step": 0.2}, [0.2, 0.4, 0.6, 0.8, 1.0]),
    ({"float": [0.2, 1.0], "step": 0.3}, [0.2, 0.5, 0.8]),
    ({"float": [0.0, 0.9], "step": 0.30000000000000004}, [0.0, 0.3, 0.6, 0.9]),
    ({"float": [1e-8, 5e-8], "step": 2e-8}, [1e-8, 3e-8, 5e-8]),
    ({"float": [1e-4, 1.0], "log": True, "step": 10}, [1e-4, 1e-3, 1e-2, 1e-1, 1.0]),
    (
        {"float": [1e-4, 1e-2], "log": True, "step": 3.1622776601683795},
        [1e-4, 3.1622776601684e-4, 1e-3, 3.1622776601684e-3, 1e-2],
    ),
    (
        {"float": [0.123456789012345, 1.0], "log": True, "step": 8},
        [0.123456789012345, 0.98765431209876],
    ),
    ({"int": [2, 9], "step": 3}, [2, 5, 8]),
    ({"int": [1, 1000], "log": True, "step": 10}, [1, 10, 100, 1000]),
    ({"int": [3, 250], "log": True, "step": 3}, [3, 9, 27, 81, 243]),
]
KEYS = {"float": "training.learning_rate", "int": "patches.shuffle_buffer"}


@pytest.mark.parametrize(("values", "expected"), STEPS)
def test_steps_give_the_numbers_as_they_are_written(tmp_path, values, expected):
    """All of them are drawn, and grid search, Bayesian search and trial 0 have the same ones."""
    key = KEYS[next(iter(values))]
    space = read(tmp_path, {key: values})
    assert list(space.settings[key].values.all_values()) == expected
    (hp,) = space.hyperparameters().space
    drawn = {hp.random_sample(seed) for seed in range(200)}
    assert {space.decoded({key: each})[key] for each in drawn} == set(expected)
    assert {space.encode({key: value})[key] for value in expected} == drawn
    places = [hp.value_to_prob(space.encode({key: value})[key]) for value in expected]
    assert places == pytest.approx([(2 * n + 1) / 2 / len(expected) for n in range(len(expected))])


@pytest.mark.parametrize(
    "values",
    [
        {"float": [1e-4, 1], "log": True, "step": 1.0000001},
        {"float": [0, 1], "step": 1e-9},
        {"float": [-1e100, 1e100], "step": 1e-300},
        {"float": [1e-100, 1e100], "log": True, "step": 1.0000001},
    ],
)
def test_steps_too_small_for_a_list_are_refused_at_once(tmp_path, values):
    with pytest.raises(ConfigError, match="step must give at most 100000 values"):
        read(tmp_path, {"training.learning_rate": values})


def test_a_base_that_is_a_step_is_in_the_space(tmp_path):
    """As 0.6 is in the space thorough."""
    content = {"patches.foreground_fraction": {"float": [0.2, 1.0], "step": 0.2}}
    base = override(BASE, {"patches.foreground_fraction": 0.6})
    space = check(tmp_path, content, base)
    drawn = space.encoded(base)
    assert drawn is not None
    assert space.decoded(drawn) == {"patches.foreground_fraction": 0.6}


def test_texts_of_yaml_become_numbers_and_stand_once(tmp_path):
    """YAML reads 1e-3 as a text."""
    space = check(tmp_path, "training.learning_rate: {choice: [1e-3, 0.01]}")
    assert space.settings["training.learning_rate"].values.choice == [0.001, 0.01]
    space = check(tmp_path, "training.learning_rate: {float: [1e-3, 1], log: true, step: 1e1}")
    assert list(space.settings["training.learning_rate"].values.all_values()) == [
        1e-3,
        0.01,
        0.1,
        1,
    ]
    with pytest.raises(ConfigError, match="choice must list each value once, got 0.001 again"):
        check(tmp_path, "training.learning_rate: {choice: [1e-3, 0.001]}")


def test_conditions_may_stand_before_what_they_depend_on(tmp_path):
    content = {
        "loss.alpha": {"float": [0.2, 0.4], "step": 0.1, "when": {"loss.name": "tversky"}},
        **LOSSES,
    }
    space = check(tmp_path, content)
    assert list(space.settings) == ["loss.name", "loss.alpha"]
    combinations = list(space.combinations())
    assert {"loss.name": "dice"} in combinations
    assert len(combinations) == 1 + 3


def test_a_condition_may_be_a_text_as_yaml_reads_it(tmp_path):
    content = """
model.l2: {choice: [0.001, 0.9]}
training.clip_norm: {choice: [1.0], when: {model.l2: 1e-3}}
"""
    space = check(tmp_path, content)
    assert space.settings["training.clip_norm"].when == {"model.l2": [0.001]}


def test_a_setting_whose_effect_needs_another_is_taken_where_it_has_it(tmp_path):
    content = {
        "augmentation.deformation_voxels": {"choice": [[0, 0, 0], [4, 4, 4]]},
        "augmentation.control_spacing_voxels": {
            "choice": [[8, 8, 8], [24, 24, 24]],
            "when": {"augmentation.deformation_voxels": [[4, 4, 4]]},
        },
        "training.momentum": {"float": [0.5, 0.9]},  # the base has sgd
    }
    base = override(BASE, {"training.optimizer": "sgd"})
    assert check(tmp_path, content, base).settings.keys() == content.keys()


def test_the_end_of_a_range_is_no_setting_without_effect(tmp_path):
    """No trial draws exactly 0."""
    content = {
        "augmentation.noise_hu": {"float": [0, 30]},
        "augmentation.intensity_probability": {"float": [0, 0.3]},
    }
    space = read(tmp_path, content)
    assert checked_space(space, PRESETS["demo"]).settings.keys() == content.keys()
    steps = {**content, "augmentation.noise_hu": {"float": [0, 30], "step": 10}}
    with pytest.raises(ConfigError, match="only counts where augmentation changes HU"):
        checked_space(read(tmp_path, steps), PRESETS["demo"])


def test_values_that_exclude_each_other_are_no_pair(tmp_path):
    """Alpha is of Tversky's loss, and smoothing of the cross-entropy."""
    content = {
        "loss.name": {"choice": ["tversky", "cross_entropy"]},
        "loss.alpha": {"choice": [0.1, 0.2], "when": {"loss.name": "tversky"}},
        "loss.label_smoothing": {"choice": [0.1], "when": {"loss.name": ["cross_entropy"]}},
    }
    assert len(list(check(tmp_path, content).combinations())) == 3


@pytest.mark.parametrize("name", ["quick", "thorough"])
@pytest.mark.parametrize("preset", ["demo", "fcn_s", "fcn_m"])
def test_spaces_of_fcnseg_fit_its_presets(name, preset):
    space = SearchSpace.read(SPACES / f"{name}.yaml")
    assert checked_space(space, PRESETS[preset]).settings.keys() == space.settings.keys()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"training.lr": {"choice": [1]}}, "unknown key 'lr' in training; known: .*space.yaml"),
        ({"training.learning_rte": {"choice": [1]}}, "did you mean learning_rate"),
        ({"trainng.learning_rate": {"choice": [1]}}, "unknown section 'trainng' in"),
        ({"training": {"choice": [1]}}, "unknown key '' in training"),
        ({"training.step_at": {"choice": [[0.5]]}}, "step_at is training.milestones now"),
        ({"training.seed": {"int": [0, 9]}}, "training.seed must not be searched: the luck"),
        ({"training.epochs": {"int": [1, 9]}}, "training.epochs must not be searched: trials of"),
        ({"training.validate_every": {"choice": [1]}}, "validate_every must not be searched"),
        (
            {"training.steps_per_epoch": {"int": [1, 9]}},
            "per_epoch must not be searched: trials",
        ),
        ({"training.patience": {"int": [0, 9]}}, "patience must not be searched: trials of other"),
        ({"training.time_limit_hours": {"float": [0, 9]}}, "limit_hours must not be searched: tri"),
        ({"training.tensorboard": {"choice": [True, False]}}, "searched: it does not change the"),
        ({"model.coarse_input": {"choice": [True]}}, "coarse_input must not be searched: records"),
        ({"loss.ignore_label": {"choice": [1]}}, "ignore_label must not be searched: it changes"),
        ({"training.learning_rate": {"choice": [1e-3, -1]}}, "learning_rate=-1 breaks a rule: "),
        ({"model.dropout": {"float": [0, 1]}}, "model.dropout=1.0 breaks a rule: .*less than 1"),
        ({"patches.batch_size": {"float": [1, 4]}}, "batch_size must have int or choice, as it is"),
        ({"patches.batch_size": {"choice": [1, 1.5]}}, "batch_size=1.5 breaks a rule"),
        ({"patches.batch_size": {"choice": [True, 2]}}, "must not list true or false"),
        ({"training.jit_compile": {"choice": [True, False]}}, "searched: it does not change the"),
        ({"loss.batch_dice": {"int": [0, 1]}}, "batch_dice must have choice, as it is not"),
        ({"patches.size": {"int": [8, 16]}}, "patches.size must have choice, as it is not one"),
        ({"training.optimizer": {"choice": ["adm"]}}, "optimizer=adm breaks a rule"),
        ({"patches.samples_per_volume": {"int": [1.5, 2]}}, "int.0: .*valid integer, got 1.5"),
        ({"patches.samples_per_volume": {"int": [1, 2], "stpe": 2}}, "samples_per_volume: stpe: "),
        ({"patches.samples_per_volume": {"int": [1, 4], "step": 9}}, "step must be above 0 and at"),
        ({"training.learning_rate": {"float": [0.1, 3], "step": True}}, "step: .*number, got True"),
        ({"training.learning_rate": {"float": [True, 3]}}, "float.0: .*number, got True"),
        ({"training.learning_rate": {"float": [0.1, 3], "log": 1}}, "log: .*boolean, got 1"),
        ({"patches.batch_size": {"int": [1, 3], "step": True}}, "step: .*integer, got True"),
        ({"patches.batch_size": {"int": [1, 3], "log": "true"}}, "log: .*boolean, got 'true'"),
        ({"training.learning_rate": {"float": [0.1, 0.01]}}, "low < high"),
        ({"training.learning_rate": {"float": [0, 1], "log": True}}, "above 0 where log"),
        (
            {"training.learning_rate": {"float": [0.1, 1], "log": True, "step": 0.5}},
            "step must be a factor above 1",
        ),
        ({"training.learning_rate": {"float": [0, float("inf")]}}, "finite number"),
        ({"training.learning_rate": {"flaot": [0, 1]}}, "must have one of choice, float, int"),
        ({"training.learning_rate": {"choice": [1], "int": [1, 2]}}, "must have one of"),
        ({"training.learning_rate": {"choice": []}}, "at least one value"),
        ({"training.learning_rate": {"choice": [0.1, 0.1]}}, "each value once, got 0.1 again"),
        ("training.learning_rate: {choice: !!set {0.1, 0.2}}", "choice: Input should be a .*list"),
        (
            {"training.learning_rate": {"float": [1e-300, 1e300], "log": True}},
            r"float must be a range with finite width, got \[1e-300, 1e\+300\]",
        ),
        ({"training.learning_rate": {"float": [-1e308, 1e308]}}, "a range with finite width"),
        ({"patches.shuffle_buffer": {"int": [1, 10**400]}}, "int.1: .*less than"),
        ({"training.learning_rate": {"choice": [datetime.date(2026, 1, 1)]}}, "numbers, words"),
        ({"training.learning_rate": 3}, "must have one of"),
        (
            {"training.learning_rate.x": {"choice": [1]}},
            "unknown key 'training.learning_rate.x': learning_rate is a value and has no keys",
        ),
        ({"": {"choice": [1]}}, "unknown section ''"),
        ({1: {"choice": [1]}}, "must have dotted keys, got 1"),
        ({"loss.class_weights": {"choice": [[0, 0, 0]]}}, "must not be 0 for all that counts"),
        ([], "must map dotted keys to values"),
        ("a: [", "cannot be read"),
        (
            "training.learning_rate: {choice: [1]}\ntraining.learning_rate: {choice: [2]}",
            "key 'training.learning_rate' in line 2 is there also in line 1",
        ),
        # Rules that hold between settings.
        ({"patches.size": {"choice": [[7, 16, 16]]}}, r"patches.size=\[7, 16, 16\] breaks a rule"),
        (
            {
                "model.filters": {"choice": [[4, 8, 8, 8], [4, 8]]},
                "model.deep_supervision": {"choice": [0, 2]},
            },
            r"supervision=2 with model.filters=\[4, 8\] breaks a rule: .*at most 0",
        ),
        (
            {**LOSSES, "loss.alpha": {"choice": [0.1, 0.3]}},
            "loss.alpha=0.1 breaks a rule: .*left alone where loss.name is dice",
        ),
        (
            {"patches.shuffle_buffer": {"int": [1, 10**30]}},
            "int.1: .*less than 9223372036854775808",
        ),
        ({"inference.skip_air": {"choice": [True, False]}}, "searched: it does not change the"),
        # Settings without an effect.
        (
            {"augmentation.run_on": {"choice": ["host", "device"]}},
            "only counts where there is augmentation",
        ),
        (
            {"training.momentum": {"choice": [0.9]}},
            "momentum=0.9 breaks a rule: training.momentum must have a `when`, or another base: it"
            " only counts where training.optimizer is sgd",
        ),
        (
            {
                "training.schedule": {"choice": ["poly", "cosine"]},
                "training.poly_power": {"choice": [0.9]},
            },
            "schedule=cosine breaks a rule: training.poly_power must have a `when`",
        ),
        (
            {
                "loss.name": {"choice": ["tversky", "dice"]},
                "loss.alpha": {"choice": [0.3]},  # the default, which no rule of a loss refuses
            },
            "loss.name=dice breaks a rule: loss.alpha must have a `when`, or another base: it only"
            " counts where loss.name is tversky",
        ),
        (
            {"augmentation.control_spacing_voxels": {"choice": [[8, 8, 8]]}},
            "only counts where augmentation.deformation_voxels is above 0",
        ),
        (
            {"augmentation.intensity_probability": {"float": [0.1, 0.5]}},
            "only counts where augmentation changes HU",
        ),
        (
            {
                "augmentation.intensity_probability": {"choice": [0.0, 0.2]},
                "augmentation.noise_hu": {"choice": [5.0, 10.0]},
            },
            "only counts where augmentation.intensity_probability is above 0",
        ),
        (
            {
                "loss.batch_dice": {"choice": [True, False]},
                "patches.batch_size": {"choice": [2, 1]},
            },
            "batch_size=1 breaks a rule: .*, and patches.batch_size is above 1",
        ),
        # Conditions.
        (
            {
                "patches.batch_size": {"choice": [1, 2]},
                "training.clip_norm": {"choice": [1.0], "when": {"patches.batch_size": True}},
            },
            r"when must not have true or false for patches.batch_size, got \[True\]",
        ),
        ({"loss.alpha": {"choice": [1], "when": {"loss.name": "dice"}}}, "when must name settings"),
        ({"loss.alpha": {"choice": [1], "when": {}}}, "when must map keys to values"),
        ({"loss.alpha": {"choice": [1], "when": "dice"}}, "when must map keys to values"),
        (
            {**LOSSES, "loss.alpha": {"choice": [1], "when": {"loss.name": "focal"}}},
            r"when must have values of loss.name, \['dice', 'tversky'\], got 'focal'",
        ),
        (
            {
                "model.norm": {"choice": ["batch"], "when": {"model.skip": "sum"}},
                "model.skip": {"choice": ["sum"], "when": {"model.norm": "batch"}},
            },
            "when must not form a circle, got that of model.norm, model.skip",
        ),
        (
            {
                "training.optimizer": {"choice": ["adam", "sgd"]},
                "training.schedule": {
                    "choice": ["poly", "cosine"],
                    "when": {"training.optimizer": "adam"},
                },
                "training.momentum": {
                    "choice": [0.5],
                    "when": {"training.optimizer": "sgd", "training.schedule": "poly"},
                },
            },
            "training.momentum: when must leave training.optimizer a value, got .'sgd'. and "
            ".'adam'., by training.schedule",
        ),
    ],
)
def test_a_bad_space_is_refused_with_its_file_key_and_rule(tmp_path, content, message):
    with pytest.raises(ConfigError, match=message) as caught:
        check(tmp_path, content)
    assert "space.yaml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_space_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"search space .*space\.yaml cannot be read"):
        SearchSpace.read(tmp_path / "space.yaml")


def test_a_base_outside_the_space_has_no_values_there(tmp_path):
    space = check(tmp_path, {"training.learning_rate": {"choice": [0.5]}})
    assert space.encoded(BASE) is None
    space = check(tmp_path, {"training.learning_rate": {"float": [1e-4, 1e-2]}})
    assert space.encoded(BASE) == {"training.learning_rate": BASE.training.learning_rate}
