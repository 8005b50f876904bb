"""Benchmarks the accuracy and learning speed of fcnseg's recipe, against MONAI's and nnU-Net's.

Phantoms of patients with large variation, at 4 mm for all; unseen ones are segmented by each
contender's own prediction and scored by `fcnseg evaluate`. One size of network, patch and batch for
all (`learning_task.py`), so that recipes are compared and not network widths. The contenders:

    fcnseg       its preset `demo` through its commands (`learning_fcnseg.py`)
    monai        DynUNet as in MONAI's tutorials (`learning_monai.py`)
    nnunet       nnU-Net's trainer as it is (`learning_nnunet.py`)
    nnunet_adam  its variant for Adam; only where it is asked for

First the time of a step is measured: a short and a longer run of each contender in turns, on all
cores, with nothing else on the machine. Then comes the training, at equal patches: each for the
same number of steps by its own schedule; and at equal time: each peer again, by its schedule, for
as many steps as it does in fcnseg's training time. That time includes the steps and waiting for
their data, and fcnseg's also building its graph. `--jobs` trainings are concurrent, each on cores
of its own, and other work does not matter to them.

Prints one JSON line per run and a summary. A run that exists in the output folder is not repeated,
so parts can be run one by one.

    python benchmarks/bench_learning.py --peer_python path/to/venv/bin/python \
        --seeds 5 --jobs 2 --output build/learning

where that Python has MONAI and nnU-Net (`pip install monai nnunetv2 torch`).
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import learning_fcnseg
from bench_seeds import call
from learning_phantoms import Wanted, make_data
from learning_task import BATCH, EPOCHS, LABELS, TRAINED_FILE, Task, whole_steps
from processes import has_module, side_by_side

from fcnseg.evaluation import Evaluation

MODULES = {"monai": "monai", "nnunet": "nnunetv2", "nnunet_adam": "nnunetv2"}
SCRIPTS = {name: f"learning_{module.removesuffix('v2')}.py" for name, module in MODULES.items()}
CONTENDERS = ("fcnseg", *MODULES)
DEFAULTS: dict[str, dict[str, Any]] = {"fcnseg": {"set": []}, "monai": {"learning_rate": 1e-3}}
Row = dict[str, Any]
_TIMED_EPOCHS = (1, 4)
_ROUNDS = 2


def run_peer(task: Task, python: str) -> None:
    """Runs a peer's script in its Python; its output is in log.txt."""
    path, log = task.output / "task.json", task.output / "log.txt"
    path.write_text(task.to_json())
    cores = str(len(os.sched_getaffinity(0)))
    folders = {
        "nnUNet_raw": str(task.shared / "raw"),
        "nnUNet_preprocessed": str(task.shared / "preprocessed"),
        "nnUNet_results": str(task.output / "results"),
    }
    # Its own rule for the processes that make patches: one per core, at most 12.
    numbers = {"nnUNet_n_proc_DA": str(min(12, int(cores))), "nnUNet_def_n_proc": cores}
    environment = os.environ | folders | numbers | {"nnUNet_compile": "f"}
    script = str(Path(__file__).with_name(SCRIPTS[task.contender]))
    with log.open("w") as stream:
        done = subprocess.run(
            [python, "-W", "ignore", script, str(path)],
            env=environment,
            stdout=stream,
            stderr=subprocess.STDOUT,
        )
    if done.returncode:
        sys.exit(f"{task.contender} ended with status {done.returncode}: {log.read_text()[-2000:]}")


class Pace(NamedTuple):
    """Time of a contender's training on all cores.

    Attributes:
        start_s: Time of its first step beyond that of the others.
        step_s: Time of a step.
    """

    start_s: float
    step_s: float

    def seconds(self, steps: int) -> float:
        """Computes the time of a training."""
        return round(self.start_s + steps * self.step_s, 1)

    def steps(self, seconds: float) -> int:
        """Computes how many steps a training has time for."""
        return whole_steps((seconds - self.start_s) / self.step_s)


def train_once(task: Task, train_and_predict: Callable[[Task], None]) -> Row:
    """Trains and predicts unless that is done; gives the facts of the training."""
    trained = task.output / TRAINED_FILE
    if not trained.exists():
        task.output.mkdir(parents=True, exist_ok=True)
        train_and_predict(task)
    return json.loads(trained.read_text())


def run_once(
    task: Task, train_and_predict: Callable[[Task], None], *, budget: str, pace: Pace
) -> Row:
    """Trains, predicts and evaluates unless that is done; gives the scores and the time."""
    facts = train_once(task, train_and_predict)
    scores = {step: evaluate(task, step) for step in task.checkpoints}
    return {
        "contender": task.contender,
        "budget": budget,
        "seed": task.seed,
        "options": task.options,
        "steps": task.steps,
        "patches": task.steps * BATCH,
        "parameters": facts["parameters"],
        "training_s": pace.seconds(task.steps),
        **scores[task.steps],
        "curve": [
            {
                "patches": step * BATCH,
                "training_s": pace.seconds(step),
                "mean_dice": scores[step]["mean_dice"],
            }
            for step in task.checkpoints
        ],
    }


def evaluate(task: Task, step: int) -> Row:
    """Computes the Dice of each organ over the unseen cases that have it.

    An organ that a case does not have is left out of the mean there, whether or not the mask has
    some of it: a single false positive voxel would count like a missing organ. Such masks are
    counted instead.
    """
    output = task.output / f"evaluation_{step}"
    if not (output / "evaluation.json").exists():
        call(
            *("fcnseg", "evaluate", "--masks", task.masks(step), "--labels", task.data / LABELS),
            *("--label_map", task.data / "label_map.yaml", "--output", output),
        )
    evaluation = Evaluation.read(output)
    dice, false_positive = {}, 0
    for organ in evaluation.organs:
        scores = [case[organ] for case in evaluation.cases.values()]
        false_positive += sum(score.is_false_positive for score in scores)
        there = [s.dice for s in scores if s.dice is not None and not s.is_false_positive]
        dice[organ] = round(statistics.mean(there), 4)
    return {
        "mean_dice": round(statistics.mean(dice.values()), 4),
        "worst_organ": min(dice.values()),
        "dice": dice,
        "false_positive": false_positive,
    }


def seconds_to(dice: float, curve: Sequence[Row]) -> float | None:
    """Finds when a run first reaches a Dice, linear between its checkpoints; None if it never does.

    Before the first checkpoint nothing is known, so that is the earliest time.
    """
    before = None
    for point in curve:
        if point["mean_dice"] >= dice:
            if before is None:
                return point["training_s"]
            share = (dice - before["mean_dice"]) / (point["mean_dice"] - before["mean_dice"])
            return before["training_s"] + share * (point["training_s"] - before["training_s"])
        before = point
    return None


def spread_of(rows: Sequence[Row]) -> Row:
    """Gives median and worst seed."""
    return {
        "seeds": len(rows),
        **{
            key: {
                "median": round(statistics.median(row[key] for row in rows), 4),
                "worst": min(row[key] for row in rows),
            }
            for key in ("mean_dice", "worst_organ")
        },
        "training_s": statistics.median(row["training_s"] for row in rows),
        "patches": statistics.median(row["patches"] for row in rows),
    }


def time_ratio(ours: dict[int, Row], theirs: dict[int, Row]) -> Row:
    """Computes fcnseg's time to a peer's final Dice at equal patches, as a ratio, by seed."""
    ratios = []
    for seed in sorted(ours.keys() & theirs.keys()):
        seconds = seconds_to(theirs[seed]["mean_dice"], ours[seed]["curve"])
        if seconds is not None:
            ratios.append(round(seconds / theirs[seed]["training_s"], 3))
    return {
        "seeds": len(ours.keys() & theirs.keys()),
        "reached": len(ratios),
        "median": statistics.median(ratios) if ratios else None,
        "each": ratios,
    }


def summary_of(rows: Sequence[Row]) -> Row:
    """Summarises median and worst seed of each contender, and fcnseg's time to the same Dice."""
    by_kind: dict[tuple[str, str], dict[int, Row]] = {}
    for row in rows:
        by_kind.setdefault((row["budget"], row["contender"]), {})[row["seed"]] = row
    ours = by_kind.get(("patches", "fcnseg"), {})
    summary: Row = {"equal_patches": {}, "equal_time": {}, "time_to_final_dice": {}}
    for (budget, contender), seeds in by_kind.items():
        spread = spread_of(list(seeds.values()))
        summary[f"equal_{budget}"][contender] = spread
        if contender == "fcnseg":
            summary["equal_time"][contender] = spread  # its time is the limit for all
        elif budget == "patches" and ours:
            summary["time_to_final_dice"][contender] = time_ratio(ours, seeds)
    return summary


class Benchmark:
    """The runs of one output folder."""

    def __init__(self, arguments: argparse.Namespace, data: Path) -> None:
        self.output: Path = arguments.output
        self.data = data
        self.steps: int = arguments.steps
        self.curves: list[str] = arguments.curves
        self.options = {
            "fcnseg": {"set": arguments.set},
            "monai": {"learning_rate": arguments.monai_learning_rate},
        }
        peer = functools.partial(run_peer, python=arguments.peer_python)
        self.run: dict[str, Callable[[Task], None]] = {
            "fcnseg": learning_fcnseg.train_and_predict,
            **dict.fromkeys(MODULES, peer),
        }

    def pace(self, contender: str) -> Pace:
        """Measures the time of a contender's steps, if needed; medians of the rounds."""
        seconds = []
        for epochs in _TIMED_EPOCHS:
            rounds = [self.timed(contender, epochs, number) for number in range(_ROUNDS)]
            seconds.append(statistics.median(rounds))
        first, last = _TIMED_EPOCHS
        per_epoch = (seconds[1] - seconds[0]) / (last - first)
        return Pace(seconds[0] - first * per_epoch, per_epoch * EPOCHS / self.steps)

    def timed(self, contender: str, epochs: int, number: int) -> float:
        """Trains for a few epochs, if needed; gives the seconds."""
        task = Task(
            contender=contender,
            data=self.data,
            shared=self.shared(contender),
            output=self.output / f"{self.name(contender)}_timed_{epochs}_{number}",
            seed=number,
            steps=epochs * self.steps // EPOCHS,
            epochs=epochs,
            segments="none",
            options=self.options.get(contender, {}),
        )
        return train_once(task, self.run[contender])["seconds"]

    def trained(self, contender: str, seed: int, *, budget: str, steps: int, pace: Pace) -> Row:
        """Trains one contender with one seed, if needed; gives its scores."""
        on_the_way = budget == "patches" and contender in self.curves
        task = Task(
            contender=contender,
            data=self.data,
            shared=self.shared(contender),
            output=self.output / f"{self.name(contender)}_{budget}_{steps}_{seed}",
            seed=seed,
            steps=steps,
            segments="checkpoints" if on_the_way else "last",
            options=self.options.get(contender, {}),
        )
        return run_once(task, self.run[contender], budget=budget, pace=pace)

    def shared(self, contender: str) -> Path:
        """The folder for what a contender prepares once."""
        return self.output / "shared" / contender.split("_")[0]

    def name(self, contender: str) -> str:
        """The start of the names of a contender's folders; another one with other options."""
        options = self.options.get(contender, {})
        if options == DEFAULTS.get(contender, {}):
            return contender
        return f"{contender}_{hashlib.sha256(json.dumps(options).encode()).hexdigest()[:6]}"

    def runs(
        self, seeds: int, contenders: Sequence[str], *, equal_time: bool
    ) -> Iterator[Callable[[], Row]]:
        """Lists all trainings, after the time of steps was measured."""
        for number in range(_ROUNDS):  # in turns
            for contender in contenders:
                for epochs in _TIMED_EPOCHS:
                    self.timed(contender, epochs, number)
        paces = {name: self.pace(name) for name in contenders}
        print(json.dumps({name: pace._asdict() for name, pace in paces.items()}), flush=True)
        for seed in range(seeds):
            for name, pace in paces.items():
                train = functools.partial(self.trained, name, seed, pace=pace)
                yield functools.partial(train, budget="patches", steps=self.steps)
                if equal_time and name != "fcnseg" and "fcnseg" in paces:
                    limit = paces["fcnseg"].seconds(self.steps)
                    yield functools.partial(train, budget="time", steps=pace.steps(limit))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, required=True, help="folder for everything")
    parser.add_argument("--peer_python", default=sys.executable, help="has monai and nnunetv2")
    parser.add_argument("--seeds", type=int, default=5, help="seeds 0 to this one less")
    parser.add_argument("--steps", type=int, default=750, help=f"of {BATCH} patches")
    parser.add_argument("--jobs", type=int, default=1, help="trainings side by side")
    parser.add_argument(
        "--contenders", nargs="+", default=CONTENDERS[:3], choices=CONTENDERS, help="who runs"
    )
    parser.add_argument(
        "--curves",
        nargs="*",
        default=["fcnseg", "monai"],  # nnU-Net's prediction, mirrored eight times, takes minutes
        choices=CONTENDERS,
        help="whose weights on the way segment too",
    )
    parser.add_argument("--no_equal_time", action="store_true", help="equal patches alone")
    parser.add_argument("--train_cases", type=int, default=30)
    parser.add_argument("--validation_cases", type=int, default=5)
    parser.add_argument("--test_cases", type=int, default=10)
    # With 2 the preset demo has a mean Dice of 0.80 after 750 steps, with 2.5 0.72 (one seed each).
    parser.add_argument("--variety", type=float, default=2.0, help="how much patients differ")
    parser.add_argument(
        "--monai_learning_rate", type=float, default=DEFAULTS["monai"]["learning_rate"]
    )
    parser.add_argument(
        "--set", nargs=argparse.REMAINDER, default=[], help="flags of fcnseg train; come last"
    )
    arguments = parser.parse_args()
    for name in arguments.contenders:
        module = MODULES.get(name)
        if module and not has_module(arguments.peer_python, module):
            parser.error(
                f"{name} needs {module}, which {arguments.peer_python} does not have:"
                " give --peer_python, or leave it out of --contenders"
            )
    if arguments.steps % EPOCHS:
        parser.error(f"--steps {arguments.steps}: a multiple of {EPOCHS} is needed")
    arguments.output = arguments.output.resolve()
    return arguments


def main() -> None:
    arguments = parse()
    cases = (arguments.train_cases, arguments.validation_cases, arguments.test_cases)
    wanted = Wanted(arguments.variety, *cases)
    benchmark = Benchmark(arguments, make_data(arguments.output, wanted))
    runs = benchmark.runs(
        arguments.seeds, arguments.contenders, equal_time=not arguments.no_equal_time
    )
    rows = []
    for row in side_by_side(list(runs), arguments.jobs):
        rows.append(row)
        print(json.dumps(row), flush=True)
    print(json.dumps(summary_of(rows)))


if __name__ == "__main__":
    main()
