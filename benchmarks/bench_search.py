"""Searches on phantoms: the time that a search adds, and what is lost when it is killed.

    python benchmarks/bench_search.py --output build/search                    # about an hour
    python benchmarks/bench_search.py --output build/search --kills 20

One search of `--trials` trials with `--workers` workers says how much wall time, and how many CPU
seconds of all its processes, are spent neither in training nor in validation; `fcnseg train` with
its best configuration must repeat its objective, which must be better than that of the base. With
`--kills` searches with each of the tuners random and hyperband are killed by SIGKILL so often at
random moments, and must each end with the trials of one that was left alone; when one has ended,
the next begins in a folder of its own, until there were as many kills. Prints a JSON line for each,
with every claim that was checked, and ends with status 1 if one is wrong. Needs Linux.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import dataclasses
import itertools
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from bench_seeds import make_records
from fcnseg.jobs.tuning.trials import (  # type: ignore[import-not-found]
    BEST_CONFIG_FILE,
    TRIALS_FILE,
    Progress,
    Trial,
    best_trial,
)

from fcnseg.runs.run_folder import read_run

SPACE = {
    "training.learning_rate": {"float": [5e-4, 3e-2], "log": True},
    "patches.foreground_fraction": {"choice": [0.33, 0.67, 0.9]},
    "model.dropout": {"choice": [0.0, 0.1]},
}
MOST_OUTSIDE = 0.05  # of the wall time and of the CPU seconds of a search
_PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h


@dataclasses.dataclass(frozen=True)
class Overhead:
    """A search that was left alone, and a training with its best configuration.

    Attributes:
        status: Exit status of the search.
        trials: Its trials.
        again: Objective of the training; None if there was none.
        wall_outside: Share of the workers' wall time that was not training or validation.
        cpu_outside: The same of the CPU seconds of all processes.
        wanted: Number of trials that the search was to have.
    """

    status: int
    trials: tuple[Trial, ...]
    again: float | None
    wall_outside: float
    cpu_outside: float
    wanted: int


@dataclasses.dataclass(frozen=True)
class End:
    """The end of a search.

    Attributes:
        status: Exit status of its last command.
        trials: Its trials.
        best: Content of `best.yaml`; empty if there is none.
    """

    status: int
    trials: tuple[Trial, ...]
    best: str


def main() -> None:
    """Runs the searches."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--trials", type=int, default=12)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--validate_every", type=int, default=5)
    parser.add_argument("--kills", type=int, default=0, help="kills of each tuner's searches")
    parser.add_argument("--longest", type=float, default=60.0, help="seconds until a kill")
    parser.add_argument("--seed", type=int, default=0, help="seed of the moments")
    options = parser.parse_args()
    adopt_orphans()
    _, records = make_records(options.output)
    (options.output / "space.yaml").write_text(yaml.safe_dump(SPACE))
    tuners = ("random", "hyperband") if options.kills else ()
    results = itertools.chain(
        [_overhead(options, records)], (_killed(options, records, tuner) for tuner in tuners)
    )
    is_right = [_report(result) for result in results]
    sys.exit(not all(is_right))


def _report(result: dict[str, Any]) -> bool:
    """Prints a result as a line; tells whether all its claims are right."""
    is_right = all(result["checks"].values())
    print(json.dumps({**result, "as_expected": is_right}), flush=True)
    return is_right


def checks_of_overhead(found: Overhead) -> dict[str, bool]:
    """Tells which claims on a search that was left alone are right."""
    objectives = [trial.objective for trial in found.trials if trial.objective is not None]
    base = next((trial.objective for trial in found.trials if trial.trial_id == "0"), None)
    best = max(objectives, default=None)
    return {
        "ends_well": found.status == 0,
        "all_trials_completed": len(objectives) == len(found.trials) == found.wanted,
        "best_is_repeated_exactly": best is not None and found.again == best,
        "best_is_better_than_base": best is not None and base is not None and best > base,
        "wall_outside_is_small": found.wall_outside <= MOST_OUTSIDE,
        "cpu_outside_is_small": found.cpu_outside <= MOST_OUTSIDE,
    }


def checks_of_kills(
    searches: Sequence[End], *, kills: int, in_a_trial: int, wanted: int
) -> dict[str, bool]:
    """Tells which claims on searches that were killed are right.

    Args:
        searches: The search that was left alone, and those that were killed and resumed.
        kills: Kills of searches that ran.
        in_a_trial: Those of them while a trial ran.
        wanted: Kills that there were to be.
    """
    alone, *killed = searches
    begun = [Counter(_begun(trial) for trial in search.trials) for search in searches]
    results = [sorted(map(_result, search.trials)) for search in searches]
    return {
        "ends_well": bool(killed) and not any(search.status for search in searches),
        "kills_happened": kills >= wanted,
        "half_the_kills_were_in_a_trial": in_a_trial >= wanted / 2,
        "no_trial_is_lost": not any(begun[0] - other for other in begun),
        "no_trial_is_repeated": not any(other - begun[0] for other in begun),
        "results_are_the_same": all(other == results[0] for other in results),
        "best_is_the_same": all(search.best == alone.best != "" for search in killed),
    }


def _begun(trial: Trial) -> str:
    return json.dumps([trial.settings, trial.until_epoch], sort_keys=True)


def _result(trial: Trial) -> tuple[str, str]:
    return _begun(trial), f"{trial.status} {trial.objective!r}"


def adopt_orphans() -> None:
    """Makes this process the parent of descendants whose own parent has ended.

    A search does not wait for the server that forks its trials, so the CPU seconds of the trials
    would count nowhere.
    """
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")


def wait_for_orphans() -> None:
    """Waits until all children of this process have ended."""
    with contextlib.suppress(ChildProcessError):
        while True:
            os.wait()


def cpu_seconds() -> float:
    """Gives the CPU seconds of all descendants that have ended and were waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _overhead(options: argparse.Namespace, records: Path) -> dict[str, Any]:
    """Measures a search, and trains with its best configuration."""
    folder = _empty(options.output / "overhead")
    started, cpu_before = time.monotonic(), cpu_seconds()
    status = _start(options, records, folder).wait()
    wall = time.monotonic() - started
    wait_for_orphans()
    cpu = cpu_seconds() - cpu_before
    trials = Progress.read(folder).trials
    outcomes = [trial.outcome for trial in trials if trial.outcome is not None]
    completed = [trial for trial in trials if trial.objective is not None]
    training = sum(read_run(folder / "trials" / trial.root).seconds for trial in completed)
    training_cpu = sum(each.training_cpu_seconds for each in outcomes)
    found = Overhead(
        status,
        trials,
        _train_again(options, records, folder),
        wall_outside=1 - training / options.workers / wall,
        cpu_outside=1 - training_cpu / cpu,
        wanted=options.trials,
    )
    best = best_trial(trials, epochs=options.epochs)
    return {
        "search": "overhead",
        "wall_s": round(wall, 1),
        "cpu_s": round(cpu, 1),
        "wall_outside": round(found.wall_outside, 3),
        "cpu_outside": round(found.cpu_outside, 3),
        "peak_gib": round(max((each.peak_bytes or 0 for each in outcomes), default=0) / 2**30, 2),
        "base": trials[0].objective if trials else None,
        "best": None if best is None else best.objective,
        "again": found.again,
        "checks": checks_of_overhead(found),
    }


def _train_again(options: argparse.Namespace, records: Path, folder: Path) -> float | None:
    """Trains with the best configuration of a search; gives its Dice, None if it fails."""
    again = _empty(options.output / "again")
    words = ["--config", folder / BEST_CONFIG_FILE, "--data", records, "--run_dir", again]
    with (options.output / "stderr.txt").open("a") as stderr:
        done = subprocess.run(
            [sys.executable, "-m", "fcnseg", "train", *map(str, words)],
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            env=_environment(),
        )
    return None if done.returncode else read_run(again).best_dice


def _killed(options: argparse.Namespace, records: Path, tuner: str) -> dict[str, Any]:
    """Kills searches again and again, and compares them with one that was left alone."""
    rng = random.Random(f"{options.seed} {tuner}")
    alone = _empty(options.output / f"{tuner}_alone")
    searches = [_end(options, records, alone, tuner)]
    moments: list[float] = []
    in_a_trial = 0
    # Each search is killed at least once on average, or the flags leave no time for it.
    while len(moments) < options.kills and len(searches) <= options.kills:
        folder = _empty(options.output / f"{tuner}_killed_{len(searches)}")
        while len(moments) < options.kills:
            began = time.time()
            process = _start(options, records, folder, "--tuner", tuner)
            moment = round(rng.uniform(0, options.longest), 1)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=moment)
            process.kill()  # does nothing if it has ended
            if process.wait() != -signal.SIGKILL:
                break
            moments.append(moment)
            in_a_trial += _runs_a_trial(folder, since=began)
        searches.append(_end(options, records, folder, tuner))
    wait_for_orphans()
    return {
        "search": tuner,
        "kills": len(moments),
        "kills_in_a_trial": in_a_trial,
        "kills_after_s": moments,
        "searches_killed": len(searches) - 1,
        "trials": [len(search.trials) for search in searches],
        "checks": checks_of_kills(
            searches, kills=len(moments), in_a_trial=in_a_trial, wanted=options.kills
        ),
    }


def _runs_a_trial(folder: Path, *, since: float) -> bool:
    """Tells whether the search that began at a time had a trial running when it was killed."""
    path = folder / TRIALS_FILE
    if not path.exists() or path.stat().st_mtime < since:
        return False
    return any(trial.status == "running" for trial in Progress.read(folder).trials)


def _end(options: argparse.Namespace, records: Path, folder: Path, tuner: str) -> End:
    """Runs a search to its end."""
    status = _start(options, records, folder, "--tuner", tuner).wait()
    best = folder / BEST_CONFIG_FILE
    text = best.read_text() if best.exists() else ""
    return End(status, Progress.read(folder).trials, text)


def _empty(folder: Path) -> Path:
    """A folder of a search that has not begun; an earlier one is deleted."""
    shutil.rmtree(folder, ignore_errors=True)
    return folder


def _start(
    options: argparse.Namespace, records: Path, folder: Path, *flags: object
) -> subprocess.Popen[bytes]:
    training = {
        "epochs": options.epochs,
        "steps_per_epoch": options.steps,
        "validate_every": options.validate_every,
    }
    settings = (word for k, v in training.items() for word in (f"--training.{k}", v))
    argv = [
        *("--data", records, "--config", "demo", "--space", options.output / "space.yaml"),
        *("--max_trials", options.trials, "--workers", options.workers),
        *("--output", folder, *settings, *flags),
    ]
    with (options.output / "stderr.txt").open("a") as stderr:
        return subprocess.Popen(
            [sys.executable, "-m", "tuning.search", *map(str, argv)],
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            env=_environment(),
        )


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


if __name__ == "__main__":
    main()
