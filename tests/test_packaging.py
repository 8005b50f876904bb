"""What the wheel and the sdist hold."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
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


def test_wheel_holds_the_library_alone(built):
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    top = {name.split("/")[0] for name in names}
    assert top == {"fcnseg", next(name for name in top if name.endswith(".dist-info"))}
    assert {"fcnseg/py.typed", "fcnseg/volumes/formats/nifti.py"} <= set(names)
    templates = (ROOT / "fcnseg/figures/templates").iterdir()
    assert {str(path.relative_to(ROOT)) for path in templates} <= set(names)


def test_sdist_carries_the_jobs(built):
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.split("/", 1)[-1] for name in archive.getnames()}
    pages = {"fcnseg/figures/templates/page.html", "examples/demo.html"}
    jobs = {"pipelines/convert_ct.py", "tuning/search.py", "serving/server.py", "serving/export.py"}
    assert jobs | pages | {"setup.py", "setup.cfg", "LICENSE", "tests/test_packaging.py"} <= names
