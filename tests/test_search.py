"""The search space, and a search of a few trials."""

from __future__ import annotations

import json

import pytest
import yaml
from small_records import write_small_dataset

from fcnseg.config import (
    Config,
    InferenceConfig,
    ModelConfig,
    PatchConfig,
    TrainingConfig,
    override,
    read_config,
    write_config,
)
from fcnseg.errors import ConfigError, DatasetError, InputError
from fcnseg.training import read_run
from tuning.search import SearchCommand, SearchError
from tuning.space import SearchSpace

# KerasTuner asks its threads for their names as was done before Python 3.10.
pytestmark = [
    pytest.mark.filterwarnings(
        r"ignore:(currentThread|getName)\(\) is deprecated:DeprecationWarning"
    )
]

CONFIG = Config(
    model=ModelConfig(filters=(4, 8)),
    patches=PatchConfig(size=(8, 8, 8), per_read=2, shuffle_buffer=4),
    training=TrainingConfig(epochs=1, steps_per_epoch=2),
    inference=InferenceConfig(overlap=(2, 2, 2)),
)
SPACE = {
    "training.learning_rate": {"float": [1e-4, 1e-1], "log": True},
    "model.filters": {"choice": [[4, 8], [2, 4, 8]]},
    "patches.per_read": {"int": [2, 8], "step": 2},
    "training.class_weights": {"choice": ["uniform", "square"]},
}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return write_small_dataset(tmp_path_factory.mktemp("data") / "records")


def write_space(folder, space):
    path = folder / "space.yaml"
    path.write_text(yaml.safe_dump(space))
    return path


def make_command(folder, dataset, space=None, **changes):
    facts = {
        "data": dataset,
        "config": "",
        "space": write_space(folder, space or SPACE),
        "max_trials": 2,
        "output": folder / "search",
        "settings": CONFIG,
    }
    return SearchCommand(**{**facts, **changes})


def test_drawn_settings_make_configurations(tmp_path):
    space = SearchSpace.read(write_space(tmp_path, SPACE))
    space.check(CONFIG)
    parameters = space.hyperparameters()
    filters = set()
    for seed in range(30):
        drawn = {each.name: each.random_sample(seed) for each in parameters.space}
        config = override(CONFIG, space.settings(drawn))
        assert 1e-4 <= config.training.learning_rate <= 1e-1
        assert config.patches.per_read in (2, 4, 6, 8)
        filters.add(config.model.filters)
    assert filters == {(4, 8), (2, 4, 8)}


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({}, "must map dotted keys"),
        ({"training.learning_rate": 1}, "learning_rate must have one of choice, float, int, got 1"),
        ({"a.b": {"int": [1, 2], "float": [1, 2]}}, "a.b must have one of"),
        ({"a.b": {"choice": []}}, "choice must list at least one value"),
        ({"a.b": {"float": [2, 1]}}, "float must be .* low < high, got .2.0, 1.0"),
        ({"a.b": {"float": [0, 1], "log": True}}, "float must be above 0 where log is true"),
        ({"a.b": {"int": [1.5, 2]}}, "a.b: int.0: .* valid integer, got 1.5"),
        ({"a.b": {"int": [1, 2], "stpe": 2}}, "a.b: stpe: "),
    ],
)
def test_bad_space_is_named(tmp_path, space, message):
    with pytest.raises(ConfigError, match=message) as caught:
        SearchSpace.read(write_space(tmp_path, space))
    assert "space.yaml" in str(caught.value)


def test_missing_space_is_named(tmp_path):
    with pytest.raises(ConfigError, match="search space .*nowhere.yaml cannot be read"):
        SearchSpace.read(tmp_path / "nowhere.yaml")


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({"training.rate": {"float": [1, 2]}}, "unknown key 'rate' in training; known: epochs"),
        ({"model.dropout": {"float": [0, 1]}}, "model.dropout: .*less than 1, got 1.0"),
        ({"model.skip": {"choice": ["sum", "add"]}}, "model.skip: .*got 'add'"),
    ],
)
def test_space_that_the_configuration_refuses_ends_before_any_trial(
    dataset, tmp_path, space, message
):
    with pytest.raises(ConfigError, match=message):
        make_command(tmp_path, dataset, space).run()
    assert not (tmp_path / "search").exists()


@pytest.mark.parametrize("oracle", ["random", pytest.param("bayesian", marks=pytest.mark.slow)])
def test_search_ends_in_a_configuration_that_trains(dataset, tmp_path, capsys, oracle):
    make_command(tmp_path, dataset, oracle=oracle).run()
    trials = json.loads((tmp_path / "search" / "trials.json").read_text())
    assert len(trials) == 2
    assert trials[0]["val_dice"] >= trials[1]["val_dice"]
    for trial in trials:
        run = read_run(tmp_path / "search" / "trials" / trial["trial_id"])
        assert run.config == override(CONFIG, trial["settings"])
        assert run.best_dice == trial["val_dice"]
    best = read_config(tmp_path / "search" / "best.yaml")
    assert best == override(CONFIG, trials[0]["settings"])
    table = capsys.readouterr().out
    assert f"{trials[0]['val_dice']:.4f}" in table


def test_failing_trial_does_not_end_the_search(dataset, tmp_path):
    """A patch of 9 voxels does not fit the network: known only when it is built."""
    space = {"patches.size": {"choice": [[8, 8, 8], [9, 8, 8], [8, 9, 8], [8, 8, 9]]}}
    make_command(tmp_path, dataset, space, max_trials=4).run()
    best, *failed = json.loads((tmp_path / "search" / "trials.json").read_text())
    assert best["settings"] == {"patches.size": [8, 8, 8]}
    assert len(failed) == 3
    for trial in failed:
        assert trial["val_dice"] is None
        assert "ModelError: the input's" in trial["error"]


def test_search_without_a_good_trial_says_why(dataset, tmp_path):
    space = {"patches.size": {"choice": [[9, 8, 8]]}}
    with pytest.raises(SearchError, match="all 1 trials failed; the first: ModelError: the input"):
        make_command(tmp_path, dataset, space, max_trials=1).run()
    assert not (tmp_path / "search" / "best.yaml").exists()


def test_bad_arguments_are_named(dataset, tmp_path):
    with pytest.raises(InputError, match="max_trials must be at least 1, got 0"):
        make_command(tmp_path, dataset, max_trials=0).run()
    with pytest.raises(DatasetError, match="no such folder"):
        make_command(tmp_path, tmp_path / "nowhere").run()
    with pytest.raises(InputError, match="output must be a new or empty folder, got "):
        make_command(tmp_path, dataset, output=tmp_path).run()


def test_flags_override_the_configuration(tmp_path):
    from fcnseg.command import parse

    write_config(CONFIG, tmp_path / "base.yaml")
    argv = f"--data d --config {tmp_path}/base.yaml --space s --max_trials 3 --output o"
    command = parse(SearchCommand, [*argv.split(), "--training.epochs", "7"])
    assert command.settings == override(CONFIG, {"training.epochs": 7})
