"""Measures the bottleneck of training: `fcnseg bench --help`."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Column, Table

from fcnseg.cli.command import ConfigFlags, Location
from fcnseg.config import Config
from fcnseg.errors import InputError, require_extra
from fcnseg.records import Dataset
from fcnseg.storage.whole_file import check_free, check_output_file, write_whole

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

# If the other part takes less than this share of a step, it is not the bottleneck.
_CLEAR = 0.9
_HINTS = {
    "data": "more CPU cores, patches.samples_per_volume higher (each read gives more patches), or"
    " augmentation.run_on device",
    "model": "an accelerator, training.precision mixed_bfloat16, or a smaller network or patch"
    " (python -m fcnseg summary)",
    "both": "data and model compete for the same cores, or take turns: what speeds up either helps",
}


@dataclasses.dataclass(frozen=True)
class StepTimes:
    """Milliseconds a training step takes.

    Attributes:
        data_ms: Time to make a batch, with nothing else running.
        model_ms: Time to train on a batch that is in memory.
        joint_ms: Time of a training step with the input pipeline, as in training.
    """

    data_ms: float
    model_ms: float
    joint_ms: float

    @property
    def bottleneck(self) -> str:
        """`data` or `model`; `both` if neither explains the joint time alone."""
        slower = "data" if self.data_ms > self.model_ms else "model"
        return slower if max(self.data_ms, self.model_ms) > _CLEAR * self.joint_ms else "both"


@dataclasses.dataclass(frozen=True)
class BenchCommand:
    """Measures training steps: data only, model only, and both as in training."""

    data: Location
    """Folder of records."""
    config: ConfigFlags
    """Configuration; each flag overrides one of its values."""
    steps: int = 20
    """Steps of each measurement, after the same number of warm-up steps."""
    output: Path | None = None
    """JSON file to write the result to as well."""
    overwrite: bool = False
    """Replace a result that exists already."""

    def run(self) -> None:
        """Measures and shows the result."""
        if self.output is not None:
            check_output_file(self.output)
            check_free([self.output], overwrite=self.overwrite)
        for module in ("tensorflow", "keras"):
            require_extra(module, "train")
        if self.steps < 1:
            raise InputError(f"steps must be at least 1, got {self.steps}")
        times = measure(self.config, self.data, steps=self.steps)
        hint = _HINTS[times.bottleneck]
        result = {**dataclasses.asdict(times), "bottleneck": times.bottleneck, "hint": hint}
        if self.output is not None:
            write_whole(self.output, json.dumps(result, indent=2) + "\n")
        Console().print(_table(times, self.config))
        Console().print(f"bottleneck: {times.bottleneck}; what helps: {hint}")


def measure(config: Config, data: str | os.PathLike[str], *, steps: int) -> StepTimes:
    """Measures the training steps of a configuration on this machine.

    Args:
        config: All settings.
        data: Folder of a finished dataset.
        steps: Number of measured steps, after the same number of warm-up steps.

    Raises:
        InputError: If the dataset cannot be trained on.
        ModelError: If the patches do not fit the network.
    """
    import tensorflow as tf

    from fcnseg.sampling.blocks import Blocks
    from fcnseg.sampling.broken import naming_broken_files
    from fcnseg.training.assembly import build_model, patches_maker, patches_per_step
    from fcnseg.training.dataset import check_dataset
    from fcnseg.training.settings import check_settings

    dataset = Dataset.open(data)
    check_dataset(dataset)
    info = dataset.info
    check_settings(config, info)
    model = build_model(config, info)
    replicas = model.distribute_strategy.num_replicas_in_sync
    patches = patches_maker(config, dataset, replicas=replicas)()
    # Patches come in blocks: measure complete blocks, or the measurement would be of patches that
    # were made before it began.
    batch_size = patches_per_step(config, replicas=replicas)
    block = Blocks.of(config.patches, batch_size=batch_size).steps
    whole_blocks = -(-steps // block) * block
    with naming_broken_files(dataset):
        data_ms = _milliseconds(_batches(patches), skip=block, count=whole_blocks)
        one = tf.data.Dataset.from_tensors(next(iter(patches))).repeat()
        model_ms = _training(model, one, skip=steps, count=steps)
        joint_ms = _training(model, patches, skip=2 * block, count=whole_blocks)
    return StepTimes(data_ms, model_ms, joint_ms)


def _batches(patches: tf.data.Dataset) -> Iterator[float]:
    """Times at which each batch is ready."""
    for _ in patches:
        yield time.perf_counter()


def _training(model: keras.Model, patches: tf.data.Dataset, *, skip: int, count: int) -> float:
    import keras

    ends: list[float] = []

    class Clock(keras.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
            del batch
            float((logs or {})["loss"])  # waits for the step
            ends.append(time.perf_counter())

    model.fit(
        patches, steps_per_epoch=skip + count + 1, shuffle=False, callbacks=[Clock()], verbose=0
    )
    return _milliseconds(iter(ends), skip=skip, count=count)


def _milliseconds(moments: Iterator[float], *, skip: int, count: int) -> float:
    """Mean time between two batches; the mean, since blocks make some intervals much longer."""
    taken = [next(moments) for _ in range(skip + count + 1)][skip:]
    return 1000 * statistics.mean(b - a for a, b in itertools.pairwise(taken))


def _table(times: StepTimes, config: Config) -> Table:
    table = Table(
        "", Column("ms a step", justify="right"), Column("patches a second", justify="right")
    )
    rows = {"data only": times.data_ms, "model only": times.model_ms, "joint": times.joint_ms}
    for name, ms in rows.items():
        patches = config.patches.batch_size * config.training.accumulate_steps
        table.add_row(name, f"{ms:.1f}", f"{1000 * patches / ms:.1f}")
    table.caption = "patches of each replica"
    return table
