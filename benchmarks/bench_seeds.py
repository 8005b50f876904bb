"""Trains one configuration with many seeds, and scores each on unseen phantoms by `predict`.

A dependable recipe loses no organ, for any seed and any instruction set of the processor. The
script makes the phantoms and records of `make demo`, then trains, predicts and evaluates once for
each seed and instruction set, each in processes of their own, as a user would. Prints one JSON line
per run and a summary; ends with status 1 if a run misses the bounds.

    python benchmarks/bench_seeds.py --seeds 20 --output build/seeds
    python benchmarks/bench_seeds.py --seeds 4 --isa AVX2 AVX512_CORE off --output build/seeds_isa

`--isa` takes values of oneDNN's ONEDNN_MAX_CPU_ISA, `all` for all available, and `off` for
TensorFlow's own kernels. `--jobs` runs are concurrent, each on cores of its own. A run that exists
in the output folder is not repeated.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from processes import side_by_side

CASES = 14  # as in examples/demo.py
MEAN_DICE, ORGAN_DICE = 0.80, 0.60
_SPLITS = ("--validation_fraction", "0.15", "--test_fraction", "0.2")


def call(module: str, *flags: object, environment: dict[str, str] | None = None) -> None:
    """Runs a command of fcnseg; its output is shown if it fails."""
    done = subprocess.run(
        [sys.executable, "-m", module, *map(str, flags)],
        env={**os.environ, **(environment or {})},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        sys.exit(f"{module} ended with status {done.returncode}: {done.stderr[-2000:]}")


def make_records(folder: Path) -> tuple[Path, Path]:
    """Makes phantoms and their records, once per folder; gives both."""
    scans, records = folder / "scans", folder / "records"
    if not (records / "COMPLETED").exists():
        call("fcnseg", "phantom", "--cases", CASES, "--output", scans, "--seed", 0)
        call(
            *("pipelines.convert_ct", "--cases", scans / "cases.csv", "--output", records),
            *("--label_map", scans / "label_map.yaml", "--spacing_mm", 4, 4, 4, *_SPLITS),
        )
    return scans, records


def unseen_scans(scans: Path, records: Path, folder: Path) -> Path:
    """Makes a folder of links to the scans of the test split."""
    test = json.loads((records / "dataset_info.json").read_text())["splits"]["test"]["case_ids"]
    unseen = folder / "unseen"
    unseen.mkdir(exist_ok=True)
    for case_id in test:
        link = unseen / f"{case_id}.nii.gz"
        if not link.exists():
            link.symlink_to((scans / "images" / link.name).resolve())
    return unseen


def run_once(arguments: argparse.Namespace, scans: Path, *, seed: int, isa: str) -> dict[str, Any]:
    """Trains, predicts and evaluates; gives the scores of each organ."""
    folder = arguments.output / f"{isa}_{seed}"
    result = folder / "result.json"
    if result.exists():
        return json.loads(result.read_text())
    environment = {"off": {"TF_ENABLE_ONEDNN_OPTS": "0"}, "all": {}}.get(
        isa, {"ONEDNN_MAX_CPU_ISA": isa}
    )
    started = time.perf_counter()
    call(
        *("fcnseg", "train", "--config", arguments.config, "--data", arguments.output / "records"),
        *("--run_dir", folder / "run", "--resume", "--training.seed", seed),
        *arguments.set,
        environment=environment,
    )
    seconds = time.perf_counter() - started
    call(
        *("fcnseg", "predict", "--run_dir", folder / "run", "--output", folder / "masks"),
        *("--images", arguments.output / "unseen", "--resume"),
        environment=environment,
    )
    call(
        *("fcnseg", "evaluate", "--masks", folder / "masks", "--labels", scans / "labels"),
        *("--label_map", scans / "label_map.yaml", "--output", folder / "evaluation"),
    )
    classes = json.loads((folder / "evaluation" / "evaluation.json").read_text())["classes"]
    dice = {organ: round(scores["dice"], 3) for organ, scores in classes.items()}
    row = {
        "isa": isa,
        "seed": seed,
        "mean_dice": round(statistics.mean(dice.values()), 3),
        "worst_organ": min(dice.values()),
        "dice": dice,
        "training_s": round(seconds),
    }
    result.write_text(json.dumps(row))
    return row


def summary_of(rows: Sequence[dict[str, Any]], config: str) -> dict[str, Any]:
    """Summarises worst, median and best run."""
    means = [row["mean_dice"] for row in rows]
    worst = [row["worst_organ"] for row in rows]
    kept = [m >= MEAN_DICE and w >= ORGAN_DICE for m, w in zip(means, worst, strict=True)]
    return {
        "config": config,
        "runs": len(rows),
        "within_bounds": sum(kept),
        "mean_dice": [min(means), round(statistics.median(means), 3), max(means)],
        "worst_organ": [min(worst), round(statistics.median(worst), 3), max(worst)],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True, help="folder for everything")
    parser.add_argument("--config", default="demo", help="preset or YAML file")
    parser.add_argument("--seeds", type=int, default=20, help="seeds 0 to this one less")
    parser.add_argument("--isa", nargs="+", default=["all"], help="instruction sets")
    parser.add_argument("--jobs", type=int, default=1, help="runs side by side")
    parser.add_argument("--set", nargs=argparse.REMAINDER, default=[], help="flags of training")
    arguments = parser.parse_args()
    scans, records = make_records(arguments.output)
    unseen_scans(scans, records, arguments.output)
    runs = [
        functools.partial(run_once, arguments, scans, seed=seed, isa=isa)
        for isa in arguments.isa
        for seed in range(arguments.seeds)
    ]
    rows = []
    for row in side_by_side(runs, arguments.jobs):
        rows.append(row)
        print(json.dumps(row), flush=True)
    summary = summary_of(rows, arguments.config)
    print(json.dumps(summary))
    sys.exit(summary["within_bounds"] < summary["runs"])


if __name__ == "__main__":
    main()
