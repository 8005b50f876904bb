"""Trials of tests: their processes do something else than a training."""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from fcnseg.config import Config
from fcnseg.errors import OutputError
from tuning.trial_process import TrialJob, TrialStoppedError
from tuning.trials import Outcome
from tuning.workers import TrialRunner


def runner_of(work: Callable[[TrialJob], Outcome], folder: Path, *, base: Config) -> TrialRunner:
    """Runs trials of a search in a folder by `work`."""
    for name in ("outcomes", "logs"):
        (folder / name).mkdir(exist_ok=True)
    return TrialRunner(
        folder=folder,
        base=base,
        data="records",
        objective="val_dice",
        num_classes=3,
        should_stop=threading.Event(),
        work=work,
    )


def succeed(job: TrialJob) -> Outcome:
    """Scores by the learning rate."""
    return Outcome(job.config.training.learning_rate, 0.5, 1)


def read_no_address(job: TrialJob) -> Outcome:
    """SIGSEGV, in C, after a while."""
    time.sleep(1)
    ctypes.string_at(0)
    raise AssertionError


def allocate_too_much(job: TrialJob) -> Outcome:
    """A MemoryError, as of numpy where memory is limited."""
    resource.setrlimit(resource.RLIMIT_AS, (8 * 2**30, 8 * 2**30))
    np.ones(2**34)
    raise AssertionError


def use_memory(job: TrialJob) -> Outcome:
    """Half a GiB."""
    filled = np.ones(2**26)
    time.sleep(1)
    return Outcome(float(filled[0]))


def be_killed(job: TrialJob) -> Outcome:
    """Ends as by the kernel, after a while."""
    time.sleep(1)
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def end_all(job: TrialJob) -> Outcome:
    """Takes the search down too, as the kernel does with a container whose memory is short."""
    os.killpg(0, signal.SIGKILL)
    raise AssertionError


def exit_with_3(job: TrialJob) -> Outcome:
    """Ends without a word."""
    os._exit(3)


def fill_the_disk(job: TrialJob) -> Outcome:
    """What a checkpoint raises."""
    raise OutputError("cannot write checkpoint.npz: No space left on device")


def fill_the_log(job: TrialJob) -> Outcome:
    """What Python itself raises."""
    raise OSError(errno.ENOSPC, "No space left on device")


def wait_for_stop(job: TrialJob) -> Outcome:
    """Runs until it is asked to stop."""
    sys.stdout.write(f"{os.getpid()}\n")
    sys.stdout.flush()
    time.sleep(600)
    raise AssertionError


def be_stopped(job: TrialJob) -> Outcome:
    """Ends by a SIGTERM that the search does not receive."""
    os.kill(os.getpid(), signal.SIGTERM)
    raise AssertionError


def be_interrupted(job: TrialJob) -> Outcome:
    """The same by Ctrl-C."""
    os.kill(os.getpid(), signal.SIGINT)
    raise AssertionError


def be_stopped_once(job: TrialJob) -> Outcome:
    """Writes a checkpoint when it is stopped, and ends when it is run again."""
    checkpoint = job.log.with_suffix(".checkpoint")
    if checkpoint.exists():
        return succeed(job)
    checkpoint.touch()
    raise TrialStoppedError("stopped by SIGTERM")


def crash_at_some_rates(job: TrialJob) -> Outcome:
    """Crashes for a part of the settings."""
    if job.config.training.learning_rate < 1e-3:
        ctypes.string_at(0)
    return succeed(job)


def count_cores(job: TrialJob) -> Outcome:
    """Scores by the number of its cores."""
    return Outcome(float(len(os.sched_getaffinity(0))))


def split_the_cpu(job: TrialJob) -> Outcome:
    """Scores by the number of CPU devices, which only a TensorFlow that has not started takes."""
    import tensorflow as tf

    (cpu,) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    return Outcome(float(len(tf.config.list_logical_devices("CPU"))))
