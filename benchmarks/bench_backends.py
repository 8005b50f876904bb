"""Compares the masks of one network in each precision and backend: Dice per organ, equal voxels.

Of a run, or of the preset `demo` trained on phantoms as in `make demo`, the cases of a split are
predicted by `fcnseg predict` in float32 and bfloat16 by TensorFlow and OpenVINO, and in int8 by
OpenVINO, and scored by `fcnseg evaluate`. Prints a table in Markdown and one JSON line: the Dice of
each organ, their mean, and the percentage of voxels that are those of float32 by TensorFlow.

    python benchmarks/bench_backends.py --output build/backends
    python benchmarks/bench_backends.py --output build/mine --run_dir run --data records

Speed and rounding of bfloat16 and int8 are those of the CPU that runs it.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from bench_seeds import call, make_records

REFERENCE = "float32"
CONTENDERS: dict[str, tuple[str, ...]] = {
    REFERENCE: ("--precision", "float32"),
    "bfloat16": ("--precision", "bfloat16"),
    "float32 by OpenVINO": ("--backend", "openvino", "--precision", "float32"),
    "bfloat16 by OpenVINO": ("--backend", "openvino", "--precision", "bfloat16"),
    "int8 by OpenVINO": ("--backend", "openvino"),
}


def make_run(folder: Path) -> tuple[Path, Path]:
    """Trains the preset on phantoms, once per folder; gives the run and the records."""
    _, records = make_records(folder)
    run_dir = folder / "run"
    call(
        *("fcnseg", "train", "--config", "demo", "--data", records, "--run_dir", run_dir),
        "--resume",
    )
    return run_dir, records


def export_int8(run_dir: Path, records: Path, folder: Path) -> Path:
    """Publishes the run in int8, whatever Dice that loses, once per folder."""
    version = folder / "int8" / "1"
    if not version.exists():
        call(
            *("fcnseg", "export", "--run_dir", run_dir, "--model_dir", version.parent),
            *("--backend", "openvino", "--precision", "int8", "--data", records),
            *("--max_dice_loss", 1),
        )
    return version


def score(run_dir: Path, records: Path, folder: Path, *, split: str, flags: Any) -> dict[str, Any]:
    """Predicts and evaluates; gives the Dice of each organ, and of their mean."""
    cases = ("--data", records, "--split", split)
    masks = ("--output", folder / "masks", "--overwrite")
    call("fcnseg", "predict", "--run_dir", run_dir, *cases, *masks, *flags)
    report = ("--masks", folder / "masks", "--output", folder / "evaluation", "--overwrite")
    call("fcnseg", "evaluate", *cases, *report)
    found = json.loads((folder / "evaluation" / "evaluation.json").read_text())
    dice = {organ: scores["dice"] for organ, scores in found["classes"].items()}
    return {**dice, "mean": found["mean_dice"]}


def read(mask: Path) -> Any:
    """Reads class ids (x, y, z)."""
    return np.asarray(nib.Nifti1Image.from_filename(mask).dataobj)


def equal_percent(masks: Path, others: Path) -> float:
    """Gives the percentage of voxels of all masks in two folders that are equal."""
    equal = [read(path) == read(others / path.name) for path in sorted(masks.glob("*.nii.gz"))]
    return 100 * sum(map(np.sum, equal)) / sum(map(np.size, equal))


def table(results: dict[str, dict[str, float | None]]) -> str:
    """Formats the results, a column each, in Markdown."""
    first = next(iter(results.values()))
    rows = [["", *results], ["---"] * (len(results) + 1)]
    for name in first:
        digits = 4 if name == "equal_percent" else 3
        values = (each[name] for each in results.values())
        rows.append([name, *("none" if one is None else f"{one:.{digits}f}" for one in values)])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, required=True, help="folder for everything")
    parser.add_argument("--run_dir", type=Path, help="a run; by default one is trained")
    parser.add_argument("--data", type=Path, help="its records, with --run_dir")
    parser.add_argument("--split", default="test", help="cases to compare")
    arguments = parser.parse_args()
    if (arguments.run_dir is None) != (arguments.data is None):
        parser.error("--run_dir and --data go together")
    folder = arguments.output
    folder.mkdir(parents=True, exist_ok=True)
    run_dir, records = arguments.run_dir, arguments.data
    if run_dir is None:
        run_dir, records = make_run(folder)
    results: dict[str, dict[str, float | None]] = {}
    for name, flags in CONTENDERS.items():
        place = folder / name.replace(" ", "_")
        network = export_int8(run_dir, records, folder) if "int8" in name else run_dir
        found = score(network, records, place, split=arguments.split, flags=flags)
        reference = folder / REFERENCE / "masks"
        results[name] = {**found, "equal_percent": equal_percent(reference, place / "masks")}
    print(table(results))
    print(json.dumps({"split": arguments.split, "results": results}))


if __name__ == "__main__":
    main()
