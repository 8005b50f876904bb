"""Searches on phantoms: the time that a search adds, and what is lost when it is killed.

    python benchmarks/bench_search.py --output build/search                    # about an hour
    python benchmarks/bench_search.py --output build/search --kills 20

One search of `--trials` trials with two workers says how much wall time is spent neither in
training nor in validation; `fcnseg train` with its best configuration must repeat its
objective. With `--kills` a search with each of the tuners random and hyperband is killed that often
at random moments, and must end with the trials of the first one. Prints a JSON line for each, and
ends with status 1 if something differs.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import yaml
from bench_seeds import make_records

from fcnseg.runs.run_folder import read_run
from tuning.trials import BEST_CONFIG_FILE, Progress

SPACE = {
    "training.learning_rate": {"float": [5e-4, 3e-2], "log": True},
    "patches.foreground_fraction": {"choice": [0.33, 0.67, 0.9]},
    "model.dropout": {"choice": [0.0, 0.1]},
}


def main() -> None:
    """Runs the searches."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--trials", type=int, default=12)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--longest", type=float, default=60.0, help="seconds until a kill")
    options = parser.parse_args()
    _, records = make_records(options.output)
    (options.output / "space.yaml").write_text(yaml.safe_dump(SPACE))
    results = [_overhead(options, records)]
    if options.kills:
        results += [_killed(options, records, tuner) for tuner in ("random", "hyperband")]
    for result in results:
        print(json.dumps(result))
    sys.exit(not all(result["as_expected"] for result in results))


def _overhead(options: argparse.Namespace, records: Path) -> dict[str, Any]:
    """Measures a search, and trains with its best configuration."""
    folder = options.output / "overhead"
    started = time.monotonic()
    _start(options, records, folder, "--workers", 2).wait()
    wall = time.monotonic() - started
    trials = Progress.read(folder).trials
    outcomes = [trial.outcome for trial in trials if trial.outcome is not None]
    runs = [read_run(folder / "trials" / trial.root) for trial in trials]
    best = max(trials, key=lambda trial: trial.objective or 0.0)
    again = options.output / "again"
    subprocess.run(
        [
            *(sys.executable, "-m", "fcnseg", "train", "--config", folder / BEST_CONFIG_FILE),
            *("--data", records, "--run_dir", again),
        ],
        check=True,
        capture_output=True,
    )
    working = sum(run.seconds for run in runs) / 2
    return {
        "search": "overhead",
        "wall_s": round(wall, 1),
        "outside_training": round(1 - working / wall, 3),
        "peak_gib": round(max(each.peak_bytes or 0 for each in outcomes) / 2**30, 2),
        "base": trials[0].objective,
        "best": best.objective,
        "again": read_run(again).best_dice,
        "as_expected": read_run(again).best_dice == best.objective,
    }


def _killed(options: argparse.Namespace, records: Path, tuner: str) -> dict[str, Any]:
    """Kills a search again and again, and compares it with one that was left alone."""
    folders = [options.output / f"{tuner}_{name}" for name in ("alone", "killed")]
    alone, killed = folders
    _start(options, records, alone, "--tuner", tuner, "--workers", 2).wait()
    moments: list[float] = []
    while len(moments) < options.kills and not (killed / BEST_CONFIG_FILE).exists():
        process = _start(options, records, killed, "--tuner", tuner, "--workers", 2)
        moments.append(round(random.uniform(0, options.longest), 1))
        time.sleep(moments[-1])
        process.kill()
        process.wait()
    _start(options, records, killed, "--tuner", tuner, "--workers", 2).wait()
    found = [
        {
            (json.dumps(trial.settings), trial.until_epoch, trial.objective)
            for trial in Progress.read(folder).trials
        }
        for folder in folders
    ]
    best = [(folder / BEST_CONFIG_FILE).read_text() for folder in folders]
    count = len(Progress.read(killed).trials)
    return {
        "search": tuner,
        "kills_after_s": moments,
        "trials": count,
        "as_expected": found[0] == found[1] and len(found[1]) == count and best[0] == best[1],
    }


def _start(
    options: argparse.Namespace, records: Path, folder: Path, *flags: object
) -> subprocess.Popen[bytes]:
    training = {"epochs": options.epochs, "steps_per_epoch": options.steps, "validate_every": 5}
    settings = (word for k, v in training.items() for word in (f"--training.{k}", v))
    argv = [
        *("--data", records, "--config", "demo", "--space", options.output / "space.yaml"),
        *("--max_trials", options.trials, "--output", folder, *settings, *flags),
    ]
    with (options.output / "stderr.txt").open("a") as stderr:
        return subprocess.Popen(
            [sys.executable, "-m", "tuning.search", *map(str, argv)],
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )


if __name__ == "__main__":
    main()
