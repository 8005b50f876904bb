"""YAML and JSON written by people: what a parser would read as something else is an error.

PyYAML and `json` silently take the last of two equal keys, and PyYAML takes 010 for 8 and 1:30 for
90, so that a run would have other settings than its file seems to say.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from fcnseg.errors import InputError, one_line

# Octal, and base 60, in the YAML of PyYAML.
_MISLEADING = re.compile(r"[-+]?(0[0-7_]+|\d[\d_]*(:\d+)+)")


class _RepeatedKeyError(ValueError):
    """A mapping has a duplicate key."""


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, which also refuses duplicate keys and numbers of other bases.

    It checks mappings as written: keys that `<<` merges into one may be overridden there.
    """

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """Composes a mapping and compares its keys."""
        node = super().compose_mapping_node(anchor)
        lines: dict[tuple[str, str], int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            line = key.start_mark.line + 1
            if (key.tag, key.value) in lines:
                first = lines[key.tag, key.value]
                where = "twice" if first == line else f"also in line {first}"
                raise _RepeatedKeyError(f"key {key.value!r} in line {line} is there {where}")
            lines[key.tag, key.value] = line
        return node

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        """Constructs an integer, unless it is written as people write decimal ones, but is not."""
        if _MISLEADING.fullmatch(node.value):
            line = node.start_mark.line + 1
            value = super().construct_yaml_int(node)
            raise ValueError(
                f"{node.value} in line {line} is {value} in YAML: write a number without zeros in"
                " front and without a colon"
            )
        return int(super().construct_yaml_int(node))


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)


def read_yaml(path: str | os.PathLike[str]) -> Any:
    """Reads a YAML file.

    Args:
        path: The file, in UTF-8.

    Returns:
        The parsed content; None if it is empty.

    Raises:
        OSError: If it cannot be opened.
        InputError: If it is not YAML, or a key is duplicate; the message names the line.
    """
    try:
        return yaml.load(Path(path).read_text(encoding="utf-8"), _Loader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(one_line(error)) from error


def parse_json(text: str) -> Any:
    """Reads JSON.

    Args:
        text: The content of a file.

    Raises:
        InputError: If it is not JSON, or a key is duplicate; the message names the line.
    """
    try:
        return json.loads(text, object_pairs_hook=_unique)
    except _RepeatedKeyError as error:
        raise InputError(_with_line(text) or str(error)) from error
    except (ValueError, RecursionError) as error:
        raise InputError(one_line(error)) from error


def _unique(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    mapping: dict[str, Any] = {}
    for key, value in pairs:
        if key in mapping:
            raise _RepeatedKeyError(f"key {key!r} is there twice")
        mapping[key] = value
    return mapping


def _with_line(text: str) -> str | None:
    """Adds the line, which `json` does not give: JSON is YAML except for its tabs."""
    try:
        yaml.compose(text.replace("\t", " "), _Loader)
    except _RepeatedKeyError as error:
        return str(error)
    except (yaml.YAMLError, RecursionError):
        pass  # the key is known, its line is not
    return None
