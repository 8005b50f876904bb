"""Configurations: read, checked, overridden, and the command line that does so."""

from __future__ import annotations

import dataclasses

import pytest
import yaml

from fcnseg.cli.command import ConfigFlags, parse, run_command
from fcnseg.config import (
    PRESETS,
    Config,
    config_from_mapping,
    config_to_mapping,
    override,
    read_config,
    write_config,
)
from fcnseg.errors import ConfigError, InputError


@pytest.mark.parametrize("name", PRESETS)
def test_presets_survive_a_yaml_file(tmp_path, name):
    write_config(PRESETS[name], tmp_path / "config.yaml")
    assert read_config(tmp_path / "config.yaml") == PRESETS[name] == read_config(name)


def test_left_out_keys_keep_their_defaults():
    config = config_from_mapping({"training": {"epochs": 3}})
    assert config == dataclasses.replace(
        Config(), training=dataclasses.replace(Config().training, epochs=3)
    )


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({"modle": {}}, "unknown section 'modle'; known: model, patches"),
        ({"model": {"filter": 3}}, "unknown key 'filter' in model; known: filters, kernels"),
        ({"training": {"learning_rate": -1}}, "training.learning_rate: .*greater than 0, got -1"),
        ({"model": {"hu_window": [3, 1]}}, r"hu_window must be .*low < high, got \(3.0, 1.0\)"),
        ({"model": {"skip": "add"}}, "model.skip: .*'sum' or 'concat', got 'add'"),
        ({"patches": {"size": [8, 8, 8]}}, "overlap must be smaller than patches.size"),
        (["model"], "dictionary"),
        ({1: {}}, "config.yaml"),
        ({"model": {1: 2}}, "config.yaml"),
        ({"model": None}, "model: "),
        ("model", "dictionary"),
        ({"training": {"learning_rate": float("nan")}}, "training.learning_rate: .*finite"),
        ({"model": {"hu_window": [0, float("inf")]}}, "model.hu_window.1: .*finite"),
        ({"augmentation": {"scale": [1, float("inf")]}}, "augmentation.scale.1: .*finite"),
        ({"loss": {"class_weights": [1, float("inf")]}}, r"class_weights.*\.1: .*finite"),
        ({"loss": {"class_weights": "cubic"}}, "class_weights.*'simple' or 'square', got 'cubic'"),
        ({"loss": {"level_weights": [1, 2]}}, "one number an output, or none, got .* for 1"),
    ],
)
def test_bad_configuration_is_named(tmp_path, mapping, message):
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(mapping))
    with pytest.raises(ConfigError, match=message) as caught:
        read_config(tmp_path / "config.yaml")
    assert "config.yaml" in str(caught.value)


def test_missing_file_names_the_presets(tmp_path):
    with pytest.raises(ConfigError, match="presets roth2018, .*, demo, got '.*nowhere'"):
        read_config(tmp_path / "nowhere")
    (tmp_path / "broken.yaml").write_text("model: [")
    with pytest.raises(ConfigError, match="not valid YAML"):
        read_config(tmp_path / "broken.yaml")


def test_override_by_dotted_key_leaves_the_original():
    config = Config()
    changed = override(config, {"training.learning_rate": 1e-4, "model.filters": [8, 16]})
    assert changed.training.learning_rate == 1e-4
    assert changed.model.filters == (8, 16)
    assert config == Config()
    with pytest.raises(ConfigError, match="unknown key 'lr' .*known: epochs"):
        override(config, {"training.lr": 1})
    with pytest.raises(ConfigError, match="training: "):
        override(config, {"training": 1})
    with pytest.raises(ConfigError, match="unknown key 'training.epochs.x': epochs is a value"):
        override(config, {"training.epochs.x": 1})
    with pytest.raises(ConfigError, match="unknown section 'trainings'"):
        override(config, {"trainings.epochs": 1})


def test_mapping_holds_plain_values_only():
    text = yaml.safe_dump(config_to_mapping(PRESETS["roth2018"]))
    assert config_from_mapping(yaml.safe_load(text)) == PRESETS["roth2018"]


@dataclasses.dataclass(frozen=True)
class ExampleCommand:
    """A job."""

    name: str
    """What it works on."""
    config: ConfigFlags
    """Overrides."""
    overwrite: bool = False
    """A switch."""

    def run(self):
        raise InputError(f"name must be known, got {self.name!r}")


def test_flags_override_the_file():
    argv = "--name a --config demo --model.dropout 0.5 --patches.size 32 48 64 --overwrite".split()
    command = parse(ExampleCommand, argv)
    assert command.overwrite
    assert command.config == override(
        PRESETS["demo"], {"model.dropout": 0.5, "patches.size": [32, 48, 64]}
    )


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ("--name a --config demo", "error: name must be known, got 'a'\n"),
        ("--name a --config nope", "got 'nope'\n"),
        ("--name a", "error: missing: --config"),
        (
            "--name a --config demo --model.dropot 1",
            "error: unknown flag: --model.dropot; did you mean --model.dropout?\n",
        ),
        ("--name a --config demo --model.dropout 1", "less than 1"),
    ],
)
def test_mistakes_end_with_a_line_and_status_2(capsys, argv, message):
    with pytest.raises(SystemExit) as caught:
        run_command(ExampleCommand, argv.split())
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--training.epochs 0", "training.epochs: Input should be greater than 0, got 0"),
        ("--model.dropout 1", "model.dropout: Input should be less than 1, got 1.0"),
        ("--loss.class_weights 0 0", "loss: loss.class_weights must not be 0 for all"),
        ("--patches.size 0 4 4", "patches.size.0: Input should be greater than 0, got 0"),
        ("--patches.size 8 8 8", "inference.overlap must be smaller than patches.size"),
    ],
)
def test_setting_out_of_range_is_one_line_as_from_a_file(capsys, flags, message):
    with pytest.raises(SystemExit) as caught:
        run_command(ExampleCommand, ["--name", "a", "--config", "demo", *flags.split()])
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {message}")
    assert error.endswith(" (command line)\n")
    assert error.count("\n") == 1


# -- Keys of earlier versions

OLD_KEYS = {
    "patches.per_read": (3, "patches.samples_per_volume", 3),
    "loss.per": ("sample", "loss.batch_dice", False),
    "loss.background": (False, "loss.include_background", False),
    "training.average_decay": (0.5, "training.ema_decay", 0.5),
    "training.step_at": ([0.2], "training.milestones", (0.2,)),
    "training.step_factor": (0.3, "training.gamma", 0.3),
    "training.warm_up_steps": (7, "training.warmup_steps", 7),
}


def value_at(config, key):
    section, name = key.split(".")
    return getattr(getattr(config, section), name)


@pytest.mark.parametrize("key", OLD_KEYS)
def test_an_old_key_is_taken_with_one_warning(key):
    value, new, expected = OLD_KEYS[key]
    section, name = key.split(".")
    with pytest.warns(FutureWarning, match=f"{key} is {new} now") as warned:
        config = config_from_mapping({section: {name: value}})
    assert len(warned) == 1
    assert value_at(config, new) == expected
    with pytest.warns(FutureWarning):
        assert override(Config(), {key: value}) == config
    with pytest.raises(ConfigError, match=f"{key} is {new} now: give one of them"):
        config_from_mapping({section: {name: value, new.split(".")[1]: expected}})


def test_old_flags_are_taken_with_a_warning():
    argv = "--name a --config demo --training.average_decay 0.5 --patches.per_read=3".split()
    with pytest.warns(FutureWarning, match="is .* now"):
        command = parse(ExampleCommand, argv)
    assert command.config.training.ema_decay == 0.5
    assert command.config.patches.samples_per_volume == 3
    argv = "--name a --config demo --loss.no_background".split()
    with pytest.warns(FutureWarning, match=r"loss\.background is loss\.include_background now"):
        assert not parse(ExampleCommand, argv).config.loss.include_background
