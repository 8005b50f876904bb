"""Benchmarks the accuracy and learning speed of fcnseg's recipe, against MONAI's and nnU-Net's.

Phantoms of patients with large variation, at 4 mm for all; unseen ones are segmented by each
contender's own prediction and scored by `fcnseg evaluate`. One size of network, patch and batch for
all (`learning_task.py`), so that recipes are compared and not network widths. The contenders:

    fcnseg       its preset `demo` through its commands (`learning_fcnseg.py`)
    monai        DynUNet as in MONAI's tutorials (`learning_monai.py`)
    nnunet       nnU-Net's trainer as it is (`learning_nnunet.py`)
    nnunet_adam  its variant for Adam; only where it is asked for

First at equal patches: each trains for the same number of steps by its own schedule. Then at equal
time: each peer trains again, by its schedule, for as many steps as it does in fcnseg's training
time; that includes the steps and waiting for their data, and fcnseg's also building its graph. Each
runs in processes of its own, one after the other, so the machine should do nothing else.

Prints one JSON line per run and a summary. A run that exists in the output folder is not repeated,
so parts can be run one by one.

    python benchmarks/bench_learning.py --peer_python path/to/venv/bin/python \
        --seeds 5 --output build/learning

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
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import learning_fcnseg
from bench_seeds import call
from learning_phantoms import Wanted, make_data
from learning_task import BATCH, LABELS, TRAINED_FILE, Task, whole_steps
from processes import has_module

from fcnseg.evaluation import Evaluation

MODULES = {"monai": "monai", "nnunet": "nnunetv2", "nnunet_adam": "nnunetv2"}
SCRIPTS = {name: f"learning_{module.removesuffix('v2')}.py" for name, module in MODULES.items()}
CONTENDERS = ("fcnseg", *MODULES)
DEFAULTS: dict[str, dict[str, Any]] = {"fcnseg": {"set": []}, "monai": {"learning_rate": 1e-3}}
Row = dict[str, Any]


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


def run_once(task: Task, train_and_predict: Callable[[Task], None], *, budget: str) -> Row:
    """Trains, predicts and evaluates unless that is done; gives the scores and the time."""
    result = task.output / "result.json"
    if result.exists():
        return json.loads(result.read_text())
    task.output.mkdir(parents=True, exist_ok=True)
    if not (task.output / TRAINED_FILE).exists():
        train_and_predict(task)
    trained = json.loads((task.output / TRAINED_FILE).read_text())
    scores = {step: evaluate(task, step) for step in task.checkpoints}
    row = {
        "contender": task.contender,
        "budget": budget,
        "seed": task.seed,
        "options": task.options,
        "steps": task.steps,
        "patches": task.steps * BATCH,
        **trained,
        "step_s": round(trained["training_s"] / task.steps, 4),
        **scores[task.steps],
        # Steps take the same time, so the time of a checkpoint is in proportion to its steps.
        "curve": [
            {
                "patches": step * BATCH,
                "training_s": round(trained["training_s"] * step / task.steps, 1),
                "mean_dice": scores[step]["mean_dice"],
            }
            for step in task.checkpoints
        ],
    }
    result.write_text(json.dumps(row))
    return row


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
    dice, invented = {}, 0
    for organ in evaluation.organs:
        scores = [case[organ] for case in evaluation.cases.values()]
        invented += sum(score.is_invented for score in scores)
        there = [s.dice for s in scores if s.dice is not None and not s.is_invented]
        dice[organ] = round(statistics.mean(there), 4)
    return {
        "mean_dice": round(statistics.mean(dice.values()), 4),
        "worst_organ": min(dice.values()),
        "dice": dice,
        "invented": invented,
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

    def row(self, contender: str, seed: int, *, budget: str, steps: int) -> Row:
        """Runs one contender with one seed, if needed."""
        options = self.options.get(contender, {})
        name = contender
        if options != DEFAULTS.get(contender, {}):  # runs with other options get other folders
            name += f"_{hashlib.sha256(json.dumps(options).encode()).hexdigest()[:6]}"
        task = Task(
            contender=contender,
            data=self.data,
            shared=self.output / "shared" / contender.split("_")[0],
            output=self.output / f"{name}_{budget}_{steps}_{seed}",
            seed=seed,
            steps=steps,
            curve=budget == "patches" and contender in self.curves,
            options=options,
        )
        row = run_once(task, self.run[contender], budget=budget)
        print(json.dumps(row), flush=True)
        return row

    def rows_of(self, seed: int, contenders: Sequence[str], *, equal_time: bool) -> list[Row]:
        """Gives all runs of one seed."""
        rows = {
            name: self.row(name, seed, budget="patches", steps=self.steps) for name in contenders
        }
        again = []
        if equal_time and "fcnseg" in rows:
            for name in contenders:
                if name != "fcnseg":
                    steps = whole_steps(rows["fcnseg"]["training_s"] / rows[name]["step_s"])
                    again.append(self.row(name, seed, budget="time", steps=steps))
        return [*rows.values(), *again]


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, required=True, help="folder for everything")
    parser.add_argument("--peer_python", default=sys.executable, help="has monai and nnunetv2")
    parser.add_argument("--seeds", type=int, default=5, help="seeds 0 to this one less")
    parser.add_argument("--steps", type=int, default=750, help="of 3 patches; best divided by 15")
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
    arguments.output = arguments.output.resolve()
    return arguments


def main() -> None:
    arguments = parse()
    cases = (arguments.train_cases, arguments.validation_cases, arguments.test_cases)
    wanted = Wanted(arguments.variety, *cases)
    benchmark = Benchmark(arguments, make_data(arguments.output, wanted))
    rows = []
    for seed in range(arguments.seeds):
        equal_time = not arguments.no_equal_time
        rows += benchmark.rows_of(seed, arguments.contenders, equal_time=equal_time)
    print(json.dumps(summary_of(rows)))


if __name__ == "__main__":
    main()
