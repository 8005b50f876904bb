"""Runs of seconds on small records: how they are configured, stopped and compared."""

from __future__ import annotations

import os
import signal

import numpy as np

from fcnseg.config import Config, InferenceConfig, ModelConfig, PatchConfig, TrainingConfig
from fcnseg.inference import load_run
from fcnseg.training import read_run
from fcnseg.training.loop import TrainingLoop


def make_config(model: ModelConfig, **training) -> Config:
    """Patches of a few voxels, and what is given of `TrainingConfig`."""
    return Config(
        model=model,
        patches=PatchConfig(size=(8, 12, 12), batch_size=2, samples_per_volume=2, shuffle_buffer=4),
        training=TrainingConfig(**training),
        inference=InferenceConfig(overlap=(2, 4, 4), batch_size=2),
    )


# Dropout draws random numbers in each step, batch norm has moving means, and the weights have an
# average: all state there is. Events of TensorBoard have tests of their own.
ALL_STATE = make_config(
    ModelConfig(filters=(2, 4), dropout=0.3),
    epochs=2,
    steps_per_epoch=4,
    validate_every=1,
    checkpoint_every=3,
    learning_rate=1e-2,
    ema_decay=0.9,
    tensorboard=False,
)


def assert_same_runs(one, other):
    """Bit for bit: the last weights, the best ones, and the history."""
    assert (one / "history.csv").read_text() == (other / "history.csv").read_text()
    first, second = read_run(one), read_run(other)
    assert first.weights_sha256 == second.weights_sha256
    assert (first.best_dice, first.best_epoch) == (second.best_dice, second.best_epoch)
    best = [load_run(folder)[0].get_weights() for folder in (one, other)]
    assert all(np.array_equal(*pair) for pair in zip(*best, strict=True))


def stop_after(monkeypatch, step, *, number=signal.SIGTERM):
    """Sends this process a signal in the midst of a step."""
    do_steps = TrainingLoop.run_steps

    def steps_and_signal(self, *args):
        if self.progress.step + 1 == step:
            os.kill(os.getpid(), number)
        do_steps(self, *args)

    monkeypatch.setattr(TrainingLoop, "run_steps", steps_and_signal)
