"""Which room may import which: the arrows of the design point one way."""

from __future__ import annotations

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest
from small_cases import write_cases

import fcnseg

ROOT = Path(__file__).parent.parent

# Each room of fcnseg, and the rooms that it imports; each stands below those that it imports.
# `errors`, `codes` and `extras` are the ground floor, which all rooms import.
ROOMS = {
    "storage": set(),
    "volumes": {"storage"},
    "records": {"storage"},
    "conversion": {"records", "storage", "volumes"},
    "beam": {"conversion", "records", "storage"},
    "config": {"storage"},
    "figures": {"volumes"},
    "losses": {"config"},
    "networks": {"config", "losses", "volumes"},
    "sampling": {"config", "records", "volumes"},
    "planning": {"config", "networks", "records", "volumes"},
    "runs": {"config", "storage"},
    "evaluation": {"conversion", "figures", "storage", "volumes"},
    "masks": {"conversion", "evaluation", "figures", "runs", "storage", "volumes"},
    "inference": {
        *("conversion", "losses", "masks", "networks", "runs", "storage", "volumes"),
    },
    "training": {
        *("config", "evaluation", "figures", "inference", "losses", "networks", "records", "runs"),
        *("sampling", "storage", "volumes"),
    },
    "client": {"conversion", "runs", "volumes"},
    "saved_model": {
        *("conversion", "evaluation", "figures", "inference", "masks", "networks", "records"),
        *("runs", "sampling", "storage", "training", "volumes"),
    },
    "testing": {"records", "storage", "volumes"},
    "jobs": set(),
    "cli": {
        *("config", "conversion", "evaluation", "figures", "inference", "masks", "networks"),
        *("planning", "records", "runs", "sampling", "storage", "testing", "training", "volumes"),
    },
}
GROUND = {"errors", "codes", "extras"}

JOBS = {"pipelines", "tuning", "serving"}
WITH_TENSORFLOW = {
    *("fcnseg/losses", "fcnseg/networks", "fcnseg/sampling", "fcnseg/records/decoding.py"),
    *("fcnseg/inference", "fcnseg/training", "fcnseg/saved_model", "fcnseg/cli/bench.py"),
    *("tuning", "serving"),
}
# Each package, and the folders whose files alone may import it, at any depth of their code.
ONLY_IN = {
    "apache_beam": {"fcnseg/beam", "pipelines"},
    "keras_tuner": {"tuning"},
    "tensorflow": WITH_TENSORFLOW,
    "keras": WITH_TENSORFLOW,
}
# What a Beam worker or a client imports loads neither TensorFlow nor Beam nor matplotlib.
LIGHT = [
    *("fcnseg", "fcnseg.client", "fcnseg.codes", "fcnseg.config", "fcnseg.conversion"),
    *(
        "fcnseg.conversion.gate",
        "fcnseg.conversion.labels",
        "fcnseg.conversion.case_lists",
        "fcnseg.conversion.preprocessing",
    ),
    *("fcnseg.evaluation", "fcnseg.figures", "fcnseg.networks", "fcnseg.planning"),
    *("fcnseg.records", "fcnseg.runs.run_folder", "fcnseg.testing.phantom", "fcnseg.volumes"),
    *("fcnseg.cli.compare", "fcnseg.cli.evaluate", "fcnseg.cli.main", "fcnseg.cli.phantom"),
    *("fcnseg.cli.plan", "fcnseg.cli.predict", "fcnseg.cli.summary", "serving.client"),
]


def sources(place: str) -> list[Path]:
    return sorted((ROOT / place).rglob("*.py"))


def imported(path: Path) -> set[str]:
    """Dotted names that a file imports, anywhere in it, as far as they may be modules."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            job = path.relative_to(ROOT).parts[0] in JOBS  # under two names: its own, and in fcnseg
            depth = len(path.relative_to(ROOT).parts) - 1
            assert node.level == 0 or (job and node.level <= depth), f"{path}: {node.module}"
            if node.level == 0:
                names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def rooms_imported(room: str) -> set[str]:
    """The other rooms that the files of a room import."""
    names = {name for path in sources(f"fcnseg/{room}") for name in imported(path)}
    parts = [name.split(".") for name in names if name.startswith("fcnseg.")]
    return {part[1] for part in parts if part[1] in ROOMS} - {room}


def test_each_folder_is_a_room_of_the_table():
    assert {path.parent.name for path in (ROOT / "fcnseg").glob("*/__init__.py")} == set(ROOMS)


def test_the_ground_floor_holds_nothing_else():
    modules = {path.stem for path in (ROOT / "fcnseg").glob("*.py")}
    assert modules == GROUND | {"__init__", "__main__"}
    for name in GROUND:
        assert {
            name.split(".")[1]
            for name in imported(ROOT / f"fcnseg/{name}.py")
            if name.startswith("fcnseg.")
        } <= GROUND


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_the_rooms_of_its_row(room):
    assert rooms_imported(room) == ROOMS[room]


def test_no_arrows_make_a_circle():
    list(graphlib.TopologicalSorter(ROOMS).static_order())  # raises CycleError


@pytest.mark.parametrize("package", ONLY_IN)
def test_a_package_is_imported_where_it_belongs(package):
    files = [path for place in ("fcnseg", *JOBS) for path in sources(place)]
    importing = {
        str(path.relative_to(ROOT))
        for path in files
        if any(name.split(".")[0] == package for name in imported(path))
    }
    assert importing, f"nothing imports {package}: the table is out of date"
    allowed = tuple(ONLY_IN[package])
    assert not {name for name in importing if not name.startswith(allowed)}


def test_one_module_asks_for_the_version_of_keras():
    """What it calls LINE is in checkpoints, and the table of addons says which class a name is."""
    compat = "fcnseg.networks.keras_compat"
    asking = {
        str(path.relative_to(ROOT))
        for place in ("fcnseg", *sorted(JOBS))
        for path in sources(place)
        if {f"{compat}.IS_KERAS_3", f"{compat}.LINE"} & imported(path)
        or "keras.__version__.startswith" in path.read_text()
    }
    assert asking == {
        "fcnseg/networks/addons.py",
        "fcnseg/networks/keras_compat.py",
        "fcnseg/training/assembly.py",
    }


def test_light_modules_leave_tensorflow_and_beam_out():
    script = f"""
import importlib, sys
for name in {LIGHT}:
    importlib.import_module(name)
loaded = sorted({{'tensorflow', 'keras', 'matplotlib', 'apache_beam'}} & sys.modules.keys())
assert not loaded, loaded
"""
    subprocess.run([sys.executable, "-c", script], check=True, cwd=ROOT)


_HELP = """
import contextlib, io, sys
from fcnseg.cli.main import entries, main

def loaded_by_help_of(names, packages):
    for name in names:
        with contextlib.redirect_stdout(io.StringIO()) as said, contextlib.suppress(SystemExit):
            main([name, "--help"])
        assert said.getvalue().startswith(f"usage: fcnseg {name} "), name
        assert not packages & sys.modules.keys(), (name, packages & sys.modules.keys())

heavy = {"tensorflow", "keras", "keras_tuner", "matplotlib", "sklearn"}
with_beam = ["convert", "flink"]  # Beam brings grpc
others = [name for name in entries() if name not in with_beam]
loaded_by_help_of(others, heavy | {"apache_beam", "grpc"})
loaded_by_help_of(with_beam, heavy)
"""


def test_help_of_no_command_waits_for_tensorflow():
    """Nor for another library of seconds; Beam's commands have flags of Beam."""
    subprocess.run([sys.executable, "-c", _HELP], check=True, cwd=ROOT)


def test_prediction_leaves_beam_out():
    script = "import sys, fcnseg.cli.predict; sys.exit('apache_beam' in sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True, cwd=ROOT)


def test_each_name_of_the_package_is_imported_when_used():
    script = """
import sys, fcnseg
assert {name.split(".")[0] for name in sys.modules} & {"numpy", "tensorflow", "pydantic"} == set()
for name in fcnseg.__all__:
    assert getattr(fcnseg, name) is not None
    assert name in dir(fcnseg)
assert not hasattr(fcnseg, "nothing")
"""
    subprocess.run([sys.executable, "-c", script], check=True, cwd=ROOT)


def test_type_checkers_see_the_names_of_the_package():
    (block,) = [
        node
        for node in ast.parse((ROOT / "fcnseg/__init__.py").read_text()).body
        if isinstance(node, ast.If)
    ]
    seen = {alias.name for imported in block.body for alias in imported.names}
    assert {"__version__", *seen} == set(fcnseg.__all__)


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


def test_a_class_has_a_name_of_its_own():
    """One word means one thing: no two public classes of the library have one name."""
    classes: dict[str, list[str]] = {}
    for path in sources("fcnseg"):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                classes.setdefault(node.name, []).append(str(path.relative_to(ROOT)))
    assert {name: places for name, places in classes.items() if len(places) > 1} == {}
