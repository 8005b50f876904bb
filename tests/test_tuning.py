"""The search: what is drawn, what fails, and what is left."""

from __future__ import annotations

import datetime
import json
import os
import signal
import subprocess
import sys
import time

import pytest
import yaml
from small_records import make_record, write_dataset

from fcnseg.cli.command import parse, run_command
from fcnseg.config import Config, override, read_config, write_config
from fcnseg.errors import ConfigError, InputError
from fcnseg.training import TrainingStoppedError
from fcnseg.training.loop import TrainingLoop
from tuning import search as tuning_search
from tuning.search import (
    BEST_CONFIG_FILE,
    TRIALS_FILE,
    SearchCommand,
    SearchError,
    SearchStoppedError,
)
from tuning.space import SearchSpace

SMALL = override(
    Config(),
    {
        "model.filters": [2, 4],
        "patches.size": [8, 8, 8],
        "patches.batch_size": 1,
        "training.epochs": 1,
        "training.steps_per_epoch": 1,
        "inference.overlap": [0, 0, 0],
    },
)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    splits = {
        split: [[make_record(split, seed=seed)]]
        for seed, split in enumerate(("train", "validation"))
    }
    return write_dataset(tmp_path_factory.mktemp("tuning") / "records", splits)


def write_space(folder, content):
    path = folder / "space.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def search(dataset, folder, space, **flags):
    command = SearchCommand(
        data=dataset,
        config=SMALL,
        space=write_space(folder, space),
        output=folder / "search",
        **{"max_trials": 2, **flags},
    )
    command.run()
    return json.loads((folder / "search" / TRIALS_FILE).read_text())


def test_drawn_settings_make_configurations(tmp_path):
    content = {
        "training.learning_rate": {"float": [1e-4, 1e-1], "log": True},
        "model.filters": {"choice": [[4, 8], [2, 4, 8]]},
        "patches.samples_per_volume": {"int": [2, 8], "step": 2},
    }
    space = SearchSpace.read(write_space(tmp_path, content))
    rates, filters, samples_per_volume = [], set(), set()
    for seed in range(60):
        drawn = {each.name: each.random_sample(seed) for each in space.hyperparameters().space}
        config = override(SMALL, space.settings(drawn))
        rates.append(config.training.learning_rate)
        filters.add(config.model.filters)
        samples_per_volume.add(config.patches.samples_per_volume)
    assert 1e-4 <= min(rates) < 1e-3 < 1e-2 < max(rates) <= 1e-1
    assert filters == {(4, 8), (2, 4, 8)}
    assert samples_per_volume == {2, 4, 6, 8}


@pytest.mark.parametrize("oracle", ["random", pytest.param("bayesian", marks=pytest.mark.slow)])
def test_search_ends_in_the_configuration_of_its_best_trial(dataset, tmp_path, oracle):
    space = {
        "training.learning_rate": {"float": [1e-4, 1e-2], "log": True},
        "model.filters": {"choice": [[2, 4], [4, 8]]},
        "training.steps_per_epoch": {"int": [1, 2]},
    }
    trials = search(dataset, tmp_path, space, oracle=oracle)
    assert len(trials) == 2
    assert trials[0]["val_dice"] >= trials[1]["val_dice"]
    best = read_config(tmp_path / "search" / BEST_CONFIG_FILE)
    assert best == override(SMALL, trials[0]["settings"])
    run = tmp_path / "search/trials" / trials[0]["trial_id"]
    assert read_config(run / "config.yaml") == best
    assert json.loads((run / "run.json").read_text())["best_dice"] == trials[0]["val_dice"]


def test_failing_trial_does_not_end_the_search(dataset, tmp_path):
    """A patch of 7 voxels does not fit two levels; one of 8 does."""
    space = {"patches.size": {"choice": [[7, 8, 8], [8, 8, 8]]}}
    good, bad = search(dataset, tmp_path, space)
    assert good["settings"] == {"patches.size": [8, 8, 8]}
    assert good["error"] is None
    assert bad["val_dice"] is None
    assert "ModelError: the input's z must fit" in bad["error"]
    assert read_config(tmp_path / "search" / BEST_CONFIG_FILE).patches.size == (8, 8, 8)


def test_a_signal_ends_the_search_and_not_the_trial_alone(dataset, tmp_path, monkeypatch):
    trials = []

    def stop(*args, **kwargs):
        trials.append(args)
        raise TrainingStoppedError(signal.SIGINT)

    monkeypatch.setattr("tuning.search.train", stop)
    space = {"training.learning_rate": {"float": [1e-4, 1e-2], "log": True}}
    with pytest.raises(
        SearchStoppedError, match="^search stopped by SIGINT: 0 of . trials finished$"
    ) as caught:
        search(dataset, tmp_path, space)
    assert (len(trials), caught.value.exit_status) == (1, 130)


def test_search_without_a_good_trial_leaves_no_best(dataset, tmp_path):
    space = {"patches.size": {"choice": [[7, 8, 8]]}}
    with pytest.raises(SearchError, match="all 1 trials failed; the first: ModelError"):
        search(dataset, tmp_path, space, max_trials=1)
    assert (tmp_path / "search" / TRIALS_FILE).exists()
    assert not (tmp_path / "search" / BEST_CONFIG_FILE).exists()


RATES = {"training.learning_rate": {"choice": [1e-3, 2e-3, 3e-3, 4e-3]}}


def during_trial(monkeypatch, number, module, function, action):
    """Does something at the first call of a function in the trial of this number, from 0."""
    original, trials = getattr(module, function), []

    def act_and_call(*args, **kwargs):
        if number == len(trials):
            action()
        return original(*args, **kwargs)

    train = tuning_search.train

    def count_and_train(*args, **kwargs):
        try:
            return train(*args, **kwargs)
        finally:
            trials.append(1)

    monkeypatch.setattr(module, function, act_and_call)
    monkeypatch.setattr(tuning_search, "train", count_and_train)


def terminate():
    os.kill(os.getpid(), signal.SIGTERM)


def interrupt():
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("number", "module", "function"),
    [
        pytest.param(0, TrainingLoop, "run_steps", id="in the first trial"),
        pytest.param(1, TrainingLoop, "run_steps", id="in the second trial"),
        pytest.param(1, tuning_search, "override", id="before the training listens"),
        pytest.param(1, tuning_search.gc, "collect", id="between trials"),
    ],
)
def test_sigterm_ends_the_search(dataset, tmp_path, monkeypatch, number, module, function):
    before = signal.getsignal(signal.SIGTERM)
    during_trial(monkeypatch, number, module, function, terminate)
    finished = r"0 of 3 trials finished$" if number == 0 else "1 of 3 trials finished, written to"
    with pytest.raises(SearchStoppedError, match=f"^search stopped by SIGTERM: {finished}") as got:
        search(dataset, tmp_path, RATES, max_trials=3)
    assert got.value.exit_status == 143
    assert signal.getsignal(signal.SIGTERM) is before
    check_unfinished(tmp_path / "search", trials=number)


def test_interrupt_ends_the_search(dataset, tmp_path, monkeypatch):
    during_trial(monkeypatch, 1, TrainingLoop, "run_steps", interrupt)
    with pytest.raises(KeyboardInterrupt):
        search(dataset, tmp_path, RATES, max_trials=3)
    check_unfinished(tmp_path / "search", trials=1)


def check_unfinished(folder, *, trials):
    """That the finished trials are noted, none as failed, and no configuration as the best."""
    path = folder / TRIALS_FILE
    noted = json.loads(path.read_text()) if path.exists() else []
    assert len(noted) == trials
    assert all(trial["error"] is None and trial["val_dice"] is not None for trial in noted)
    assert not (folder / BEST_CONFIG_FILE).exists()


@pytest.mark.slow
def test_command_ends_on_sigterm_with_a_line(dataset, tmp_path):
    write_config(override(SMALL, {"training.epochs": 10**6}), tmp_path / "base.yaml")
    space = write_space(tmp_path, RATES)
    flags = f"--data {dataset} --config {tmp_path}/base.yaml --space {space} --max_trials 3"
    command = [sys.executable, "-m", "tuning.search", *flags.split(), "--output", tmp_path / "s"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 120
        while not (tmp_path / "s/trials/0/config.yaml").exists():
            assert time.monotonic() < deadline
            time.sleep(0.1)
        process.terminate()
        _, said = process.communicate(timeout=120)
    assert process.returncode == 143
    assert said.decode().splitlines()[-1] == (
        "error: search stopped by SIGTERM: 0 of 3 trials finished"
    )
    assert b"Traceback" not in said
    assert not (tmp_path / "s/trials/1").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"training.lr": {"choice": [1]}}, "unknown key 'lr' in training"),
        ({"training.learning_rate": {"choice": [1e-3, -1]}}, "greater than 0"),
        ({"model.dropout": {"float": [0, 1]}}, "model.dropout: .*less than 1, got 1.0"),
        (
            {"patches.samples_per_volume": {"int": [1.5, 2]}},
            r"int.0: .*valid integer, got 1.5 .*space\.yaml",
        ),
        (
            {"patches.samples_per_volume": {"int": [1, 2], "stpe": 2}},
            "patches.samples_per_volume: stpe: ",
        ),
        ({"training.learning_rate": {"float": [0.1, 0.01]}}, "low < high"),
        ({"training.learning_rate": {"float": [0, 1], "log": True}}, "above 0 where log"),
        ({"training.learning_rate": {"flaot": [0, 1]}}, "must have one of choice, float, int"),
        ({"training.learning_rate": {"choice": []}}, "at least one value"),
        ({"training.learning_rate": 3}, "must have one of"),
        (
            {"training.learning_rate.x": {"choice": [1]}},
            "unknown key 'training.learning_rate.x': learning_rate is a value and has no keys",
        ),
        ({"model.filters.0.x": {"int": [1, 2]}}, "unknown key 'model.filters.0.x': filters is a"),
        ({"": {"choice": [1]}}, "unknown section ''"),
        ({"training.": {"choice": [1]}}, "unknown key '' in training"),
        ({1: {"choice": [1]}}, "must have dotted keys, got 1"),
        ({"training.epochs": {"choice": [datetime.date(2026, 1, 1)]}}, "numbers, words and lists"),
        ({"training.epochs": {"choice": [1], "int": [1, 2]}}, "must have one of"),
        ({"training.learning_rate": {"float": [0, float("inf")]}}, "finite number"),
        ({"loss.class_weights": {"choice": [[0, 0, 0]]}}, "must not be 0 for all that counts"),
        ([], "must map dotted keys to values"),
    ],
)
def test_bad_space_is_refused_before_any_trial(dataset, tmp_path, content, message):
    with pytest.raises(ConfigError, match=message):
        search(dataset, tmp_path, content)
    assert not (tmp_path / "search").exists()


def test_missing_space_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"search space .*space\.yaml cannot be read"):
        SearchSpace.read(tmp_path / "space.yaml")


def test_folder_in_use_is_refused(dataset, tmp_path):
    (tmp_path / "search").mkdir()
    (tmp_path / "search" / "thesis.txt").touch()
    with pytest.raises(InputError, match="new or empty folder, got .*search"):
        search(dataset, tmp_path, {"training.learning_rate": {"choice": [1e-3]}})


def test_command_ends_with_a_line(tmp_path, capsys):
    space = write_space(tmp_path, {"training.learning_rate": {"choice": [1e-3]}})
    flags = ["--data", str(tmp_path / "nowhere"), "--config", "demo", "--space", str(space)]
    with pytest.raises(SystemExit) as caught:
        run_command(SearchCommand, [*flags, "--max_trials", "1", "--output", str(tmp_path / "s")])
    assert caught.value.code == 2
    assert capsys.readouterr().err.endswith(
        f"error: no such folder of records: {tmp_path}/nowhere\n"
    )


def test_number_of_trials_is_checked(dataset, tmp_path):
    with pytest.raises(InputError, match="max_trials must be at least 1, got 0"):
        search(dataset, tmp_path, {"training.learning_rate": {"choice": [1e-3]}}, max_trials=0)


def test_flags_override_the_configuration(tmp_path):
    write_config(SMALL, tmp_path / "base.yaml")
    argv = f"--data d --config {tmp_path}/base.yaml --space s --max_trials 3 --output o"
    command = parse(SearchCommand, [*argv.split(), "--training.epochs", "7"])
    assert command.config == override(SMALL, {"training.epochs": 7})
