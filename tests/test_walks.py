"""A new user's walk for each layout: from raw files to a report on patients that nobody trained on.

Commands are as a user types them, in the folder with the data, by the console script.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from layouts import LAYOUTS

from fcnseg.conversion.case_lists import read_cases_csv
from fcnseg.records import read_dataset_info
from fcnseg.testing.phantom import ORGANS, make_phantom

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parent.parent
FCNSEG = Path(sys.executable).with_name("fcnseg")
MOST_COMMANDS = 8
CASES = [f"abdomen_{number:03d}" for number in range(1, 9)]

# A network of a few hundred weights: what it finds is of no interest here.
SMALL = """\
model: {filters: [4, 8], deep_supervision: 0}
patches: {size: [16, 16, 16], batch_size: 2, shuffle_buffer: 4}
training: {epochs: 1, steps_per_epoch: 2, validate_every: 1}
inference: {overlap: [4, 4, 4]}
"""
CONVERT = "fcnseg convert --output records --spacing_mm 8 8 8 --test_fraction 0.2"
TRAIN = "fcnseg train --config small.yaml --data records --run_dir run"
PREDICT = "fcnseg predict --run_dir run --data records --split test --output masks"
EVALUATE = "fcnseg evaluate --masks masks --data records --split test --output report"
WALK = (TRAIN, PREDICT, EVALUATE)
WALKS = {
    "nnU-Net v2": (
        f"{CONVERT} --dataset raw/dataset.json",
        "fcnseg inspect records",
        "fcnseg plan --config small.yaml --data records --memory_gib 1 --output plan.yaml",
        TRAIN.replace("small", "plan"),
        *(PREDICT, EVALUATE),
    ),
    "Decathlon": (f"{CONVERT} --dataset raw/dataset.json", *WALK),
    "TotalSegmentator": (
        f"{CONVERT} --totalsegmentator raw --classes liver spleen pancreas",
        *WALK,
    ),
    "DICOM + SEG": (
        f"{CONVERT} --images raw/images --labels raw/labels --label_map raw/label_map.yaml",
        *(TRAIN, f"{PREDICT} --dicom_seg", EVALUATE),
    ),
    "CSV": (f"{CONVERT} --cases raw/cases.csv --label_map raw/label_map.yaml", *WALK),
}


@pytest.fixture(scope="module")
def scans():
    """Phantoms in LPS, as DICOM has them."""
    return {
        case_id: make_phantom(seed, spacing=(10.0, 6.0, 6.0), orientation="LPS")
        for seed, case_id in enumerate(CASES)
    }


def run(line: str, folder: Path) -> str:
    """Runs a command; what it says on both streams."""
    name, *flags = shlex.split(line)
    assert name == "fcnseg"
    done = subprocess.run(
        [FCNSEG, *flags],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
    assert "Traceback" not in done.stderr
    return done.stdout + done.stderr


def test_each_layout_has_a_walk():
    assert WALKS.keys() == LAYOUTS.keys()
    assert max(map(len, WALKS.values())) <= MOST_COMMANDS


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("layout", WALKS)
def test_a_walk_ends_with_a_report_on_unseen_patients(scans, tmp_path, layout):
    LAYOUTS[layout](tmp_path / "raw", scans, ORGANS)
    (tmp_path / "small.yaml").write_text(SMALL)
    said = [run(line, tmp_path) for line in WALKS[layout]]

    info = read_dataset_info(tmp_path / "records")
    report = json.loads((tmp_path / "report/evaluation.json").read_text())
    assert tuple(report["cases"]) == info.splits["test"].case_ids
    assert report["selection"] == "test split"
    assert set(report["classes"]) == set(info.class_names[1:])
    listed = read_cases_csv(str(tmp_path / "records/case_files.csv")).cases
    patients = {case.case_id: case.patient_id for case in listed}
    trained = {
        patients[name] for split in ("train", "validation") for name in info.splits[split].case_ids
    }
    assert not trained & {patients[name] for name in report["cases"]}
    assert len(trained) > 3
    assert "cases, test split" in (tmp_path / "report/evaluation.html").read_text()
    for organ in info.class_names[1:]:
        assert organ in said[-1]
