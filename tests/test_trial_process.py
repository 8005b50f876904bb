"""A trial's process: however it ends, its end is an outcome with a reason."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import trial_works

from fcnseg.config import Config
from tuning.trial_process import (
    TrialJob,
    TrialStoppedError,
    TrialSurroundingsError,
    run_in_process,
)

ROOT = Path(__file__).parent.parent


def job_in(folder, **changes):
    fields = {
        "config": Config(),
        "data": "records",
        "run_dir": folder / "7",
        "until_epoch": 1,
        "objective": "val_dice",
        "log": folder / "7.log",
    }
    return TrialJob(**{**fields, **changes})


@pytest.mark.parametrize(
    ("work", "reason"),
    [
        (trial_works.read_no_address, r"its process was ended by SIGSEGV at \d+\.\d\d GiB"),
        (trial_works.allocate_too_much, r"(Memory|ArrayMemory)Error: Unable to allocate 128"),
        (trial_works.be_killed, "ended by SIGKILL, as the kernel does where memory is short at"),
        (trial_works.exit_with_3, "its process ended with status 3"),
    ],
    ids=lambda each: getattr(each, "__name__", ""),
)
def test_a_crash_is_a_failed_trial_with_its_reason(tmp_path, work, reason):
    outcome = run_in_process(job_in(tmp_path), should_stop=threading.Event(), work=work)
    assert outcome.objective is None
    assert re.search(reason, outcome.error)
    assert outcome.peak_bytes is None or outcome.peak_bytes > 2**20


def test_no_device_is_in_use_before_a_trial_begins(tmp_path):
    """A GPU that the server had initialised would not work in the processes forked from it."""
    outcome = run_in_process(
        job_in(tmp_path), should_stop=threading.Event(), work=trial_works.split_the_cpu
    )
    assert outcome.objective == 2, outcome.error


def test_the_peak_memory_is_that_of_the_trial(tmp_path):
    small, large = (
        run_in_process(job_in(tmp_path), should_stop=threading.Event(), work=work)
        for work in (trial_works.succeed, trial_works.use_memory)
    )
    assert large.peak_bytes > 2**29
    assert small.objective == Config().training.learning_rate
    assert large.seconds > 1


@pytest.mark.parametrize("work", [trial_works.fill_the_disk, trial_works.fill_the_log])
def test_a_full_disk_is_not_the_fault_of_the_settings(tmp_path, work):
    with pytest.raises(TrialSurroundingsError, match="trial 7 cannot go on: .*No space left"):
        run_in_process(job_in(tmp_path), should_stop=threading.Event(), work=work)


def test_a_trial_is_asked_to_stop(tmp_path):
    should_stop = threading.Event()
    threading.Timer(1, should_stop.set).start()
    with pytest.raises(TrialStoppedError, match="trial 7 was stopped"):
        run_in_process(job_in(tmp_path), should_stop=should_stop, work=trial_works.wait_for_stop)
    assert (tmp_path / "7.log").read_text().strip().isdecimal()


ORPHAN = """
import sys, threading
sys.path.insert(0, "tests")
from pathlib import Path
import test_trial_process, trial_works
from tuning.trial_process import run_in_process
job = test_trial_process.job_in(Path(sys.argv[1]))
run_in_process(job, should_stop=threading.Event(), work=trial_works.wait_for_stop)
"""


@pytest.mark.slow
def test_a_trial_ends_after_its_search_was_killed(tmp_path):
    log = tmp_path / "7.log"
    with subprocess.Popen([sys.executable, "-c", ORPHAN, tmp_path], cwd=ROOT) as search:
        deadline = time.monotonic() + 200
        while not (log.exists() and log.read_text().strip()):
            assert time.monotonic() < deadline
            assert search.poll() is None
            time.sleep(0.1)
        search.send_signal(signal.SIGKILL)
    trial = int(log.read_text())
    deadline = time.monotonic() + 60
    while Path(f"/proc/{trial}").exists():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_trial_has_the_cores_of_its_worker(tmp_path):
    core = min(os.sched_getaffinity(0))
    job = job_in(tmp_path, cores=(core,))
    outcome = run_in_process(job, should_stop=threading.Event(), work=trial_works.count_cores)
    assert outcome.objective == 1
