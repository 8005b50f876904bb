"""What the documentation says is there, is there."""

from __future__ import annotations

import ast
import dataclasses
import doctest
import importlib.util
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import yaml

from fcnseg.cli.main import COMMANDS
from fcnseg.evaluation.evaluation import Evaluation
from fcnseg.records.dataset_info import DatasetInfo
from fcnseg.records.fingerprint import Fingerprint
from fcnseg.runs.model_info import ModelInfo
from fcnseg.runs.run_folder import RunManifest

ROOT = Path(__file__).parent.parent
PAGES = [
    *(ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
LINK = re.compile(r"\[[^\]]*\]\(([^)#]+)[^)]*\)")
PYTHON = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BLOCK = re.compile(r"^ *```[^\n]*\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"`([^`]+)`")
# A command by its module, or as the console script.
COMMAND = re.compile(
    r"(?:python -m |(?<![\w./=-])(?=fcnseg [a-z]))(fcnseg [a-z]+|[\w.]+)((?:[^`\n]|\\\n)*)"
)
TEXT = re.compile(r"^```text\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FACTS = re.compile(r"`(\w+\.json): ([\w., ]+)`")


def page_id(page: Path) -> str:
    return str(page.relative_to(ROOT))


def statements_of(page: Path) -> list[int]:
    """The number of statements with a prompt in each block of Python of a page."""
    blocks = PYTHON.findall(page.read_text())
    return [sum(line.startswith(">>> ") for line in block.splitlines()) for block in blocks]


PYTHON_PAGES = [page for page in PAGES if statements_of(page)]


def code_of(page: Path) -> list[str]:
    """The code of a page, in blocks and in lines; prose and messages have no commands."""
    text = TEXT.sub("", page.read_text())
    spans = SPAN.findall(BLOCK.sub("", text))
    return [*BLOCK.findall(text), *(" ".join(span.split()) for span in spans)]


def commands() -> list[tuple[str, str]]:
    """(command, arguments) of each command in the pages, continued lines joined."""
    found = [match for page in PAGES for code in code_of(page) for match in COMMAND.findall(code)]
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


def strings_of(source: Path) -> Iterator[re.Pattern[str]]:
    """Patterns of the strings in a file of Python; what an f-string formats may be any text."""
    for node in ast.walk(ast.parse(source.read_text())):
        parts = node.values if isinstance(node, ast.JoinedStr) else [node]
        texts = [str(part.value) if isinstance(part, ast.Constant) else "" for part in parts]
        if len("".join(texts)) >= 10:  # shorter ones say too little
            pattern = "".join(re.escape(text) or "(.+)" for text in texts)
            yield re.compile(re.sub(r"\\\{\w+(:\w+)?\\\}", "(.+)", pattern))  # of str.format


def test_messages_in_the_troubleshooting_are_those_of_the_code():
    rooms = ("fcnseg", "pipelines", "serving", "tuning")
    sources = [path for room in rooms for path in (ROOT / room).rglob("*.py")]
    patterns = [pattern for path in sources for pattern in strings_of(path)]
    texts = TEXT.findall((ROOT / "docs/troubleshooting.md").read_text())
    messages = [" ".join(text.split()).removeprefix("error: ") for text in texts]
    assert len(messages) > 30
    unknown = []
    for message in messages:
        _, _, cause = message.partition(": ")  # a client gives the server's words after its own
        if not any(pattern.match(message) or pattern.match(cause) for pattern in patterns):
            unknown.append(message)
    assert unknown == []


def fields_of(kind: type) -> set[str]:
    return {field.name for field in dataclasses.fields(kind)}


def test_facts_that_the_model_card_names_are_in_the_files():
    known = {
        "run.json": fields_of(RunManifest),
        "model_info.json": fields_of(ModelInfo),
        "dataset_info.json": fields_of(DatasetInfo)
        | {f"fingerprint.{name}" for name in fields_of(Fingerprint)},
        "evaluation.json": set(json.loads(Evaluation((), {}).to_json())),
    }
    named = FACTS.findall((ROOT / "docs/model_card.md").read_text())
    assert {file for file, _ in named} == known.keys()
    assert [
        (file, fact)
        for file, facts in named
        for fact in facts.split(", ")
        if fact not in known[file]
    ] == []


def test_the_citation_is_of_this_software():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    setup = (ROOT / "setup.cfg").read_text()
    for key in ("version", "license"):
        assert f"\n{key} = {citation[key]}\n" in setup
    (paper,) = citation["references"]
    (preprint,) = paper["identifiers"]
    assert preprint["value"].removeprefix("arXiv:") in (ROOT / "README.md").read_text()


def test_each_page_is_in_the_index():
    blocks = re.findall(
        r"```\{toctree\}\n(.*?)```", (ROOT / "docs/index.md").read_text(), re.DOTALL
    )
    listed = {line for block in blocks for line in block.splitlines()}
    pages = {page.stem for page in (ROOT / "docs").glob("*.md")} - {"index"}
    assert pages <= listed


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
