"""A training that runs out of memory names the settings to lower, and keeps its checkpoint."""

from __future__ import annotations

import pytest
import tensorflow as tf
from small_runs import ALL_STATE, assert_same_runs

from fcnseg.cli.bench import BenchCommand
from fcnseg.cli.command import run_or_exit
from fcnseg.cli.train import TrainCommand
from fcnseg.config import override
from fcnseg.errors import OutputError
from fcnseg.training import train
from fcnseg.training.loop import TrainingLoop
from fcnseg.training.out_of_memory import OutOfMemoryError, naming_memory_settings

SIDE = 2**24  # a tensor with two such sides has more bytes than an address space


@pytest.fixture
def out_of_memory_at(monkeypatch):
    """Lets a step ask for more memory than any machine has."""

    def at(step):
        do_steps = TrainingLoop.run_steps

        def steps(self, *args):
            if self.progress.step + 1 == step:
                tf.zeros((SIDE, SIDE))
            do_steps(self, *args)

        monkeypatch.setattr(TrainingLoop, "run_steps", steps)

    return at


@pytest.mark.slow
def test_a_step_that_does_not_fit_is_one_line_and_the_run_resumes(
    dataset, tmp_path, capsys, monkeypatch, out_of_memory_at
):
    with monkeypatch.context():
        out_of_memory_at(6)
        with pytest.raises(SystemExit) as caught:
            run_or_exit(TrainCommand(ALL_STATE, dataset, tmp_path / "run").run)
        assert caught.value.code == 2
        monkeypatch.undo()
    errors = [line for line in capsys.readouterr().err.splitlines() if "error: " in line]
    assert errors == [
        f"error: out of memory for a tensor ({SIDE}, {SIDE}) on CPU:0: lower patches.batch_size,"
        " now 2 (training.accumulate_steps makes up for it), patches.size, now 8 x 12 x 12,"
        " model.filters, now 2 4; fcnseg plan --memory_gib proposes settings that fit"
    ]
    assert (tmp_path / "run" / "checkpoint.npz").exists()
    assert not (tmp_path / "run" / "run.json").exists()
    train(ALL_STATE, dataset, tmp_path / "run", resume=True)
    train(ALL_STATE, dataset, tmp_path / "other")
    assert_same_runs(tmp_path / "run", tmp_path / "other")


@pytest.mark.parametrize("command", ["train", "bench"])
def test_a_network_that_does_not_fit_is_one_line(dataset, tmp_path, command):
    """Its weights alone are more bytes than a machine has."""
    config = override(ALL_STATE, {"model.filters": [2**20, 2**20], "patches.batch_size": 1})
    commands = {
        "train": TrainCommand(config, dataset, tmp_path / "run"),
        "bench": BenchCommand(dataset, config, steps=1),
    }
    with pytest.raises(OutOfMemoryError, match=r"tensor \(.* on CPU:0: lower patches.size, now"):
        commands[command].run()


def test_memory_of_the_host_counts_too():
    with (
        pytest.raises(OutOfMemoryError, match="^out of memory: lower patches.batch_size"),
        naming_memory_settings(ALL_STATE),
    ):
        raise MemoryError


def test_other_errors_pass():
    with pytest.raises(tf.errors.InternalError), naming_memory_settings(ALL_STATE):
        raise tf.errors.InternalError(None, None, "")


def test_a_full_disk_is_not_out_of_memory():
    full = tf.errors.ResourceExhaustedError(None, None, "/run/events; No space left on device")
    with (
        pytest.raises(OutputError, match="cannot write .* No space"),
        naming_memory_settings(ALL_STATE),
    ):
        raise full
