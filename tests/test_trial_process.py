"""A trial's process: however it ends, its end is an outcome with a reason."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import forkserver
from pathlib import Path

import pytest
import trial_works

from fcnseg.config import Config
from fcnseg.storage.folder_lock import locked_folder
from tuning import trial_process
from tuning.trial_process import (
    TrialJob,
    TrialStoppedError,
    TrialSurroundingsError,
    run_in_process,
    wait_for_orphans,
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
    assert outcome.is_by_settings == (work is trial_works.allocate_too_much)
    assert outcome.peak_bytes is None or outcome.peak_bytes > 2**20


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


WORKS_STOPPED = [trial_works.be_stopped, trial_works.be_interrupted]


@pytest.mark.parametrize("work", [*WORKS_STOPPED, trial_works.be_stopped_once])
def test_a_signal_for_a_whole_group_may_reach_the_trial_first(tmp_path, monkeypatch, work):
    monkeypatch.setattr(trial_process, "_SIGNAL_SECONDS", 60.0)
    should_stop = threading.Event()
    threading.Timer(2, should_stop.set).start()
    with pytest.raises(TrialStoppedError, match="trial 7 was stopped"):
        run_in_process(job_in(tmp_path), should_stop=should_stop, work=work)


def test_a_trial_that_alone_is_stopped_is_run_again(tmp_path):
    job = job_in(tmp_path)
    outcome = run_in_process(job, should_stop=threading.Event(), work=trial_works.be_stopped_once)
    assert outcome.objective == Config().training.learning_rate


@pytest.mark.parametrize("work", WORKS_STOPPED)
def test_a_trial_that_is_always_stopped_fails(tmp_path, work):
    outcome = run_in_process(job_in(tmp_path), should_stop=threading.Event(), work=work)
    assert outcome.error == "its process was stopped by a signal 3 times"


def test_a_log_that_cannot_be_written_is_not_the_fault_of_the_settings(tmp_path):
    job = job_in(tmp_path, log=tmp_path / "nowhere" / "7.log")
    with pytest.raises(TrialSurroundingsError, match=r"cannot go on: cannot write .*7\.log"):
        run_in_process(job, should_stop=threading.Event(), work=trial_works.succeed)


def test_trials_that_start_and_end_together_have_their_own_ends(tmp_path, monkeypatch):
    """Python reads the exit codes of all children when another one starts, here slowly."""
    read, watch = forkserver.read_signed, trial_process._watch

    def read_slowly(descriptor):
        time.sleep(0.1)
        return read(descriptor)

    def watch_slowly(*args):
        found = watch(*args)
        time.sleep(0.1)
        return found

    monkeypatch.setattr(forkserver, "read_signed", read_slowly)
    monkeypatch.setattr(trial_process, "_watch", watch_slowly)

    def run(number):
        job = job_in(tmp_path, log=tmp_path / f"{number}.log")
        work = trial_works.exit_with_3
        return run_in_process(job, should_stop=threading.Event(), work=work).error

    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(run, range(16))) == {"its process ended with status 3"}


ORPHAN = """
import sys, threading
sys.path.insert(0, "tests")
from pathlib import Path
import test_trial_process, trial_works
from tuning.trial_process import run_in_process
folder = Path(sys.argv[1])
job = test_trial_process.job_in(folder, begun=folder / "7.begun")
run_in_process(job, should_stop=threading.Event(), work=trial_works.wait_for_stop)
"""


@pytest.mark.slow
def test_a_trial_ends_after_its_search_was_killed(tmp_path):
    log, begun = tmp_path / "7.log", tmp_path / "7.begun"
    begun.touch()
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
    assert not begun.exists()  # it did not take the search down


@pytest.mark.parametrize("ended_by", ["the orphan", "a signal"])
def test_a_resumed_search_waits_for_the_trials_of_the_killed_one(tmp_path, caplog, ended_by):
    """They may hold the GPU that another worker's trial would get."""
    caplog.set_level("INFO")
    should_stop, is_ended = threading.Event(), threading.Event()
    folders = [tmp_path / "3", tmp_path / "4"]
    folders[0].mkdir()  # trial 4 had no time to begin
    with locked_folder(folders[0], argument="run_dir"):
        thread = threading.Thread(
            target=lambda: (wait_for_orphans(folders, should_stop), is_ended.set())
        )
        thread.start()
        assert not is_ended.wait(1)
        if ended_by == "a signal":
            should_stop.set()
            assert is_ended.wait(10)
    assert is_ended.wait(10)
    assert "waiting for the last checkpoints of the search that was killed" in caplog.text


def test_a_trial_has_the_cores_of_its_worker(tmp_path):
    core = min(os.sched_getaffinity(0))
    job = job_in(tmp_path, cores=(core,))
    outcome = run_in_process(job, should_stop=threading.Event(), work=trial_works.count_cores)
    assert outcome.objective == 1
