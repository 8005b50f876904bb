"""Compares training with and without augmentation by Dice on patients in unseen poses.

Augmentation pays if with it a network knows patients in poses that no training case has. Four
phantoms to train on lie straight, as they are made; four others, to validate on, are turned,
shifted, larger or smaller. Trains twice for each seed, with augmentation and without, each in a
process of its own. Prints one JSON line per run and a summary; ends with status 1 unless with
augmentation every seed reaches the Dice without it, and 0.6.

    python benchmarks/bench_unseen_poses.py --seeds 5 --output build/unseen_poses

`--jobs` runs are concurrent, each on cores of its own. A run that exists in the output folder is
not repeated.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from bench_seeds import call
from processes import side_by_side

from fcnseg.config import (
    AugmentationConfig,
    Config,
    InferenceConfig,
    LossConfig,
    ModelConfig,
    PatchConfig,
    TrainingConfig,
    write_config,
)
from fcnseg.runs import Run
from fcnseg.testing.phantom import LABEL_MAP, Pose, make_phantom
from fcnseg.volumes import write_volume

SPACING_MM = (8.0, 8.0, 8.0)  # coarse, so that a training takes a minute or two
SHAPE = (33, 41, 52)  # holds the patients of these poses
ORGANS = ("artery", "vein", "liver", "spleen", "stomach")  # the others are a few voxels so coarse
# A phantom lies within 5 degrees of straight and 8 mm of the middle; each of these is turned and
# shifted by more about and along every axis.
UNSEEN = (
    Pose((17.0, -19.0, 16.0), 1.15, (20.0, -25.0, 20.0)),
    Pose((-18.0, 16.0, 19.0), 0.87, (-25.0, 20.0, 20.0)),
    Pose((19.0, 17.0, -18.0), 0.87, (20.0, 20.0, -25.0)),
    Pose((-16.0, -18.0, -17.0), 1.15, (-20.0, -20.0, -20.0)),
)
TRAINING_CASES = 4
LEAST_DICE = 0.6

# Without, and that of Roth et al. 2018 with scale. Their voxels are about 0.8 mm long, so the
# paper's numbers of voxels are divided by ten.
AUGMENTATIONS = {
    "without": AugmentationConfig(),
    "with": AugmentationConfig(
        rotation_degrees=(20, 20, 20),
        translation_voxels=(2, 2, 2),
        deformation_voxels=(0.4, 0.4, 0.4),
        control_spacing_voxels=(2.4, 2.4, 2.4),
        scale=(0.85, 1.15),
    ),
}
CONFIG = Config(
    model=ModelConfig(filters=(8, 16, 32, 64), norm="instance"),
    patches=PatchConfig(size=(16, 24, 24), batch_size=4, shuffle_buffer=32),
    loss=LossConfig(name="dice_cross_entropy"),
    training=TrainingConfig(epochs=1, steps_per_epoch=600, learning_rate=1e-2),
    inference=InferenceConfig(overlap=(8, 12, 12)),
)


def make_records(folder: Path) -> Path:
    """Makes phantoms that lie straight and others in unseen poses, and their records, once."""
    scans, records = folder / "scans", folder / "records"
    if (records / "COMPLETED").exists():
        return records
    scans.mkdir(parents=True, exist_ok=True)
    poses = {f"train_{number}": Pose() for number in range(TRAINING_CASES)}
    poses |= {f"validation_{number}": pose for number, pose in enumerate(UNSEEN)}
    rows = ["case_id,image,label,split"]
    for seed, (case_id, pose) in enumerate(poses.items()):
        volumes = make_phantom(seed, spacing=SPACING_MM, shape=SHAPE, pose=pose)
        names = [f"{case_id}_{kind}.nii.gz" for kind in ("image", "label")]
        for volume, name in zip(volumes, names, strict=True):
            write_volume(volume, scans / name)
        rows.append(",".join([case_id, *names, case_id.split("_")[0]]))
    (scans / "cases.csv").write_text("\n".join(rows))
    classes = {name: list(LABEL_MAP.classes[name]) for name in ("background", *ORGANS)}
    label_map = {"classes": classes, "unlisted": "background"}
    (scans / "label_map.yaml").write_text(yaml.safe_dump(label_map, sort_keys=False))
    call(
        *("pipelines.convert_ct", "--cases", scans / "cases.csv", "--output", records),
        *("--label_map", scans / "label_map.yaml", "--spacing_mm", *SPACING_MM),
    )
    return records


def run_once(
    arguments: argparse.Namespace, records: Path, *, seed: int, augmentation: str
) -> dict[str, Any]:
    """Trains once; gives the Dice of the unseen poses."""
    folder = arguments.output / f"{augmentation}_{seed}"
    result = folder / "result.json"
    if result.exists():
        return json.loads(result.read_text())
    folder.mkdir(exist_ok=True)
    config = dataclasses.replace(CONFIG, augmentation=AUGMENTATIONS[augmentation])
    write_config(config, folder / "config.yaml")
    started = time.perf_counter()
    call(
        *("fcnseg", "train", "--config", folder / "config.yaml", "--data", records),
        *("--run_dir", folder / "run", "--resume", "--training.seed", seed),
        *arguments.set,
    )
    row = {
        "augmentation": augmentation,
        "seed": seed,
        "dice": round(Run.open(folder / "run").manifest.best_dice, 3),
        "training_s": round(time.perf_counter() - started),
    }
    result.write_text(json.dumps(row))
    return row


def summary_of(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Summarises worst, median and best Dice, and counts the seeds in which augmentation paid."""
    dice = {
        name: {row["seed"]: row["dice"] for row in rows if row["augmentation"] == name}
        for name in AUGMENTATIONS
    }
    paid = [
        dice["with"][seed] >= max(without, LEAST_DICE) for seed, without in dice["without"].items()
    ]
    spread = {
        name: [
            min(found.values()),
            round(statistics.median(found.values()), 3),
            max(found.values()),
        ]
        for name, found in dice.items()
    }
    return {"seeds": len(paid), "augmentation_paid": sum(paid), **spread}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True, help="folder for everything")
    parser.add_argument("--seeds", type=int, default=5, help="seeds 0 to this one less")
    parser.add_argument("--jobs", type=int, default=1, help="runs side by side")
    parser.add_argument("--set", nargs=argparse.REMAINDER, default=[], help="flags of training")
    arguments = parser.parse_args()
    records = make_records(arguments.output)
    runs = [
        functools.partial(run_once, arguments, records, seed=seed, augmentation=augmentation)
        for seed in range(arguments.seeds)
        for augmentation in AUGMENTATIONS
    ]
    rows = []
    for row in side_by_side(runs, arguments.jobs):
        rows.append(row)
        print(json.dumps(row), flush=True)
    summary = summary_of(rows)
    print(json.dumps(summary))
    sys.exit(summary["augmentation_paid"] < summary["seeds"])


if __name__ == "__main__":
    main()
