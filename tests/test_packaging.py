"""What the wheel and the sdist hold."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
JOBS = ("pipelines", "tuning", "serving")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The distributions, built from a copy of what git tracks."""
    checkout = tmp_path_factory.mktemp("checkout")
    listing = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True
    )
    for name in listing.stdout.splitlines():
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, checkout / name)
    subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", str(checkout)],
        check=True,
        capture_output=True,
    )
    return checkout / "dist"


def test_wheel_holds_one_package(built):
    """The jobs are in it, and their general names are not at the top."""
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    top = {name.split("/")[0] for name in names}
    assert top == {"fcnseg", next(name for name in top if name.endswith(".dist-info"))}
    assert {"fcnseg/py.typed", "fcnseg/volumes/formats/nifti.py"} <= set(names)
    templates = (ROOT / "fcnseg/figures/templates").iterdir()
    package = (ROOT / "fcnseg").rglob("*.py")
    assert {str(path.relative_to(ROOT)) for path in (*templates, *package)} <= set(names)
    page = [path for path in (ROOT / "serving/page").rglob("*") if path.is_file()]
    assert {f"fcnseg/jobs/{path.relative_to(ROOT)}" for path in page} <= set(names)
    jobs = [path for job in JOBS for path in (ROOT / job).rglob("*.py")]
    jobs += (ROOT / "tuning/spaces").iterdir()
    assert {f"fcnseg/jobs/{path.relative_to(ROOT)}" for path in jobs} <= set(names)


SMALL = """
model: {filters: [4, 8], deep_supervision: 0}
patches: {size: [16, 16, 16], batch_size: 2, shuffle_buffer: 4}
training: {epochs: 1, steps_per_epoch: 2, validate_every: 1}
inference: {overlap: [4, 4, 4]}
"""
WALK = (
    "phantom --cases 3 --output scans",
    "convert --cases scans/cases.csv --label_map scans/label_map.yaml --output records"
    " --spacing_mm 8 8 8 --validation_fraction 0.3 --split_seed 2",
    "inspect records --output dataset.html",
    "train --config small.yaml --data records --run_dir run",
    "export --run_dir run --model_dir model",
)


def test_the_wheel_walks_from_scans_to_a_model_outside_a_checkout(built, tmp_path):
    (wheel,) = built.glob("*.whl")
    site, work = tmp_path / "site", tmp_path / "work"
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", site, wheel],
        check=True,
    )
    work.mkdir()
    (work / "small.yaml").write_text(SMALL)
    environment = {**os.environ, "PYTHONPATH": str(site)}

    def python(*arguments):
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=work,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    where = python("-c", "import fcnseg.jobs.serving as jobs; print(jobs.__file__)")
    assert where.startswith(str(site))
    for line in WALK:
        python("-m", "fcnseg", *line.split())
    assert (work / "model" / "1" / "saved_model.pb").exists()


def test_sdist_carries_the_jobs(built):
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.split("/", 1)[-1] for name in archive.getnames()}
    pages = {"fcnseg/figures/templates/page.html", "examples/demo.html"}
    jobs = {"pipelines/convert_ct.py", "tuning/search.py", "serving/server.py", "serving/export.py"}
    assert jobs | pages | {"setup.py", "setup.cfg", "LICENSE", "tests/test_packaging.py"} <= names
