"""Which part may import which: the arrows of the design point one way."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from small_cases import write_cases

ROOT = Path(__file__).parent.parent
TENSORFLOW = {"tensorflow", "keras"}
JOBS = {"pipelines", "tuning", "serving"}

# Folder or module -> what it must never import at any depth of its own code.
FORBIDDEN = {
    "fcnseg/volumes": TENSORFLOW | {"apache_beam", "keras_tuner"},
    "fcnseg/conversion": TENSORFLOW | {"apache_beam", "keras_tuner"},
    "fcnseg/storage": TENSORFLOW | {"apache_beam", "keras_tuner"},
    "fcnseg/evaluation": TENSORFLOW | {"apache_beam", "keras_tuner"},
    "fcnseg/client/client.py": TENSORFLOW | {"apache_beam", "keras_tuner"},
    "fcnseg/cli/evaluate.py": TENSORFLOW | {"apache_beam", "keras_tuner"},
    "fcnseg/testing/phantom": TENSORFLOW | {"apache_beam", "keras_tuner"},
    "fcnseg/records/encoding.py": TENSORFLOW,
    "fcnseg/networks/__init__.py": TENSORFLOW | {"apache_beam", "keras_tuner"},
    "fcnseg/networks/topology.py": TENSORFLOW | {"apache_beam", "keras_tuner"},
    "fcnseg/networks/cost.py": TENSORFLOW | {"apache_beam", "keras_tuner"},
    "fcnseg/planning": TENSORFLOW | {"apache_beam", "keras_tuner"},
    "fcnseg/cli/plan.py": TENSORFLOW | {"apache_beam", "keras_tuner"},
    "fcnseg/config/sections.py": TENSORFLOW,
    "fcnseg/config/presets.py": TENSORFLOW,
    "fcnseg": JOBS | {"keras_tuner"},
    "fcnseg/sampling": {"apache_beam"},
    "fcnseg/networks": {"apache_beam"},
    "fcnseg/records": {"apache_beam", "keras_tuner"},
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


def test_storage_knows_errors_alone():
    for path in sources("fcnseg/storage"):
        tree = ast.parse(path.read_text())
        ours = {
            node.module
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("fcnseg")
        }
        own = {module for module in ours if module.startswith("fcnseg.storage")}
        assert ours - own <= {"fcnseg.errors"}, path


LIGHT = [
    "fcnseg",
    "fcnseg.networks",
    "fcnseg.volumes",
    "fcnseg.conversion",
    "fcnseg.conversion.gate",
    "fcnseg.conversion.labels",
    "fcnseg.conversion.case_lists",
    "fcnseg.conversion.preprocessing",
    "fcnseg.storage.whole_file",
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
loaded = sorted({{'tensorflow', 'keras', 'matplotlib', 'apache_beam'}} & sys.modules.keys())
assert not loaded, loaded
"""
    subprocess.run([sys.executable, "-c", script], check=True, cwd=ROOT)


def test_prediction_leaves_beam_out():
    script = "import sys, fcnseg.cli.predict; sys.exit('apache_beam' in sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True, cwd=ROOT)


_CONVERT = """
import sys
for name in ("apache_beam", "tensorflow", "keras"):
    sys.modules[name] = None
import fcnseg.conversion
from fcnseg.conversion.case_lists import read_cases_csv
from fcnseg.conversion.preprocessing import Preprocessing
from fcnseg.records import encode_record
from fcnseg.volumes import LabelMap

folder, output = sys.argv[1:]
preprocessing = Preprocessing(LabelMap.read(f"{folder}/label_map.yaml"), (3.0, 3.0, 3.0))
case = read_cases_csv(f"{folder}/cases.csv").cases[0]
with open(output, "wb") as file:
    file.write(encode_record(preprocessing.convert(case).record))
"""


def test_case_is_converted_where_beam_is_not_installed(tmp_path):
    write_cases(tmp_path / "in", 1)
    argv = [sys.executable, "-c", _CONVERT, tmp_path / "in", tmp_path / "record"]
    subprocess.run(argv, check=True, cwd=ROOT)
    assert b"case_00" in (tmp_path / "record").read_bytes()
