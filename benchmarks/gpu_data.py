"""Configurations and records that `bench_gpu.py` trains with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from gpu_sizes import Sizes

from fcnseg.config import PRESETS, Config, override
from fcnseg.records import (
    COMPLETED_FILE,
    INFO_FILE,
    SPLITS,
    DatasetInfo,
    Record,
    ShardInfo,
    SplitInfo,
    TFRecordWriter,
    encode_chunks,
)
from fcnseg.volumes import LabelMap

CLASSES = ("background", *(f"organ_{number}" for number in range(1, 8)))
SPACING_MM = (2.0, 2.0, 2.0)


def preset(name: str, sizes: Sizes, **settings: Any) -> Config:
    """Gives a preset with some settings; a small one has the same parts with fewer channels."""
    chosen: dict[str, Any] = {"training.tensorboard": False}
    if sizes.small:
        levels = len(PRESETS[name].model.filters)
        chosen |= {
            "model.filters": sizes.filters[:levels],
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
    folder.mkdir(parents=True)
    train = list(range(sizes.cases - 1))
    shards = {
        "train": [train[first : first + 2] for first in range(0, len(train), 2)],
        "validation": [[sizes.cases - 1]],
    }
    info = DatasetInfo(
        spacing_mm=SPACING_MM,
        class_names=CLASSES,
        label_map=LabelMap.consecutive(CLASSES).to_mapping(),
        seed=0,
        splits={name: _write_split(folder, name, shards.get(name, []), sizes) for name in SPLITS},
    )
    (folder / INFO_FILE).write_text(info.to_json())
    (folder / COMPLETED_FILE).touch()
    return folder


def _write_split(folder: Path, split: str, shards: list[list[int]], sizes: Sizes) -> SplitInfo:
    infos, histogram, case_ids = [], np.zeros(len(CLASSES), np.int64), []
    for index, numbers in enumerate(shards):
        name = f"{split}-{index:05d}-of-{len(shards):05d}.tfrecord"
        with (folder / name).open("wb") as file:
            writer = TFRecordWriter(file)
            for number in numbers:
                record = _record(number, sizes.shape)
                writer.write(*encode_chunks(record))
                histogram += record.class_histogram
                case_ids.append(record.case_id)
        infos.append(ShardInfo(name, len(numbers), writer.bytes, writer.crc32c))
    return SplitInfo(
        cases=len(case_ids),
        case_ids=tuple(sorted(case_ids)),
        shards=tuple(infos),
        class_histogram=tuple(map(int, histogram)),
        divided=(),
    )


def _record(number: int, shape: tuple[int, int, int]) -> Record:
    rng = np.random.default_rng(number)
    label = np.zeros(shape, np.uint8)
    for organ in range(1, len(CLASSES)):
        size = np.array(shape) // (2 + organ % 4)
        start = rng.integers(0, np.array(shape) - size)
        label[tuple(slice(a, a + n) for a, n in zip(start, size, strict=True))] = organ
    hu = label * np.float32(40) - 100 + rng.standard_normal(shape, np.float32) * 20
    places = [np.argwhere(label == organ)[:1000] for organ in range(len(CLASSES))]
    places[0] = places[0][:0]
    return Record(
        case_id=f"case_{number:03d}",
        patient_id=f"case_{number:03d}",
        image=hu.astype(np.int16),
        label=label,
        affine=np.diag([*SPACING_MM, 1.0]),
        spacing=SPACING_MM,
        source_shape=shape,
        source_affine=np.eye(4),
        class_histogram=np.bincount(label.ravel(), minlength=len(CLASSES)),
        foreground_coordinates=np.concatenate(places).astype(np.int32),
        foreground_counts=np.array([len(rows) for rows in places]),
    )
