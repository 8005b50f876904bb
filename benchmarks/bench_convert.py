"""Benchmarks CPU time, memory and scaling of the conversion, against other tools.

Synthetic cases of 439 x 364 x 168 voxels with their labels, resampled to 2 mm by: fcnseg (read,
check, reorient, resample, write a record), nnU-Net's preprocessing (`run_case_save`), MONAI's
`LoadImaged, Orientationd, Spacingd`, and, as a lower bound, nibabel loading both files and nothing
more. Thin slices and thick ones, which nnU-Net resamples in another, faster way. Each runs in a
process of its own; the rounds alternate, so that a busy machine affects all equally. Then the peak
of memory for large cases and for many, and the time of the complete job with one worker and two.
Needs Linux, for /proc. Prints one JSON line.

    python benchmarks/bench_convert.py --peers_python path/to/venv/bin/python
"""

from __future__ import annotations

import argparse
import csv
import gc
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml
from converters import CONTENDERS, ORGANS, PACKAGES, Triple
from made_cases import make_case
from processes import has_module, memory_mib

SHAPE, SPACINGS = (168, 364, 439), {"thin": (1.5, 0.9, 0.9), "thick": (2.5, 0.8, 0.8)}  # (z, y, x)
LARGE_SHAPE, LARGE_SPACING = (1000, 512, 512), (1.0, 0.8, 0.8)
SMALL_SHAPE, SMALL_SPACING = (20, 60, 60), (5.0, 5.0, 5.0)  # for imports and first calls
TARGET = (2.0, 2.0, 2.0)
ROOT = Path(__file__).parent.parent
MIB = 2**20
Files = tuple[str, str]  # image and label of a case, or list of cases and label map


def work(task: dict[str, Any]) -> dict[str, float]:
    """Runs one measurement in this process, after a small case for imports and first calls."""
    run: Any = convert_by_job if task["name"] == "job" else CONTENDERS[task["name"]]
    with tempfile.TemporaryDirectory(prefix="small") as folder:
        run(Path(folder), *task["small"], TARGET)
    with tempfile.TemporaryDirectory() as folder:
        gc.collect()
        idle, cpu, wall = memory_mib("VmRSS"), time.process_time(), time.perf_counter()
        run(Path(folder), *task["files"], tuple(task["spacing"]))
        return {
            "cpu_s": time.process_time() - cpu,
            "wall_s": time.perf_counter() - wall,
            "peak_mib": memory_mib("VmHWM") - idle,
        }


def convert_by_job(folder: Path, cases: str, label_map: str, spacing: Triple) -> None:
    """Runs the Beam job in this process."""
    from pipelines.convert_ct import ConvertCt

    ConvertCt(cases=cases, label_map=label_map, output=str(folder), spacing_mm=spacing).run()


def measure(python: str, **task: Any) -> dict[str, float]:
    """Runs one measurement in a new process, with one thread for each library."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [python, "-W", "ignore", __file__, "--work", json.dumps(task)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def compare(pythons: dict[str, str], rounds: int, files: Files, small: Files) -> dict[str, Any]:
    """Computes CPU seconds and peak memory of each contender, and fcnseg's share of them."""
    found = [
        {
            name: measure(python, name=name, files=files, small=small, spacing=TARGET)
            for name, python in pythons.items()
        }
        for _ in range(rounds)
    ]
    result: dict[str, Any] = {}
    for name in pythons:
        result[name] = {
            key: round(statistics.median(each[name][key] for each in found), 3)
            for key in ("cpu_s", "peak_mib")
        }
        if name != "fcnseg":
            ratio = statistics.median(
                each["fcnseg"]["cpu_s"] / each[name]["cpu_s"] for each in found
            )
            result[name]["fcnseg_part_of_cpu"] = round(ratio, 4)
    return result


def peaks(cases: dict[str, Any], small: Files) -> dict[str, float]:
    """Measures peak memory above the idle process, relative to the source's bytes as int16."""
    result = {}
    for name, (files, shape, spacing) in cases.items():
        size = math.prod(shape) * 2 / MIB
        for target, wanted in (("2mm", TARGET), ("as_it_is", spacing)):
            found = measure(sys.executable, name="fcnseg", files=files, small=small, spacing=wanted)
            result[f"{name}_{target}"] = round(found["peak_mib"] / size, 2)
    return result


def write_cases(folder: Path, count: int, files: Files) -> Files:
    """Writes the same case under many names: a list for the job, and its label map."""
    folder.mkdir()
    classes = {name: [index] for index, name in enumerate(("background", *ORGANS))}
    label_map, cases = folder / "label_map.yaml", folder / "cases.csv"
    label_map.write_text(yaml.safe_dump({"classes": classes}, sort_keys=False))
    with cases.open("w", newline="") as stream:
        rows = [(f"case_{index:03d}", *files) for index in range(count)]
        csv.writer(stream).writerows([("case_id", "image", "label"), *rows])
    return str(cases), str(label_map)


def wall_seconds(cases: str, label_map: str, output: Path, workers: int) -> float:
    """Measures the command as a user runs it, start and end included."""
    command = [sys.executable, "-m", "pipelines.convert_ct", f"--cases={cases}"]
    command += [f"--label_map={label_map}", f"--output={output}", "--spacing_mm"]
    command += [*map(str, TARGET), f"--direct_num_workers={workers}"]
    started = time.perf_counter()
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def many(folder: Path, job_cases: int, files: Files, small: Files) -> dict[str, Any]:
    """Measures the job for few cases, for more, and with one worker and two."""
    small_list = write_cases(folder / "small", 1, small)
    result: dict[str, Any] = {}
    for count in (4, 16):
        cases = write_cases(folder / f"list_{count}", count, files)
        found = measure(sys.executable, name="job", files=cases, small=small_list, spacing=TARGET)
        result[f"peak_mib_of_{count}_cases"] = round(found["peak_mib"], 1)
    cases = write_cases(folder / "list", job_cases, files)
    walls = [wall_seconds(*cases, folder / f"out_{workers}", workers) for workers in (1, 2)]
    result |= {"cases": job_cases, "wall_s_1_worker": walls[0], "wall_s_2_workers": walls[1]}
    result["part_of_wall_with_2_workers"] = round(walls[1] / walls[0], 3)
    return result


def available(peers_python: str) -> tuple[dict[str, str], list[str]]:
    """Finds the Python of each contender, and missing packages."""
    pythons = dict.fromkeys(CONTENDERS, sys.executable)
    pythons |= {"nnunet": peers_python, "monai": peers_python}
    missing = []
    for name, python in pythons.items():
        if not has_module(python, PACKAGES[name]):
            print(f"{name} is left out: no {PACKAGES[name]} in {python}", file=sys.stderr)
            missing.append(name)
    return {name: python for name, python in pythons.items() if name not in missing}, missing


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peers_python", default=sys.executable, help="that has nnunetv2, monai")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--job_cases", type=int, default=480, help="of the job, 1 worker and 2")
    parser.add_argument("--quick", action="store_true", help="one round, no job, no large case")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        print(json.dumps(work(json.loads(arguments.work))))
        return
    pythons, missing = available(arguments.peers_python)
    result: dict[str, Any] = {"shape": SHAPE, "cores": os.cpu_count(), "missing": missing}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        small = make_case(folder, "small", SMALL_SHAPE, SMALL_SPACING)
        cases = {
            name: (make_case(folder, name, SHAPE, spacing), SHAPE, spacing)
            for name, spacing in SPACINGS.items()
        }
        for name, (files, _, _) in cases.items():
            rounds = 1 if arguments.quick else arguments.rounds
            result[name] = compare(pythons, rounds, files, small)
        if not arguments.quick:
            result["job"] = many(folder, arguments.job_cases, cases["thin"][0], small)
            large = make_case(folder, "large", LARGE_SHAPE, LARGE_SPACING)
            cases["large"] = (large, LARGE_SHAPE, LARGE_SPACING)
        result["peak_over_int16_bytes"] = peaks(cases, small)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
