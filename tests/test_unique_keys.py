"""A key that is there twice, or a number that is another, is refused in files that people write."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest
import yaml

from fcnseg.config import read_config
from fcnseg.conversion.case_lists import cases_of_dataset_json
from fcnseg.errors import ConfigError, InputError, LabelError
from fcnseg.storage.yaml_json import parse_json, read_yaml
from fcnseg.volumes import LabelMap

ROOT = Path(__file__).parent.parent
LABEL_MAP = LabelMap.consecutive(("background", "liver"))


def read(tmp_path, text):
    path = tmp_path / "file.yaml"
    path.write_text(text)
    return read_yaml(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", "key 'a' in line 3 is there also in line 1"),
        ("{a: 1, a: 1}", "key 'a' in line 1 is there twice"),
        ("s:\n  x: 1\n  'x': 2\n", "key 'x' in line 3 is there also in line 2"),  # quoted or not
        ("- {a: 1}\n- a: 2\n  b: {c: 1,\n    c: 2}\n", "key 'c' in line 4 .* in line 3"),
        ("1: a\n1: b\n", "key '1' in line 2"),
        ("a: 1\n\tb: 2\n", "cannot start any token"),
        ("a: 2020-13-45\n", "month must be in 1..12"),  # PyYAML lets the date's own error through
        ("a: 1\nb: [010]", "010 in line 2 is 8 in YAML: write a number without zeros"),
        ("a: 1:30", "1:30 in line 1 is 90 in YAML"),
        ("a: \0", "special characters are not allowed"),
        ("[" * 5000, "recursion"),
    ],
)
def test_what_yaml_forbids_is_named_with_its_line(tmp_path, text, message):
    with pytest.raises(InputError, match=message) as caught:
        read(tmp_path, text)
    assert "\n" not in str(caught.value)


def test_what_is_merged_may_be_overridden(tmp_path):
    text = "base: &base {a: 1, b: 2}\none: {<<: *base, a: 3}\ntwo: {<<: *base, b: 4}\n"
    content = read(tmp_path, text)
    assert content["one"] == {"a": 3, "b": 2}
    assert content["two"] == {"a": 1, "b": 4}


def test_other_yaml_is_as_pyyaml_reads_it(tmp_path):
    for path in (ROOT / "examples").rglob("*.yaml"):
        assert read_yaml(path) == yaml.safe_load(path.read_text())
    assert read(tmp_path, "") is None
    assert read(tmp_path, "[0, -7, 1_000, 0x1f, 08, '010']") == [0, -7, 1000, 31, "08", "010"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 1,\n "a": 2}', "key 'a' in line 2 is there also in line 1"),
        ('{"a": [{"b": 1,\n\t"c": 1,\n\t"b": 1}]}', "key 'b' in line 3 is there also in line 1"),
        ('{"a": 1', "Expecting ',' delimiter"),
        ("", "Expecting value"),
    ],
)
def test_what_json_forbids_is_named_with_its_line(text, message):
    with pytest.raises(InputError, match=message):
        parse_json(text)


def test_other_json_is_as_python_reads_it():
    text = json.dumps({"a": [{"a": 1}, {"a": "\u00e4\n"}], "b": {"a": None}}, indent="\t")
    assert parse_json(text) == json.loads(text)


TWICE = {
    "configuration": (
        "training: {epochs: 300}\npatches: {size: [64, 64, 64]}\ntraining: {epochs: 50}\n",
        read_config,
        ConfigError,
        "'training' in line 3",
    ),
    "label map": (
        "classes:\n  background: [0]\n  liver: [1]\n  liver: [2]\n",
        LabelMap.read,
        LabelError,
        "'liver' in line 4",
    ),
    "dataset.json": (
        '{"modality": {"0": "CT"},\n "labels": {"0": "background", "1": "liver"},\n'
        ' "training": [],\n "training": []}',
        lambda path: cases_of_dataset_json(str(path), LABEL_MAP),
        InputError,
        "'training' in line 4",
    ),
}


@pytest.mark.parametrize("name", TWICE)
def test_no_file_says_a_thing_twice(tmp_path, name):
    text, read_it, error, message = TWICE[name]
    (tmp_path / "file").write_text(text)
    with pytest.raises(error, match=message) as caught:
        read_it(tmp_path / "file")
    assert str(tmp_path / "file") in str(caught.value)


def test_search_space_says_nothing_twice(tmp_path):
    space = pytest.importorskip("tuning.space")
    (tmp_path / "space.yaml").write_text(
        "training.epochs: {int: [1, 2]}\ntraining.epochs: {int: [3, 4]}\n"
    )
    with pytest.raises(ConfigError, match=r"space\.yaml.* key 'training.epochs' in line 2"):
        space.SearchSpace.read(tmp_path / "space.yaml")


def test_no_other_module_reads_yaml():
    """Each use of PyYAML's own loaders would take the last of two keys."""
    calls = []
    for folder in ("fcnseg", "pipelines", "tuning", "serving"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                is_load = isinstance(node, ast.Attribute) and "load" in node.attr
                if is_load and isinstance(node.value, ast.Name) and node.value.id == "yaml":
                    calls.append(path.name)
    assert calls == ["yaml_json.py"]
