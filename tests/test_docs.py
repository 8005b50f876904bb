"""What the documentation says is there, is there."""

from __future__ import annotations

import doctest
import importlib.util
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from fcnseg.cli.main import COMMANDS

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
LINK = re.compile(r"\[[^\]]*\]\(([^)#]+)[^)]*\)")
PYTHON = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"python -m (fcnseg [a-z]+|[\w.]+)((?:[^`\n]|\\\n)*)")


def page_id(page: Path) -> str:
    return str(page.relative_to(ROOT))


def statements_of(page: Path) -> list[int]:
    """The number of statements with a prompt in each block of Python of a page."""
    blocks = PYTHON.findall(page.read_text())
    return [sum(line.startswith(">>> ") for line in block.splitlines()) for block in blocks]


PYTHON_PAGES = [page for page in PAGES if statements_of(page)]


def commands() -> list[tuple[str, str]]:
    """(command, arguments) of each `python -m` command in the pages, continued lines joined."""
    found = [match for page in PAGES for match in COMMAND.findall(page.read_text())]
    assert found
    return sorted(
        {(command, " ".join(rest.replace("\\\n", " ").split())) for command, rest in found}
    )


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_links_lead_somewhere(page):
    targets = [link for link in LINK.findall(page.read_text()) if "://" not in link]
    missing = [target for target in targets if not (page.parent / target).exists()]
    assert not missing


def test_pages_that_explain_by_python_have_some():
    assert {"docs/coordinates.md", "docs/models.md"} <= set(map(page_id, PYTHON_PAGES))


@pytest.mark.parametrize("page", PYTHON_PAGES, ids=page_id)
def test_python_in_the_pages_runs(page):
    """Each block has prompts, without which doctest would pass over it."""
    statements = statements_of(page)
    assert all(statements)
    results = doctest.testfile(str(page), module_relative=False)
    assert (results.attempted, results.failed) == (sum(statements), 0)


@pytest.mark.parametrize("command", sorted({command for command, _ in commands()}))
def test_commands_exist(command):
    module, *names = command.split()
    assert importlib.util.find_spec(module) is not None
    assert set(names) <= {name for group in COMMANDS.values() for name in group}


@cache
def help_of(command: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", *command.split(), "--help"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(("command", "arguments"), commands())
def test_flags_in_the_pages_are_flags_of_the_commands(command, arguments):
    for flag in re.findall(r"--[\w.]+", arguments):
        assert re.search(rf"{re.escape(flag)}\b", help_of(command)), f"{command} has no {flag}"


def test_files_that_the_architecture_names_are_there():
    named = re.findall(
        r"`((?:fcnseg|serving)/[\w/.]+)`", (ROOT / "docs/architecture.md").read_text()
    )
    assert len(named) > 40
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_decisions_are_listed():
    index = (ROOT / "docs/decisions/README.md").read_text()
    records = {path.name for path in (ROOT / "docs/decisions").glob("0*.md")}
    assert len(records) > 10
    assert set(re.findall(r"0\d{3}-[\w-]+\.md", index)) == records
