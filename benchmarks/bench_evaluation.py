"""Benchmarks time and memory of the surface scores of one large case, against other libraries.

HD95 and surface Dice of 7 organs in 512 x 512 x 200 voxels: fcnseg (with all its other scores), a
plain loop over organs with DeepMind's surface-distance, and MONAI's two metrics. Each runs in a
process of its own; the rounds alternate, so that a busy machine affects all equally. Prints one
JSON line.

    python benchmarks/bench_evaluation.py --monai_python path/to/venv/bin/python
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from processes import has_module, memory_mib

SPACING = (1.0, 0.8, 0.8)  # mm, (z, y, x)
SHAPE = (200, 512, 512)
NUM_CLASSES = 8
TOLERANCE_MM = 2.0
Scores = list[tuple[float, float]]  # for each organ HD95 in mm and surface Dice


def fcnseg(reference: Any, mask: Any) -> Scores:
    from fcnseg.evaluation import score_organs

    threads = os.cpu_count() or 1
    scores = score_organs(
        reference, mask, num_classes=NUM_CLASSES, spacing=SPACING, threads=threads
    )
    return [(s.hausdorff_distance_95_mm or 0.0, s.surface_dice or 0.0) for s in scores]


def surface_distance(reference: Any, mask: Any) -> Scores:
    import surface_distance as package

    scores = []
    for index in range(1, NUM_CLASSES):
        found = package.compute_surface_distances(reference == index, mask == index, SPACING)
        hd95 = package.compute_robust_hausdorff(found, 95)
        dice = package.compute_surface_dice_at_tolerance(found, TOLERANCE_MM)
        scores.append((float(hd95), float(dice)))
    return scores


def monai(reference: Any, mask: Any) -> Scores:
    import torch
    from monai.metrics import compute_hausdorff_distance, compute_surface_dice

    one_hot = [
        torch.stack([torch.from_numpy(part == index) for index in range(NUM_CLASSES)])[None]
        for part in (mask, reference)
    ]
    options = {"include_background": False, "spacing": SPACING}
    hd95 = compute_hausdorff_distance(*one_hot, percentile=95, **options)[0].tolist()
    tolerances = [TOLERANCE_MM] * (NUM_CLASSES - 1)
    dice = compute_surface_dice(*one_hot, tolerances, use_subvoxels=True, **options)[0].tolist()
    return list(zip(hd95, dice, strict=True))


CONTENDERS = {each.__name__: each for each in (fcnseg, surface_distance, monai)}


def make_case(folder: Path) -> None:
    """Writes reference and mask: a phantom, and the same deformed by up to some millimetres."""
    from scipy import ndimage

    from fcnseg.testing.phantom import make_phantom

    # Rendered at half the resolution, where a phantom takes seconds, then each voxel eight times.
    label = make_phantom(0, spacing=(2.0, 1.6, 1.6))[1].array
    half = tuple(length // 2 for length in SHAPE)
    reference = np.zeros(half, np.uint8)
    taken = tuple(slice(0, min(pair)) for pair in zip(half, label.shape, strict=True))
    reference[taken] = label[taken]
    rng = np.random.default_rng(0)
    bent = [
        index + 40 * ndimage.gaussian_filter(rng.standard_normal(half), 6)
        for index in np.indices(half)
    ]
    mask = ndimage.map_coordinates(reference, bent, order=0)
    for name, array in (("reference", reference), ("mask", mask)):
        for axis in range(3):
            array = array.repeat(2, axis)
        np.save(folder / f"{name}.npy", array)


def work(name: str, folder: Path) -> dict[str, Any]:
    """Runs one measurement of one contender, in this process."""
    reference, mask = (np.load(folder / f"{part}.npy") for part in ("reference", "mask"))
    small = np.ascontiguousarray(reference[::8, ::8, ::8])
    CONTENDERS[name](small, small)  # imports and first calls
    before = memory_mib("VmHWM")
    wall, cpu = time.perf_counter(), time.process_time()
    scores = CONTENDERS[name](reference, mask)
    return {
        "wall_s": round(time.perf_counter() - wall, 2),
        "cpu_s": round(time.process_time() - cpu, 2),
        "peak_gib": round((memory_mib("VmHWM") - before) / 1024, 3),
        "scores": scores,
    }


def measure(name: str, python: str, folder: Path) -> dict[str, Any] | None:
    """Runs one measurement in a new process; None if the contender is not installed."""
    if not has_module(python, name):
        return None
    command = [python, "-W", "ignore", __file__, "--work", name, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--monai_python", default=sys.executable, help="Python that has MONAI")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--work", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        print(json.dumps(work(arguments.work[0], Path(arguments.work[1]))))
        return
    pythons = dict.fromkeys(CONTENDERS, sys.executable) | {"monai": arguments.monai_python}
    with tempfile.TemporaryDirectory() as folder:
        make_case(Path(folder))
        rounds = [
            {name: measure(name, pythons[name], Path(folder)) for name in pythons}
            for _ in range(arguments.rounds)
        ]
    print(json.dumps(summary(rounds)))


def summary(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """Computes medians of all rounds, and fcnseg's time and memory relative to the others'."""
    result: dict[str, Any] = {"shape": SHAPE, "classes": NUM_CLASSES, "cores": os.cpu_count()}
    ours = np.array(rounds[0]["fcnseg"]["scores"])
    for name in CONTENDERS:
        if rounds[0][name] is None:
            result[name] = "not installed"
            continue
        result[name] = {
            key: statistics.median(each[name][key] for each in rounds)
            for key in ("wall_s", "cpu_s", "peak_gib")
        }
        if name != "fcnseg":
            for key in ("wall_s", "peak_gib"):
                ratio = statistics.median(each["fcnseg"][key] / each[name][key] for each in rounds)
                result[name][f"fcnseg_part_of_{key}"] = round(ratio, 3)
            hd95, dice = np.abs(ours - np.array(rounds[0][name]["scores"])).max(axis=0)
            result[name] |= {"hd95_differs_mm": float(hd95), "surface_dice_differs": float(dice)}
    return result


if __name__ == "__main__":
    main()
