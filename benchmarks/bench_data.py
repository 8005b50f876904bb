"""Benchmarks records to batches without augmentation, against only reading the same files.

The limit is `tf.data.TFRecordDataset` over the files, which gives raw bytes. Records to batches is
`make_training_dataset`; a case counts with all of its bytes, however many patches are drawn from
it. The two alternate in one process. Prints one JSON line.

    python benchmarks/bench_data.py --data records

The files should fit in memory, so that neither waits for the disk.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import statistics
import time
from pathlib import Path

import tensorflow as tf

from fcnseg.config import read_config
from fcnseg.records import Dataset, read_dataset_info
from fcnseg.sampling import make_training_dataset
from fcnseg.sampling.patch_order import Blocks


def raw_gb_s(paths: list[str], size: int, *, passes: int) -> float:
    """Measures gigabytes per second of reading the files."""
    records = tf.data.TFRecordDataset(paths).repeat(passes)
    started = time.perf_counter()
    for _ in records:
        pass
    return passes * size / (time.perf_counter() - started) / 1e9


def batches_gb_s(data: Path, config: str, samples: int, *, case_bytes: float) -> float:
    """Measures gigabytes per second of the cases in batches, after a warm-up block."""
    patches = dataclasses.replace(read_config(config).patches, samples_per_volume=samples)
    block = Blocks.of(patches, batch_size=patches.batch_size)
    batches = iter(make_training_dataset(Dataset.open(data), patches, seed=0))
    for _ in range(block.steps):
        next(batches)
    blocks = 4
    started = time.perf_counter()
    for _ in range(blocks * block.steps):
        next(batches)
    return blocks * block.reads * case_bytes / (time.perf_counter() - started) / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of records")
    parser.add_argument("--config", default="fcn_s", help="preset or YAML file with the patches")
    parser.add_argument("--samples_per_volume", type=int, default=4, help="patches drawn of a case")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    shards = read_dataset_info(arguments.data).splits["train"].shards
    paths = [str(arguments.data / shard.name) for shard in shards]
    size = sum(shard.bytes for shard in shards)
    case_bytes = size / sum(shard.cases for shard in shards)
    passes = max(1, int(2e9 / size))
    rounds = []
    for _ in range(arguments.rounds):
        raw = raw_gb_s(paths, size, passes=passes)
        made = batches_gb_s(
            arguments.data, arguments.config, arguments.samples_per_volume, case_bytes=case_bytes
        )
        rounds.append((raw, made))
    result = {
        "cores": os.cpu_count(),
        "case_mb": round(case_bytes / 1e6, 1),
        "samples_per_volume": arguments.samples_per_volume,
        "raw_gb_s": round(statistics.median(raw for raw, _ in rounds), 2),
        "batches_gb_s": round(statistics.median(made for _, made in rounds), 2),
        "part_of_raw": round(statistics.median(made / raw for raw, made in rounds), 2),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
