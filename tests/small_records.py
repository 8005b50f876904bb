"""Datasets of a few thousand voxels, made without the conversion, for tests of their readers."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fcnseg.records import Record
from fcnseg.testing import records

CLASSES = ("background", "liver", "spleen")
SPACING_MM = (2.0, 2.0, 2.0)
HU_OF_CLASS = np.array([-100, 60, 200])


def make_record(case_id: str, *, seed: int, shape=(20, 24, 28), organs=(1, 2)) -> Record:
    """A box of each organ at a random place, each class at its own HU, with noise."""
    rng = np.random.default_rng(seed)
    label = np.zeros(shape, np.uint8)
    for organ, fraction in zip(organs, (2, 4), strict=False):  # the spleen is the smaller one
        size = np.array(shape) // fraction
        start = rng.integers(0, np.array(shape) - size)
        z, y, x = (slice(low, low + length) for low, length in zip(start, size, strict=True))
        label[z, y, x] = organ
    hu = HU_OF_CLASS[label] + rng.normal(0, 20, shape)
    return records.make_record(
        case_id, hu=hu, label=label, spacing_mm=SPACING_MM, num_classes=len(CLASSES)
    )


def write_dataset(
    folder: Path,
    splits: dict[str, list[list[Record]]],
    *,
    max_record_bytes: int = 2**30,
    ignored: tuple[int, ...] = (),
) -> Path:
    """Writes a dataset; each split is a list of shards, each a list of cases."""
    return records.write_dataset(
        folder,
        splits,
        class_names=CLASSES,
        spacing_mm=SPACING_MM,
        ignored=ignored,
        max_record_bytes=max_record_bytes,
    )


def write_small_dataset(folder: Path, *, max_record_bytes: int = 2**30) -> Path:
    """Three cases in two shards to train on, and one for validation."""
    made = [make_record(f"case_{seed}", seed=seed) for seed in range(4)]
    return write_dataset(
        folder,
        {"train": [made[:2], made[2:3]], "validation": [made[3:]]},
        max_record_bytes=max_record_bytes,
    )
