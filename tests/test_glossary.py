"""The glossary and the public names agree: each term has its name, and no name a discarded word."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROW = re.compile(r"^\| (?!term|---)(.+?) \| .+ \| (.+?) \| (.*?) ?\|$", re.MULTILINE)
ROWS = ROW.findall((ROOT / "docs" / "glossary.md").read_text())


def public_names() -> Iterator[str]:
    """Names of classes, functions, parameters, fields and constants of the library and its jobs."""
    for folder in ("fcnseg", "pipelines", "tuning", "serving"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.ClassDef | ast.FunctionDef):
                    yield node.name
                elif isinstance(node, ast.arg):
                    yield node.arg
                elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                    yield node.id


NAMES = {name for name in public_names() if not name.startswith("_")}


def words_of(name: str) -> set[str]:
    return {word.lower() for word in re.findall(r"[A-Z]?[a-z0-9]+|[A-Z]+(?![a-z])", name)}


def test_the_glossary_is_read():
    assert len(ROWS) > 30
    assert len({term for term, _, _ in ROWS}) == len(ROWS)


@pytest.mark.parametrize(("term", "names"), [(term, names) for term, names, _ in ROWS])
def test_a_term_has_its_name_in_the_code(term, names):
    named = re.findall(r"`(\w+)`", names)
    assert named
    assert NAMES.issuperset(named)


@pytest.mark.parametrize(
    "word", [word for _, _, discarded in ROWS for word in discarded.split(", ") if word]
)
def test_no_name_has_a_discarded_word(word):
    assert not [name for name in NAMES if word in words_of(name)]
