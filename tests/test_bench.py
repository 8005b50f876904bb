"""What bounds the speed of training."""

from __future__ import annotations

import json

import pytest
from small_records import write_small_dataset

from fcnseg.cli.bench import BenchCommand, StepTimes, measure
from fcnseg.cli.command import run_command
from fcnseg.config import Config, InferenceConfig, ModelConfig, PatchConfig, override, write_config
from fcnseg.training import step as step_module
from fcnseg.training.step import make_steps

CONFIG = Config(
    model=ModelConfig(filters=(4, 8)),
    patches=PatchConfig(size=(8, 12, 12), batch_size=2, samples_per_volume=2, shuffle_buffer=4),
    inference=InferenceConfig(overlap=(2, 4, 4)),
)


@pytest.mark.parametrize(
    ("data", "model", "joint", "bottleneck"),
    [(90, 10, 92, "data"), (10, 90, 95, "model"), (50, 40, 90, "both"), (10, 50, 50, "model")],
)
def test_bottleneck_is_what_takes_about_the_joint_time(data, model, joint, bottleneck):
    assert StepTimes(data, model, joint).bottleneck == bottleneck


def test_three_times_and_a_hint(tmp_path, capsys):
    folder = write_small_dataset(tmp_path / "records")
    write_config(CONFIG, tmp_path / "config.yaml")
    flags = ["--data", str(folder), "--config", str(tmp_path / "config.yaml"), "--steps", "12"]
    run_command(BenchCommand, [*flags, "--output", str(tmp_path / "bench.json")])
    result = json.loads((tmp_path / "bench.json").read_text())
    assert result["data_ms"] > 0
    assert result["model_ms"] > 0
    assert result["joint_ms"] > 0.5 * result["model_ms"]  # noise of a busy machine
    shown = capsys.readouterr().out
    assert "data only" in shown
    assert f"bottleneck: {result['bottleneck']}" in shown


def test_the_steps_are_those_of_training(tmp_path, monkeypatch):
    """By training's own function, with the averages and as many steps per call."""
    changes = {"training.steps_per_execution": 3, "training.ema_decay": 0.9}
    calls = []

    def recorded(step, average):
        assert average.averages
        train = make_steps(step, average)

        def record(batches, first, count):
            calls.append(count)
            return train(batches, first, count)

        return record

    monkeypatch.setattr(step_module, "make_steps", recorded)
    measure(override(CONFIG, changes), write_small_dataset(tmp_path / "records"), steps=4)
    assert calls[:4] == [3, 1, 3, 1]  # 4 steps to warm up, 4 that are measured


def test_no_steps_are_refused(tmp_path, capsys):
    with pytest.raises(SystemExit):
        run_command(BenchCommand, ["--data", "records", "--config", "demo", "--steps", "0"])
    assert "steps must be at least 1, got 0" in capsys.readouterr().err
