"""Configurations and records that `bench_gpu.py` trains with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from gpu_sizes import Sizes

from fcnseg.config import PRESETS, Config, override
from fcnseg.records import Record
from fcnseg.testing.records import make_record, write_dataset

CLASSES = ("background", *(f"organ_{number}" for number in range(1, 8)))
SPACING_MM = (2.0, 2.0, 2.0)


def preset(name: str, sizes: Sizes, **settings: Any) -> Config:
    """Gives a preset with some settings; a small one has fewer levels and channels."""
    chosen: dict[str, Any] = {"training.tensorboard": False}
    if sizes.small:
        levels = len(sizes.filters)
        chosen |= {
            "model.filters": sizes.filters,
            "model.deep_supervision": 0,
            "patches.size": sizes.patch,
            "patches.shuffle_buffer": 4,
            "inference.overlap": (4, 4, 4),
        }
        if PRESETS[name].model.residual_blocks:
            chosen["model.residual_blocks"] = (1,) * levels
    return override(PRESETS[name], {**chosen, **settings})


def small_run(sizes: Sizes, **settings: Any) -> Config:
    """A run of seconds that has all the state there is: dropout, batch norm, EMA."""
    state = {
        "model.dropout": 0.3,
        "training.epochs": 2,
        "training.steps_per_epoch": sizes.steps_per_epoch,
        "training.checkpoint_every": max(2, sizes.steps_per_epoch // 4),
        "training.ema_decay": 0.9,
        "training.learning_rate": 1e-3,
        "training.validate_every": 1,
        "patches.shuffle_buffer": 8,
    }
    return preset("demo", sizes, **{**state, **settings})


def write_records(folder: Path, sizes: Sizes) -> Path:
    """Writes cases of noise with a box of each organ as records, two cases per shard."""
    train = range(sizes.cases - 1)
    numbers = [train[first : first + 2] for first in range(0, len(train), 2)]
    return write_dataset(
        folder,
        {
            "train": [(_record(number, sizes.shape) for number in pair) for pair in numbers],
            "validation": [[_record(sizes.cases - 1, sizes.shape)]],
        },
        class_names=CLASSES,
        spacing_mm=SPACING_MM,
    )


def _record(number: int, shape: tuple[int, int, int]) -> Record:
    rng = np.random.default_rng(number)
    label = np.zeros(shape, np.uint8)
    for organ in range(1, len(CLASSES)):
        size = np.array(shape) // (2 + organ % 4)
        start = rng.integers(0, np.array(shape) - size)
        label[tuple(slice(a, a + n) for a, n in zip(start, size, strict=True))] = organ
    hu = label * np.float32(40) - 100 + rng.standard_normal(shape, np.float32) * 20
    case_id = f"case_{number:03d}"
    return make_record(case_id, hu=hu, label=label, spacing_mm=SPACING_MM, num_classes=len(CLASSES))
