"""Each example runs, in the order in which they build on one another."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
EXAMPLES = sorted(path.stem for path in (ROOT / "examples").glob("[0-9]*.py"))
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the examples put their `build/`."""
    return tmp_path_factory.mktemp("examples")


@pytest.mark.parametrize("name", EXAMPLES)
def test_example_runs(folder, name):
    done = subprocess.run(
        [sys.executable, "-m", f"examples.{name}"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_pictures_and_masks_are_there(folder):
    work = folder / "build/examples"
    assert (work / "overlay.png").stat().st_size > 10_000
    assert len(list((work / "masks").glob("*.nii.gz"))) == 4
    assert (work / "served_mask.nii.gz").exists()
