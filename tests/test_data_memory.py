"""Host memory of the training dataset grows neither with the dataset nor with the steps."""

from __future__ import annotations

import dataclasses
import json

import pytest
from scripts import output_of
from small_records import make_record, write_dataset

from fcnseg.config import PatchConfig
from fcnseg.records import Dataset

PATCHES = PatchConfig(size=(48, 48, 48), batch_size=2, samples_per_volume=4, shuffle_buffer=64)
SHAPE = (64, 192, 192)  # 7 MB a case
SHARDS = 8
FEW, MANY = 2, 8  # cases a shard
STEPS = 160  # two patches each, of four a read: 80 reads, more than there are cases

MEASURE = """
import ctypes, json, sys
ctypes.CDLL(None).mallopt(-3, 2**16)  # M_MMAP_THRESHOLD: what is freed goes back at once
from fcnseg.config import PatchConfig
from fcnseg.records import Dataset
from fcnseg.sampling import make_training_dataset
from scripts import peak_bytes

folder, settings, steps = sys.argv[1], json.loads(sys.argv[2]), int(sys.argv[3])
batches = make_training_dataset(
    Dataset.open(folder), PatchConfig(**settings), seed=0, with_case_ids=True
)
seen = {case_id for _, ids in batches.take(steps) for case_id in ids.numpy()}
print("peak", len(seen), peak_bytes())
"""


def write_cases(folder, per_shard):
    record = make_record("case", seed=0, shape=SHAPE)
    shards = [
        [dataclasses.replace(record, case_id=f"case_{shard}_{n}") for n in range(per_shard)]
        for shard in range(SHARDS)
    ]
    return write_dataset(folder, {"train": shards})


def bytes_of(folder) -> int:
    return sum(shard.bytes for shard in Dataset.open(folder).info.splits["train"].shards)


def peak_of(folder, *, steps, cases) -> int:
    """The most bytes that a new process holds, in which all cases are read."""
    output = output_of(MEASURE, folder, json.dumps(dataclasses.asdict(PATCHES)), steps)
    seen, peak = map(int, output.split("peak")[1].split())
    assert seen == cases
    return peak


@pytest.mark.slow
def test_memory_grows_neither_with_the_dataset_nor_with_the_steps(tmp_path):
    """Less than a quarter of the cases that are read in addition is held."""
    few, many = (write_cases(tmp_path / str(count), count) for count in (FEW, MANY))
    more = bytes_of(many) - bytes_of(few)
    peak = peak_of(few, steps=STEPS, cases=SHARDS * FEW)
    larger = peak_of(many, steps=STEPS, cases=SHARDS * MANY)
    longer = peak_of(few, steps=2 * STEPS, cases=SHARDS * FEW)  # 80 more reads, of no new case
    assert max(larger, longer) - peak < more / 4, (peak, larger, longer, more)
