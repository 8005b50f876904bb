"""Benchmarks patches per second of the spatial augmentation on one core, against other libraries.

Rotation to 20 degrees about each axis, scaling to 10 %, elastic deformation; image linear, label
nearest; a patch of 96^3 from a source that contains every rotation of it, drawing included. Each
gets its input as its own type of tensor. fcnseg runs as in tf.data, next to MONAI's Rand3DElastic
(which includes an affine part) and batchgeneratorsv2's SpatialTransform with and without its
elastic part. Each has a process of its own on one core; the rounds alternate, so that a busy
machine affects all equally. Prints one JSON line.

    python benchmarks/bench_augment.py --peer_python path/to/venv/bin/python

The peers: pip install monai batchgeneratorsv2, in an environment of their own or in this one.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from processes import has_module

SIZE = (96, 96, 96)
SOURCE = (174, 178, 174)  # size that fcnseg cuts for these settings
DEGREES = 20
SCALE = 0.1
PATCHES = 9  # per measurement; the fastest counts
# From int16 HU and uint8 classes to the input of a warp; and from that and a seed to two arrays.
Prepare = Callable[[Any, Any], Any]
Warp = Callable[[Any, int], Any]
Contender = tuple[str, Prepare, Warp]


def fcnseg() -> Contender:
    import tensorflow as tf

    from fcnseg.config import AugmentationConfig
    from fcnseg.sampling.augmentation import Augmentation

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    config = AugmentationConfig(
        rotation_degrees=(DEGREES,) * 3, scale=(1 - SCALE, 1 + SCALE), deformation_voxels=(4, 4, 4)
    )
    augmentation = Augmentation(config, SIZE, SIZE, (1.0, 1.0, 1.0))
    if augmentation.source_size != SOURCE:
        raise ValueError(f"SOURCE must be what fcnseg cuts, got {augmentation.source_size}")

    @tf.function
    def warp(hu: Any, label: Any, seed: Any) -> Any:
        drawn = augmentation.draw(tf.stack([seed, seed]))
        parameters = {name: value[tf.newaxis] for name, value in drawn.items()}
        return augmentation.apply_compiled(hu, label, parameters)

    def prepare(hu: Any, label: Any) -> Any:
        return tf.constant(hu[np.newaxis]), tf.constant(label[np.newaxis])

    def run(patch: Any, seed: int) -> Any:
        return [part.numpy()[0] for part in warp(*patch, tf.constant(seed, tf.int64))]

    return f"tensorflow {tf.__version__}", prepare, run


def monai() -> Contender:
    import monai
    import torch
    from monai.transforms import Rand3DElasticd

    torch.set_num_threads(1)
    angle = np.radians(DEGREES)
    transform = Rand3DElasticd(
        keys=["image", "label"],
        sigma_range=(8, 8),
        magnitude_range=(100, 100),
        prob=1.0,
        rotate_range=(angle,) * 3,
        scale_range=(SCALE,) * 3,
        spatial_size=SIZE,
        mode=["bilinear", "nearest"],
        padding_mode="border",
    )

    def prepare(hu: Any, label: Any) -> Any:
        image = torch.from_numpy(hu[np.newaxis].astype(np.float32))
        return {"image": image, "label": torch.from_numpy(label[np.newaxis])}

    def run(patch: Any, seed: int) -> Any:
        transform.set_random_state(seed)
        warped = transform(patch)
        return [np.asarray(warped[name])[0] for name in ("image", "label")]

    return f"monai {monai.__version__}", prepare, run


def _batchgenerators(*, elastic: float) -> Contender:
    from importlib.metadata import version

    import torch
    from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform

    torch.set_num_threads(1)
    angle = np.radians(DEGREES)
    transform = SpatialTransform(
        SIZE,
        patch_center_dist_from_border=0,
        random_crop=False,
        p_elastic_deform=elastic,
        p_rotation=1.0,
        rotation=(-angle, angle),
        p_scaling=1.0,
        scaling=(1 - SCALE, 1 + SCALE),
        p_synchronize_scaling_across_axes=1.0,
        mode_seg="nearest",
    )

    def prepare(hu: Any, label: Any) -> Any:
        image = torch.from_numpy(hu[np.newaxis].astype(np.float32))
        return {
            "image": image,
            "segmentation": torch.from_numpy(label[np.newaxis].astype(np.int16)),
        }

    def run(patch: Any, seed: int) -> Any:
        torch.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002 - the peer's generator
        warped = transform(**patch)
        return [warped[name][0].numpy() for name in ("image", "segmentation")]

    return f"batchgeneratorsv2 {version('batchgeneratorsv2')}", prepare, run


def batchgenerators() -> Contender:
    return _batchgenerators(elastic=1.0)


def batchgenerators_without_elastic() -> Contender:
    return _batchgenerators(elastic=0.0)


CONTENDERS = {
    each.__name__: each
    for each in (fcnseg, monai, batchgenerators, batchgenerators_without_elastic)
}
PACKAGES = {"batchgenerators": "batchgeneratorsv2"} | {
    "batchgenerators_without_elastic": "batchgeneratorsv2"
}


def work(name: str) -> dict[str, Any]:
    """Measures milliseconds per patch, of one contender in this process."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    versions, prepare, run = CONTENDERS[name]()
    rng = np.random.default_rng(0)
    hu = rng.integers(-1000, 1000, SOURCE, dtype=np.int16)
    patch = prepare(hu, (hu % 8).astype(np.uint8))
    times = []
    for seed in range(PATCHES + 2):  # two to compile and warm up
        started = time.perf_counter()
        image, classes = run(patch, seed)
        times.append(1000 * (time.perf_counter() - started))
        if image.shape != SIZE or classes.shape != SIZE:
            raise ValueError(f"{name} gave {image.shape} and {classes.shape}")
    return {"version": versions, "ms": min(times[2:])}


def measure(name: str, python: str) -> dict[str, Any] | None:
    """Runs one measurement in a new process; None if the contender is not installed."""
    module = PACKAGES.get(name, name)
    if not has_module(python, module):
        return None
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    done = subprocess.run(
        [python, "-W", "ignore", __file__, "--work", name],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, **threads, "TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peer_python", default=sys.executable, help="Python that has the peers")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--work", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        print(json.dumps(work(arguments.work)))
        return
    pythons = dict.fromkeys(CONTENDERS, arguments.peer_python) | {"fcnseg": sys.executable}
    rounds = [
        {name: measure(name, python) for name, python in pythons.items()}
        for _ in range(arguments.rounds)
    ]
    print(json.dumps(summary(rounds)))


def summary(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """Computes medians of all rounds, and the speed-up of fcnseg."""
    result: dict[str, Any] = {"size": SIZE, "source": SOURCE, "cores": 1}
    for name, first in rounds[0].items():
        if first is None:
            result[name] = "not installed"
            continue
        ms = statistics.median(each[name]["ms"] for each in rounds)
        result[name] = {
            "version": first["version"],
            "ms_a_patch": round(ms, 2),
            "patches_a_second": round(1000 / ms, 1),
        }
        if name != "fcnseg":
            ratios = [each[name]["ms"] / each["fcnseg"]["ms"] for each in rounds]
            result[name]["fcnseg_times_faster"] = round(statistics.median(ratios), 1)
    return result


if __name__ == "__main__":
    main()
