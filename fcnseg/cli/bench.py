"""Measures the bottleneck of training: `fcnseg bench --help`."""

from __future__ import annotations

import dataclasses
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Column, Table

from fcnseg.cli.command import ConfigFlags, Location
from fcnseg.cli.quiet import load_tensorflow
from fcnseg.cli.tables import print_table
from fcnseg.config import Config
from fcnseg.errors import InputError
from fcnseg.records import Dataset
from fcnseg.storage.whole_file import check_free, check_output_file, write_whole

if TYPE_CHECKING:
    from fcnseg.training.step import Steps

# If the other part takes less than this share of a step, it is not the bottleneck.
_CLEAR = 0.9
_HINTS = {
    "data": "more CPU cores, patches.samples_per_volume higher (each read gives more patches), or"
    " augmentation.run_on device",
    "model": "an accelerator, training.precision mixed_bfloat16, or a smaller network or patch"
    " (fcnseg summary)",
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
        load_tensorflow()
        if self.steps < 1:
            raise InputError(f"steps must be at least 1, got {self.steps}")
        # --help need not wait for this.
        from fcnseg.training.out_of_memory import naming_memory_settings

        with naming_memory_settings(self.config):
            times = measure(self.config, self.data, steps=self.steps)
        hint = _HINTS[times.bottleneck]
        result = {**dataclasses.asdict(times), "bottleneck": times.bottleneck, "hint": hint}
        if self.output is not None:
            write_whole(self.output, json.dumps(result, indent=2) + "\n")
        print_table(_table(times, self.config))
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

    from fcnseg.sampling.damaged_files import naming_broken_files
    from fcnseg.sampling.patch_order import Blocks
    from fcnseg.training.assembly import (
        build_model,
        make_average,
        make_step,
        patches_maker,
        patches_per_step,
    )
    from fcnseg.training.dataset_checks import check_dataset
    from fcnseg.training.setting_checks import check_settings
    from fcnseg.training.step import make_steps
    from fcnseg.training.strategy import distributed

    dataset = Dataset.open(data)
    check_dataset(dataset, ignore_label=config.loss.ignore_label)
    info = dataset.info
    check_settings(config, info)
    model = build_model(config, info)
    most = config.training.steps_per_execution
    train = make_steps(make_step(config, model, info), make_average(config, model))
    strategy = model.distribute_strategy
    replicas = strategy.num_replicas_in_sync
    patches = patches_maker(config, dataset, replicas=replicas)()
    # Patches come in blocks: measure complete blocks, or the measurement would be of patches that
    # were made before it began.
    batch_size = patches_per_step(config, replicas=replicas)
    block = Blocks.of(config.patches, batch_size=batch_size).steps
    whole_blocks = -(-steps // block) * block
    with naming_broken_files(dataset):
        data_ms = _data_ms(iter(patches), skip=block, count=whole_blocks)
        one = tf.data.Dataset.from_tensors(next(iter(patches))).repeat()
        model_ms = _training_ms(
            train, distributed(one, strategy), skip=steps, count=steps, most=most
        )
        joint_ms = _training_ms(
            train, distributed(patches, strategy), skip=2 * block, count=whole_blocks, most=most
        )
    return StepTimes(data_ms, model_ms, joint_ms)


def _data_ms(batches: Iterator[Any], *, skip: int, count: int) -> float:
    """Mean time of a batch; the mean, since blocks make some intervals much longer."""

    def take(number: int) -> None:
        for _ in range(number):
            next(batches)

    return _mean_ms(take, skip=skip, count=count)


def _training_ms(
    train: Steps, batches: Iterator[Any], *, skip: int, count: int, most: int
) -> float:
    """Mean time of a training step, `most` of them per call."""

    def take(number: int) -> None:
        done = 0
        while done < number:
            _, steps = train(batches, done + 1, min(most, number - done))
            done += steps

    return _mean_ms(take, skip=skip, count=count)


def _mean_ms(take: Callable[[int], None], *, skip: int, count: int) -> float:
    take(skip)
    started = time.perf_counter()
    take(count)
    return 1000 * (time.perf_counter() - started) / count


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
