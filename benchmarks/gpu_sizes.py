"""Sizes of what `bench_gpu.py` measures, and the lines that its processes print."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Sizes of what is measured.

    Attributes:
        filters: Channels per level of the network that PyTorch has too, that of roth2018.
        patch: Voxels (z, y, x) of its patches.
        small: True if the presets are made small too: fewer channels, levels and voxels.
        cases: Records; the last one is for validation.
        shape: Voxels (z, y, x) of a record.
        volume: Voxels (z, y, x) of the volume that is segmented by sliding window.
        window: Voxels of a window along each axis.
        overlap: Voxels that neighbouring windows share.
        batches: Windows per call of the network.
        warmup_steps: Steps before those that are measured.
        steps: Measured steps.
        seconds: Duration of a measurement of the input pipeline.
        steps_per_epoch: Steps per epoch of the runs that are killed and exported, of two epochs.
        rounds: Measured segmentations.
    """

    filters: tuple[int, ...] = (32, 64, 128, 256)
    patch: tuple[int, int, int] = (64, 96, 96)
    small: bool = False
    cases: int = 12
    shape: tuple[int, int, int] = (160, 176, 208)
    volume: tuple[int, int, int] = (256, 208, 208)
    window: int = 64
    overlap: int = 16
    batches: tuple[int, ...] = (2, 8)
    warmup_steps: int = 5
    steps: int = 30
    seconds: float = 4.0
    steps_per_epoch: int = 20
    rounds: int = 3


SIZES = {
    "full": Sizes(),
    "smoke": Sizes(
        filters=(4, 8),
        patch=(16, 16, 16),
        small=True,
        cases=3,
        shape=(24, 32, 32),
        volume=(24, 24, 24),
        window=16,
        overlap=4,
        batches=(2,),
        warmup_steps=1,
        steps=2,
        seconds=0.2,
        steps_per_epoch=4,
        rounds=1,
    ),
}


def emit(check: str, **values: Any) -> None:
    """Prints a line; numbers have four significant digits."""
    line = {name: _rounded(value) for name, value in values.items()}
    print(json.dumps({"check": check, **line}), flush=True)


def one_line(error: BaseException) -> str:
    """The type and message of an error."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:1000]


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.4g}") if math.isfinite(value) else str(value)
    if isinstance(value, dict):
        return {key: _rounded(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(each) for each in value]
    return value
