"""Benchmarks records to batches, against only reading the same files and against a GPU's needs.

The limit is `tf.data.TFRecordDataset` over the files, which gives raw bytes. Records to batches is
`make_training_dataset`; a case counts with all of its bytes, however many patches are drawn from
it. The two alternate in one process.

A GPU waits for data if the host makes fewer patches per second than it takes. How many CPU seconds
a patch takes, augmentation included, is measured too; from it follow the patches per second of 16
cores, and the cores that an A100 keeps busy with the anchor of `A100_VOXELS_S`. CPU seconds
depend little on other work of the machine. Prints one JSON line.

    python benchmarks/bench_data.py --data records

The files should fit in memory, so that neither waits for the disk.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import os
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tensorflow as tf

from fcnseg.config import AugmentationConfig, PatchConfig, read_config
from fcnseg.records import Dataset, read_dataset_info
from fcnseg.sampling import Batch, make_training_dataset
from fcnseg.sampling.patch_order import Blocks

# What an A100 takes of a network of the size of nnU-Net's: 29 patches of 128^3 per second. It is an
# anchor from elsewhere, not measured here; a newer GPU takes more.
A100_VOXELS_S = 29 * 128**3
_CORES = 16
_BLOCKS = 4  # of patches, that are measured


def raw_gb_s(paths: list[str], size: int, *, passes: int) -> float:
    """Measures gigabytes per second of reading the files."""
    records = tf.data.TFRecordDataset(paths).repeat(passes)
    started = time.perf_counter()
    for _ in records:
        pass
    return passes * size / (time.perf_counter() - started) / 1e9


def warm_batches(
    data: Path, patches: PatchConfig, augmentation: AugmentationConfig
) -> tuple[Iterator[Batch], Blocks]:
    """Gives batches after a warm-up block, and the blocks that they come in."""
    dataset = Dataset.open(data)
    batches = iter(make_training_dataset(dataset, patches, seed=0, augmentation=augmentation))
    block = Blocks.of(patches, batch_size=patches.batch_size)
    for _ in range(block.steps):
        next(batches)
    return batches, block


def batches_gb_s(data: Path, config: str, samples: int, *, case_bytes: float) -> float:
    """Measures gigabytes per second of the cases in batches."""
    patches = dataclasses.replace(read_config(config).patches, samples_per_volume=samples)
    batches, block = warm_batches(data, patches, AugmentationConfig())
    started = time.perf_counter()
    for _ in range(_BLOCKS * block.steps):
        next(batches)
    return _BLOCKS * block.reads * case_bytes / (time.perf_counter() - started) / 1e9


def cpu_s_per_patch(data: Path, config: str, *, augmented: bool) -> float:
    """Measures CPU seconds of a patch in a batch."""
    settings = read_config(config)
    augmentation = settings.augmentation if augmented else AugmentationConfig()
    batches, block = warm_batches(data, settings.patches, augmentation)
    steps = _BLOCKS * block.steps
    started = time.process_time()
    for _ in range(steps):
        next(batches)
    return (time.process_time() - started) / (steps * settings.patches.batch_size)


def needs_of_a_gpu(data: Path, config: str) -> dict[str, Any]:
    """Compares the patches that the host makes with those that a GPU takes."""
    plain, augmented = (
        cpu_s_per_patch(data, config, augmented=augmented) for augmented in (False, True)
    )
    needed = A100_VOXELS_S / math.prod(read_config(config).patches.size)
    return {
        "config": config,
        "cpu_ms_per_patch": round(1000 * plain, 1),
        "cpu_ms_per_augmented_patch": round(1000 * augmented, 1),
        f"patches_s_of_{_CORES}_cores": round(_CORES / augmented, 1),
        "patches_s_of_an_a100": round(needed, 1),
        "cores_for_an_a100": round(needed * augmented, 1),
    }


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
    print(json.dumps(result | needs_of_a_gpu(arguments.data, arguments.config)))


if __name__ == "__main__":
    main()
