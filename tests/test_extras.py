"""An optional package that is not installed is named, with the way to get it."""

from __future__ import annotations

import ast
import configparser
import importlib
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from fcnseg.cli.main import entries
from fcnseg.config import Config
from fcnseg.errors import MissingExtraError
from fcnseg.extras import EXTRA_OF, naming_extras, require_extra
from tuning.report import REPORT_FILE, ReportCommand
from tuning.trials import Search

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
# What is imported of the base install.
BASE = {
    *("fsspec", "google", "google_crc32c", "nibabel", "numpy", "pydantic", "rich", "scipy", "tyro"),
    "yaml",
}
# A package that each command asks for, in its help already or when it begins, with the flags.
ASKED = {
    "convert": ("apache_beam", "--help"),
    "export": ("tensorflow", "--run_dir NEW --model_dir NEW"),
    "search": ("keras_tuner", "--data NEW --config demo --space quick --output NEW"),
    "serve": ("grpc", "--model_base_path NEW"),
}

WITHOUT = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == sys.argv[1]:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing())
from fcnseg.cli.main import main
main(sys.argv[2:])
"""


def requirements() -> dict[str, str]:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    return dict(config["options.extras_require"])


def test_each_package_has_an_extra_of_the_setup():
    assert set(EXTRA_OF.values()) <= set(requirements())


def is_call_of(node, name):
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name


def test_each_package_that_is_imported_is_in_the_base_install_or_has_an_extra():
    """A package that is found beside another, by chance, would end in a traceback without it."""
    names = set()
    for folder in ("fcnseg", "pipelines", "tuning", "serving"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Import):
                    names |= {alias.name.partition(".")[0] for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and not node.level:
                    names.add(node.module.partition(".")[0])
                elif is_call_of(node, "require_extra") and isinstance(node.args[0], ast.Constant):
                    names.add(node.args[0].value.partition(".")[0])
    others = names - sys.stdlib_module_names - BASE - {"fcnseg"}
    assert others - {"isal"} <= set(EXTRA_OF)  # without isal, zlib does
    assert set(EXTRA_OF) - others == {"gcsfs", "s3fs"}  # by their names alone


def test_the_readme_lists_each_extra_once_and_its_commands():
    rows = re.findall(r"^\| ((?:none|`[a-z0-9]+`)(?:, `\w+`)*) \| (.+?) \|", README, re.MULTILINE)
    listed = [name for names, _ in rows for name in re.findall(r"`(\w+)`", names)]
    assert sorted(listed) == sorted(requirements())
    named = {name for _, text in rows for name in re.findall(r"`(\w+)`", text)}
    assert named - set(requirements()) <= set(entries())
    assert set(entries()) - named == {"completion", "rollback"}  # these need no extra either


def extras_with(extra):
    """An extra and those that come with it; `addons` stands for three that it cannot name."""
    lines = [line for line in requirements()[extra].splitlines() if line.startswith("fcnseg[")]
    nested = [name for line in lines for name in line[len("fcnseg[") : -1].split(",")]
    instead = ["train", "tuning", "serving"] if extra == "addons" else []
    return {extra, *instead}.union(*map(extras_with, nested))


@pytest.mark.parametrize("extra", ["tuning", "addons"])
def test_a_report_needs_no_more_than_what_searches_need(monkeypatch, tmp_path, extra):
    """Its page too, for which templates and plots are needed."""
    search = Search(
        tuner="random",
        objective="val_dice",
        seed=0,
        space={"training.learning_rate": {"choice": [1e-3, 1e-2]}},
        config=Config(),
        data="records",
        data_digest="0" * 64,
    )
    search.begin_or_resume(tmp_path)
    for package, its_extra in EXTRA_OF.items():
        if its_extra not in extras_with(extra):
            monkeypatch.setitem(sys.modules, package, None)
    ReportCommand(tmp_path).run()
    assert (tmp_path / REPORT_FILE).stat().st_size


def test_a_package_of_no_extra_is_not_explained_away():
    with pytest.raises(ModuleNotFoundError, match="No module named 'nowhere'"), naming_extras():
        importlib.import_module("nowhere")


@pytest.mark.parametrize("extra", sorted({*EXTRA_OF.values()}))
def test_the_remedy_names_what_the_setup_does(monkeypatch, extra):
    """Extras of fcnseg that an extra asks for are followed to their packages."""
    package = next(package for package, name in EXTRA_OF.items() if name == extra)
    monkeypatch.setitem(sys.modules, package, None)  # Python's own way to hide a module
    with pytest.raises(MissingExtraError) as caught:
        require_extra(package)
    message = str(caught.value)
    assert message.startswith(f"{package} is not installed: it comes with fcnseg's extra {extra}, ")
    named = message.partition("pip install ")[2]
    assert "fcnseg[" not in named
    installed = {Requirement(word) for word in shlex.split(named)}
    for line in requirements()[extra].splitlines():
        if line and not line.startswith(("#", "fcnseg[")):
            assert Requirement(line) in installed


@pytest.mark.parametrize("name", ASKED)
def test_a_command_without_its_extra_says_so_in_one_line(name, tmp_path):
    package, flags = ASKED[name]
    argv = flags.replace("NEW", str(tmp_path / "new")).split()
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, package, name, *argv], capture_output=True, text=True
    )
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith(
        f"error: {package} is not installed: it comes with fcnseg's extra {EXTRA_OF[package]}, "
    )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("line", "said"),
    [("convert --help", "usage: fcnseg convert "), ("serve --version", "fcnseg: ")],
)
def test_beam_and_tensorflow_are_loaded_in_silence(line, said):
    done = subprocess.run(
        [sys.executable, "-m", "fcnseg", *line.split()], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(said)
