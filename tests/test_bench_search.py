"""The benchmark of searches: each claim that it checks can fail."""

from __future__ import annotations

import dataclasses
import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tuning.trials import Outcome, Trial

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture(scope="module")
def bench():
    sys.path.insert(0, str(BENCHMARKS))
    yield importlib.import_module("bench_search")
    sys.path.remove(str(BENCHMARKS))


def trial(number, objective, until_epoch=5):
    settings = {"training.learning_rate": 0.001 * number} if number else {}
    return Trial(str(number), settings, {}, until_epoch).ended_with(Outcome(objective))


TRIALS = (trial(0, 0.5), trial(1, 0.7), trial(2, 0.6))


def overhead(bench, **changes):
    right = {
        "status": 0,
        "trials": TRIALS,
        "again": 0.7,
        "wall_outside": 0.04,
        "cpu_outside": 0.05,
        "wanted": 3,
    }
    return bench.checks_of_overhead(bench.Overhead(**{**right, **changes}))


@pytest.mark.parametrize(
    ("changes", "claim"),
    [
        ({"status": 2}, "ends_well"),
        ({"wanted": 4}, "all_trials_completed"),
        ({"trials": (*TRIALS[:2], trial(2, None))}, "all_trials_completed"),
        ({"trials": ()}, "all_trials_completed"),
        ({"again": 0.7000001}, "best_is_repeated_exactly"),
        ({"again": None}, "best_is_repeated_exactly"),
        ({"trials": (trial(0, 0.7), *TRIALS[1:])}, "best_is_better_than_base"),
        ({"trials": (trial(0, 0.8), *TRIALS[1:])}, "best_is_better_than_base"),
        ({"wall_outside": 0.051}, "wall_outside_is_small"),
        ({"cpu_outside": 0.051}, "cpu_outside_is_small"),
    ],
)
def test_each_claim_on_a_search_can_fail(bench, changes, claim):
    assert all(overhead(bench).values())
    assert not overhead(bench, **changes)[claim]


LEFT_ALONE = ((*TRIALS, trial(1, 0.8, 9)), "best.yaml of trial 1")


def killed(bench, *ends, kills=3, in_a_trial=3):
    searches = [bench.End(0, *LEFT_ALONE), *ends]
    return bench.checks_of_kills(searches, kills=kills, in_a_trial=in_a_trial, wanted=3)


@pytest.mark.parametrize(
    ("end", "claim"),
    [
        ({"status": 137}, "ends_well"),
        ({"trials": LEFT_ALONE[0][:-1]}, "no_trial_is_lost"),
        ({"trials": (*LEFT_ALONE[0], trial(3, 0.1))}, "no_trial_is_repeated"),
        ({"trials": (*LEFT_ALONE[0], LEFT_ALONE[0][-1])}, "no_trial_is_repeated"),
        ({"trials": (*TRIALS, trial(1, 0.81, 9))}, "results_are_the_same"),
        ({"trials": (*TRIALS[:2], trial(2, None), trial(1, 0.8, 9))}, "results_are_the_same"),
        ({"best": "best.yaml of trial 2"}, "best_is_the_same"),
        ({"best": ""}, "best_is_the_same"),
    ],
)
def test_each_claim_on_killed_searches_can_fail(bench, end, claim):
    """The last of several searches differs."""
    right = bench.End(0, *LEFT_ALONE)
    reordered = dataclasses.replace(right, trials=LEFT_ALONE[0][::-1])
    assert all(killed(bench, right, reordered).values())
    assert not killed(bench, right, dataclasses.replace(right, **end))[claim]


@pytest.mark.parametrize(
    ("counts", "claim"),
    [
        ({"kills": 2}, "kills_happened"),
        ({"kills": 3, "in_a_trial": 1}, "half_the_kills_were_in_a_trial"),
    ],
)
def test_too_few_kills_are_seen(bench, counts, claim):
    right = bench.End(0, *LEFT_ALONE)
    assert not killed(bench, right, **counts)[claim]
    assert not killed(bench)["ends_well"]  # nothing was killed


WORK = """
import subprocess, sys
script = "import time\\nwhile time.process_time() < 1: pass"
subprocess.Popen([sys.executable, "-c", script], start_new_session=True)
"""


MEASURE = """
import subprocess, sys, time
import bench_search as bench
bench.adopt_orphans()
before, started = bench.cpu_seconds(), time.monotonic()
subprocess.run([sys.executable, "-c", sys.argv[1]], check=True)
bench.wait_for_orphans()
assert 1 <= bench.cpu_seconds() - before < 1.5 + time.monotonic() - started
"""


def test_cpu_seconds_of_processes_that_outlive_their_parent_count():
    """Such are the server that forks trials and the trials; the tests have such a server too."""
    root = BENCHMARKS.parent
    environment = {**os.environ, "PYTHONPATH": f"{BENCHMARKS}{os.pathsep}{root}"}
    argv = [sys.executable, "-c", MEASURE, WORK]
    assert subprocess.run(argv, env=environment, check=False).returncode == 0
