"""The benchmark on GPUs, at a size that a CPU can do too."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SCRIPT = ROOT / "benchmarks" / "bench_gpu.py"


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_every_check_runs(tmp_path):
    output = tmp_path / "lines.jsonl"
    done = subprocess.run(
        [sys.executable, SCRIPT, "--smoke", "--output", output],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    lines = [json.loads(line) for line in output.read_text().splitlines()]
    assert done.returncode == 0, [line for line in lines if "error" in line] + [done.stderr]
    assert done.stdout == output.read_text()
    found = {line["check"] for line in lines}
    assert {"device", "step", "data", "joint", "window", "resume", "export", "masks"} <= found
    steps = [line for line in lines if line["check"] == "step"]
    assert {line["preset"] for line in steps} == {"demo", "roth2018", "fcn_m"}
    ratios = [line for line in lines if line["check"] == "augmentation_ratio"]
    assert [(each["preset"], each["ratio"] > 0) for each in ratios] == [("fcn_m", True)]
    ratios = [line for line in lines if line["check"] == "data_ratio"]
    assert {line["augmentation"] for line in ratios} == {"none", "roth2018", "fcn_m"}
    assert all(line["ratio"] > 0 for line in ratios)
    assert {line["augmentation_on"] for line in steps} == {"host", "device"}
    assert all(line["finite"] and line["patches_s"] > 0 for line in steps)
    assert all(line["same_bits"] for line in lines if line.get("deterministic"))
    assert all(line["within_tolerance"] for line in lines if line["check"] == "resume")
    (masks,) = (line for line in lines if line["check"] == "masks")
    assert masks["equal_voxels"] > 0.9999


WITHOUT_SERVING = "import sys\nsys.modules['tensorflow_serving'] = None\n"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_machine_without_the_serving_api_skips_the_export(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(WITHOUT_SERVING)
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, SCRIPT, "--smoke", "--only", "export"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert done.returncode == 0, done.stderr
    last = json.loads(done.stdout.splitlines()[-1])
    assert last == {"check": "export", "skipped": "tensorflow-serving-api is not installed"}
