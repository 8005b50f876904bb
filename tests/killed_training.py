"""A training that kills itself with SIGKILL after a step.

`python killed_training.py CONFIG DATA RUN_DIR LAST_STEP CPUS`; with a last step of -1 it ends, and
with no CPUs it takes the machine's GPUs, where its operations are deterministic.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import tensorflow as tf

from fcnseg.config import read_config
from fcnseg.training import train
from fcnseg.training.loop import TrainingLoop


def train_and_die(config, data, run_dir, *, last_step: int, cpus: int = 0) -> int:
    """Trains in a process of its own, and gives its exit status."""
    words = (config, data, run_dir, last_step, cpus)
    return subprocess.run(
        [sys.executable, __file__, *map(str, words)],
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2"},
    ).returncode


def kill_after(last_step: int) -> None:
    """Has training kill its process after the step."""
    run_steps = TrainingLoop.run_steps

    def run_steps_and_die(self, *args):
        run_steps(self, *args)
        if self.progress.step == last_step:
            os.kill(os.getpid(), signal.SIGKILL)

    TrainingLoop.run_steps = run_steps_and_die


def main(config: str, data: str, run_dir: str, last_step: str, cpus: str) -> None:
    """Trains, or resumes."""
    if int(cpus):
        (cpu,) = tf.config.list_physical_devices("CPU")
        logical = [tf.config.LogicalDeviceConfiguration()] * int(cpus)
        tf.config.set_logical_device_configuration(cpu, logical)
    else:
        tf.config.experimental.enable_op_determinism()
    kill_after(int(last_step))
    train(read_config(config), data, run_dir, resume=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
