"""Which part may import which: the arrows of the design point one way."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TENSORFLOW = {"tensorflow", "keras"}
JOBS = {"pipelines", "tuning", "serving"}

# Folder or module -> what it must never import at any depth of its own code.
FORBIDDEN = {
    "fcnseg/volumes": TENSORFLOW | {"apache_beam", "keras_tuner"},
    "fcnseg/conversion": TENSORFLOW | {"keras_tuner"},
    "fcnseg/evaluation": TENSORFLOW | {"apache_beam", "keras_tuner"},
    "fcnseg/figures": TENSORFLOW | {"apache_beam", "keras_tuner"},
    "fcnseg/client/client.py": TENSORFLOW | {"apache_beam", "keras_tuner"},
    "fcnseg/cli/evaluate.py": TENSORFLOW | {"apache_beam", "keras_tuner"},
    "fcnseg/testing/phantom": TENSORFLOW | {"apache_beam", "keras_tuner"},
    "fcnseg/records/encoding.py": TENSORFLOW,
    "fcnseg/networks": TENSORFLOW | {"apache_beam", "keras_tuner"},
    "fcnseg/planning": TENSORFLOW | {"apache_beam", "keras_tuner"},
    "fcnseg/cli/plan.py": TENSORFLOW | {"apache_beam", "keras_tuner"},
    "fcnseg/config/sections.py": TENSORFLOW,
    "fcnseg/config/presets.py": TENSORFLOW,
    "fcnseg": JOBS | {"keras_tuner"},
    "fcnseg/sampling": {"apache_beam"},
    "fcnseg/models": {"apache_beam"},
    "fcnseg/training": {"apache_beam"},
    "fcnseg/inference": {"apache_beam"},
    "pipelines": JOBS - {"pipelines"} | TENSORFLOW | {"keras_tuner"},
    "tuning": JOBS - {"tuning"} | {"apache_beam"},
    "serving": JOBS - {"serving"} | {"apache_beam", "keras_tuner"},
}


def sources(place: str) -> list[Path]:
    path = ROOT / place
    files = [path] if path.is_file() else sorted(path.rglob("*.py"))
    assert files, f"nothing at {place}: the table is out of date"
    return files


def imported(path: Path) -> set[str]:
    """Top-level names that a file imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            names.add((node.module or "").split(".")[0])
    return names


@pytest.mark.parametrize("place", FORBIDDEN)
def test_arrows_point_one_way(place):
    wrong = {
        f"{path.relative_to(ROOT)} imports {name}"
        for path in sources(place)
        for name in imported(path) & FORBIDDEN[place]
    }
    assert not wrong


def test_figures_know_no_room_but_volumes():
    rooms = set()
    for path in sources("fcnseg/figures"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("fcnseg."):
                rooms.add((node.module or "").split(".")[1])
    assert rooms == {"errors", "figures", "volumes"}


LIGHT = [
    "fcnseg",
    "fcnseg.networks",
    "fcnseg.volumes",
    "fcnseg.conversion",
    "fcnseg.conversion.gate",
    "fcnseg.conversion.labels",
    "fcnseg.records",
    "fcnseg.evaluation",
    "fcnseg.client",
    "fcnseg.cli.compare",
    "fcnseg.cli.evaluate",
    "serving.client",
    "fcnseg.testing.phantom",
    "fcnseg.config",
    "fcnseg.cli.summary",
    "fcnseg.cli.plan",
    "fcnseg.planning",
    "fcnseg.config",
]


def test_light_modules_leave_tensorflow_and_beam_out():
    """What a Beam worker or a client imports loads neither, directly or not."""
    script = f"""
import importlib, sys
for name in {LIGHT}:
    importlib.import_module(name)
heavy = {{'tensorflow', 'keras', 'matplotlib', 'jinja2', 'apache_beam'}}
loaded = sorted(heavy & sys.modules.keys())
assert not loaded, loaded
"""
    subprocess.run([sys.executable, "-c", script], check=True, cwd=ROOT)


def test_prediction_leaves_beam_out():
    script = "import sys, fcnseg predict; sys.exit('apache_beam' in sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True, cwd=ROOT)
