"""Measures what each part of the recipe is worth, by leaving it out or replacing it.

Trains the preset `demo` on the very varied phantoms of `bench_learning.py` with one setting changed
at a time, several seeds each, and scores the unseen phantoms. Prints one JSON line per run and a
summary; a run that exists in the output folder is not repeated.

    python benchmarks/bench_recipe.py --seeds 3 --jobs 2 --output build/learning

With the output folder of `bench_learning.py` its phantoms, and its runs of the recipe as it is, are
used again.
"""

from __future__ import annotations

import argparse
import functools
import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import learning_fcnseg
from bench_learning import Row, evaluate, train_once
from learning_phantoms import Wanted, make_data
from learning_task import Task
from processes import side_by_side

STEPS = 750
RECIPES: dict[str, tuple[str, ...]] = {
    "as it is": (),
    "soft Dice alone": ("--loss.name", "dice"),
    "cross-entropy alone": ("--loss.name", "cross_entropy"),
    "no class balance": ("--loss.class_balance", "0"),
    "class balance 1": ("--loss.class_balance", "1"),
    "Dice of each patch": ("--loss.no_batch_dice",),
    "instance norm": ("--model.norm", "instance"),
    "group norm": ("--model.norm", "group"),
    "no deep supervision": ("--model.deep_supervision", "0"),
    "augmentation": (
        *(
            "--augmentation.rotation_degrees",
            "10",
            "5",
            "5",
            "--augmentation.scale",
            "0.85",
            "1.15",
        ),
        *("--augmentation.brightness_hu", "30", "--augmentation.noise_hu", "20"),
    ),
    "any place is drawn": ("--patches.foreground_fraction", "0"),
    "organs alone are drawn": ("--patches.foreground_fraction", "1"),
    "constant learning rate": ("--training.schedule", "constant"),
    "poly": ("--training.schedule", "poly"),
    "learning rate 1e-3": ("--training.learning_rate", "1e-3"),
    "learning rate 1e-2": ("--training.learning_rate", "1e-2"),
    "no warm-up": ("--training.warmup_steps", "0"),
    "SGD as nnU-Net's": (
        *("--training.optimizer", "sgd", "--training.learning_rate", "0.01"),
        *("--training.schedule", "poly", "--training.clip_norm", "12"),
    ),
    "EMA of the weights": ("--training.ema_decay", "0.99"),
    "clipping": ("--training.clip_norm", "1"),
    "bfloat16": ("--training.precision", "mixed_bfloat16"),
}


def run_once(data: Path, output: Path, *, recipe: str, seed: int) -> Row:
    """Trains, predicts and evaluates unless that is done; gives the scores."""
    flags = RECIPES[recipe]
    name = "fcnseg_patches" if not flags else f"recipe_{recipe.replace(' ', '_')}"
    task = Task(
        contender="fcnseg",
        data=data,
        shared=output,
        output=output / f"{name}_{STEPS}_{seed}",
        seed=seed,
        steps=STEPS,
        options={"set": list(flags)},
    )
    train_once(task, learning_fcnseg.train_and_predict)
    return {"recipe": recipe, "seed": seed, **evaluate(task, STEPS)}


def summary_of(rows: Sequence[Row]) -> dict[str, Any]:
    """Gives the median, lowest and highest seed of each recipe."""
    return {
        recipe: {
            key: [min(values), round(statistics.median(values), 4), max(values)]
            for key in ("mean_dice", "worst_organ")
            for values in [[row[key] for row in rows if row["recipe"] == recipe]]
        }
        for recipe in dict.fromkeys(row["recipe"] for row in rows)
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, required=True, help="folder for everything")
    parser.add_argument("--seeds", type=int, default=3, help="seeds 0 to this one less")
    parser.add_argument("--jobs", type=int, default=1, help="trainings side by side")
    parser.add_argument("--recipes", nargs="+", default=list(RECIPES), choices=RECIPES)
    arguments = parser.parse_args()
    output = arguments.output.resolve()
    data = make_data(output, Wanted(variety=2.0, train=30, validation=5, test=10))
    runs = [
        functools.partial(run_once, data, output, recipe=recipe, seed=seed)
        for seed in range(arguments.seeds)
        for recipe in arguments.recipes
    ]
    rows = []
    for row in side_by_side(runs, arguments.jobs):
        rows.append(row)
        print(json.dumps(row), flush=True)
    print(json.dumps(summary_of(rows)))


if __name__ == "__main__":
    main()
