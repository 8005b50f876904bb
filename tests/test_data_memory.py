"""How much host memory the training dataset holds, against what its docstring says."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from small_records import make_record, write_dataset

from fcnseg.config import PatchConfig
from fcnseg.sampling.blocks import Blocks

PATCHES = PatchConfig(size=(48, 48, 48), batch_size=2, samples_per_volume=4, shuffle_buffer=64)
CASE_SHAPE = (128, 192, 192)
SHARDS, CASES = 8, 4
RECORD_VOXEL = 2 + 1  # bytes: HU int16 and a class uint8
BATCH_VOXEL = 4 + 1  # bytes: HU float32 and a class uint8
_MIB = 2**20

# The peak of a new process while it takes batches, less what it holds once everything is imported
# and one batch of the smallest patches has been made.
MEASURE = """
import json, resource, sys
from fcnseg.config import PatchConfig
from fcnseg.records import Dataset
from fcnseg.sampling import make_training_dataset

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # KiB on Linux

small, large, settings = json.loads(sys.argv[1])
idle = PatchConfig(size=(8, 8, 8), batch_size=1, samples_per_volume=1, shuffle_buffer=1)
next(iter(make_training_dataset(Dataset.open(small), idle, seed=0)))
before = peak()
batches = iter(make_training_dataset(Dataset.open(large), PatchConfig(**settings), seed=0))
for _ in range(120):  # nearly four blocks
    next(batches)
print(peak() - before)
"""


@pytest.fixture
def datasets(tmp_path):
    """A small dataset, and one that is larger than what may be held of it."""
    record = make_record("case", seed=0, shape=CASE_SHAPE)
    named = [
        [dataclasses.replace(record, case_id=f"case_{shard}_{case}") for case in range(CASES)]
        for shard in range(SHARDS)
    ]
    small = write_dataset(tmp_path / "small", {"train": [[make_record("case", seed=0)]]})
    return small, write_dataset(tmp_path / "large", {"train": named})


def stated_bytes() -> int:
    """The sum of what the docstring of `make_training_dataset` names."""
    blocks = Blocks.of(PATCHES, batch_size=PATCHES.batch_size)
    voxels, case = int(np.prod(PATCHES.size)), int(np.prod(CASE_SHAPE)) * RECORD_VOXEL
    shuffled = 3 * blocks.patches * voxels * RECORD_VOXEL
    batches = 4 * PATCHES.batch_size * voxels * BATCH_VOXEL
    decoded = 2 * (case + PATCHES.samples_per_volume * voxels * RECORD_VOXEL)
    read = 4 * 2 * case
    return shuffled + batches + decoded + read


@pytest.mark.slow
def test_memory_is_what_the_docstring_states(datasets):
    stated = stated_bytes()
    assert stated < 0.75 * SHARDS * CASES * np.prod(CASE_SHAPE) * RECORD_VOXEL
    settings = dataclasses.asdict(PATCHES)
    argument = json.dumps([str(datasets[0]), str(datasets[1]), settings])
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, argument],
        cwd=Path(__file__).parent.parent,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
        check=True,
    )
    grown = int(done.stdout)
    assert grown < stated, f"{grown / _MIB:.0f} MiB of {stated / _MIB:.0f} MiB"
