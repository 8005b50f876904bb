"""A training process that is killed, and taken up again, ends as one that was left alone."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from killed_training import train_and_die
from small_runs import ALL_STATE, assert_same_runs

from fcnseg.config import override, write_config
from fcnseg.runs.run_folder import CHECKPOINT_FILE
from fcnseg.training import read_run

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.timeout(900)  # whole runs in processes of their own


LONGER = override(ALL_STATE, {"training.steps_per_epoch": 60, "training.checkpoint_every": 5})


def start(config, dataset, run_dir, *flags):
    """`python -m fcnseg train` in a process of its own."""
    argv = ["--config", config, "--data", dataset, "--run_dir", run_dir, *flags]
    with stderr_of(run_dir).open("a") as stderr:
        return subprocess.Popen(
            [sys.executable, "-m", "fcnseg", "train", *map(str, argv)],
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2"},
        )


def stderr_of(run_dir):
    """What its processes have said."""
    return run_dir.parent / "stderr.txt"


@pytest.fixture(scope="module")
def longer(dataset, tmp_path_factory):
    """The configuration's file, and an undisturbed run in a process of its own."""
    folder = tmp_path_factory.mktemp("longer")
    write_config(LONGER, folder / "config.yaml")
    process = start(folder / "config.yaml", dataset, folder / "run")
    assert process.wait() == 0, stderr_of(folder / "run").read_text()
    return folder


@pytest.mark.slow
def test_a_run_passes_on_no_warning_of_tensorflow(longer):
    said = stderr_of(longer / "run").read_text()
    assert "best validation Dice" in said
    assert not re.search(r"tensorflow|tf\.", said, re.IGNORECASE)


def kill(process, number, run_dir):
    """Sends a signal at a random moment after the next checkpoint; gives the exit status."""
    checkpoint = run_dir / CHECKPOINT_FILE
    before = checkpoint.stat().st_mtime_ns if checkpoint.exists() else None
    while not checkpoint.exists() or checkpoint.stat().st_mtime_ns == before:
        assert process.poll() is None, stderr_of(run_dir).read_text()
        time.sleep(0.01)
    time.sleep(random.uniform(0, 0.2))
    process.send_signal(number)
    return process.wait()


@pytest.mark.slow
def test_process_killed_twice_goes_on_as_if_nothing_had_happened(dataset, longer, tmp_path):
    """By SIGKILL, and then by SIGTERM."""
    config, run_dir = longer / "config.yaml", tmp_path / "run"
    flags = ()
    for number, status in ((signal.SIGKILL, -9), (signal.SIGTERM, 143)):
        process = start(config, dataset, run_dir, *flags)
        assert kill(process, number, run_dir) == status, stderr_of(run_dir).read_text()
        assert not (run_dir / "run.json").exists()
        flags = ("--resume",)
    assert start(config, dataset, run_dir, *flags).wait() == 0, stderr_of(run_dir).read_text()
    assert_same_runs(longer / "run", run_dir)


@pytest.mark.slow
def test_two_devices_go_on_too(dataset, tmp_path):
    """Batch norm is not synchronised: each replica has moving means of its own.

    The run that is not disturbed does up to three steps in a call.
    """
    for name, steps in (("undisturbed", 3), ("killed", 1)):
        changes = {"model.norm": "batch", "training.steps_per_execution": steps}
        write_config(override(ALL_STATE, changes), tmp_path / f"{name}.yaml")

    def run(name, *, last_step):
        words = (tmp_path / f"{name}.yaml", dataset, tmp_path / name)
        return train_and_die(*words, cpus=2, last_step=last_step)

    assert run("undisturbed", last_step=-1) == 0
    assert run("killed", last_step=7) == -signal.SIGKILL
    assert run("killed", last_step=-1) == 0
    assert len(read_run(tmp_path / "killed").devices) == 2
    assert_same_runs(tmp_path / "undisturbed", tmp_path / "killed")
