"""Benchmarks time and memory of resampling a mask from the network's grid to the image's.

Ellipsoids of 7 and of 41 classes at 2 mm, to 160 x 512 x 512 voxels of 1 mm: by fcnseg, and by its
former method, linear interpolation of the shares of all classes and the largest taken, 16 slices at
once. Each runs in a process of its own, in turns. Memory is the peak of a process, above the memory
after a small mask. Needs Linux, for /proc. Prints one JSON line of medians.

    python benchmarks/bench_masks.py
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from processes import memory_mib

SHAPE, RATIO, SLAB = (160, 512, 512), 2, 16  # (z, y, x) of the image; spacings of network to image
CLASSES = (8, 42)
ROOT = Path(__file__).parent.parent


def make_mask(num_classes: int) -> Any:
    """Makes ellipsoids of all classes at random positions, the later over the earlier."""
    rng = np.random.default_rng(0)
    axes = np.ogrid[tuple(slice(-1, 1, size // RATIO * 1j) for size in SHAPE)]
    mask = np.zeros([size // RATIO for size in SHAPE], np.uint8)
    for class_id in range(1, num_classes):
        centre, radius = rng.uniform(-0.6, 0.6, 3), rng.uniform(0.1, 0.35, 3)
        away = sum(((a - c) / r) ** 2 for a, c, r in zip(axes, centre, radius, strict=True))
        mask[away < 1] = class_id
    return mask


def fcnseg(num_classes: int) -> Any:
    """Makes the resampling of fcnseg."""
    import tensorflow as tf

    from fcnseg.inference.resampling import resample_ids

    steps = tf.fill([3], tf.constant(RATIO, tf.float64))
    return tf.function(
        lambda ids: resample_ids(ids, RATIO * tf.shape(ids), steps, num_classes=num_classes),
        input_signature=[tf.TensorSpec([None] * 3, tf.uint8)],
    )


def all_shares(num_classes: int) -> Any:
    """Makes the resampling by shares of all classes."""
    import tensorflow as tf

    from fcnseg.volumes.resampling import axis_positions, linear_matrix

    def matrix(length: int) -> Any:
        index = np.arange(length * RATIO, dtype=np.float64)
        positions = axis_positions(index, length, length * RATIO, 1 / RATIO, xp=np)
        weights = linear_matrix(positions, np.arange(length), 1 / RATIO, xp=np)
        return tf.constant(weights, tf.float32)

    def back(ids: Any) -> Any:
        along_z, along_y, along_x = map(matrix, ids.shape)
        slabs = []
        for first in range(0, along_z.shape[0], SLAB):
            rows = along_z[first : first + SLAB]
            used = tf.where(tf.reduce_any(rows > 0, axis=0))[:, 0]
            shares = tf.one_hot(tf.gather(ids, used), num_classes)
            shares = tf.einsum("az,zyxk->ayxk", tf.gather(rows, used, axis=1), shares)
            shares = tf.einsum("by,ayxk->abxk", along_y, shares)
            shares = tf.einsum("cx,abxk->abck", along_x, shares)
            slabs.append(tf.cast(tf.argmax(shares, axis=-1), tf.uint8))
        return tf.concat(slabs, axis=0)

    return back


CONTENDERS = {each.__name__: each for each in (fcnseg, all_shares)}


def work(name: str, num_classes: int) -> dict[str, float]:
    """Runs one measurement in this process."""
    mask = make_mask(num_classes)
    back = CONTENDERS[name](num_classes)
    back(mask[:4, :4, :4])
    idle, cpu, wall = memory_mib("VmRSS"), time.process_time(), time.perf_counter()
    back(mask).numpy()
    return {
        "cpu_s": time.process_time() - cpu,
        "wall_s": time.perf_counter() - wall,
        "peak_mib": memory_mib("VmHWM") - idle,
    }


def measure(name: str, num_classes: int) -> dict[str, float]:
    """Runs one measurement in a new process."""
    command = [sys.executable, __file__, "--work", name, "--classes", str(num_classes)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--work", choices=CONTENDERS, help=argparse.SUPPRESS)
    parser.add_argument("--classes", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        print(json.dumps(work(arguments.work, arguments.classes)))
        return
    result: dict[str, Any] = {"shape": SHAPE, "cores": os.cpu_count()}
    for count in CLASSES:
        rounds = [{n: measure(n, count) for n in CONTENDERS} for _ in range(arguments.rounds)]
        for name in CONTENDERS:
            result[f"{name}_{count}_classes"] = {
                key: round(statistics.median(each[name][key] for each in rounds), 2)
                for key in ("cpu_s", "wall_s", "peak_mib")
            }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
