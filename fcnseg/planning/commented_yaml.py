"""YAML configurations with the reason of each value as a comment."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from fcnseg.config import Config, config_to_mapping

_WIDTH = 100
_NO_WRAP = 10**6  # characters: a value stays on its line


def commented_yaml(config: Config, reasons: Mapping[str, str], *, notes: Sequence[str]) -> str:
    """Formats the configuration as text that `read_config` reads back.

    Args:
        config: The configuration.
        reasons: One for each value to write, by its dotted key, such as `model.norm`; the others
            must have their defaults.
        notes: Paragraphs at the top.
    """
    lines = [line for note in notes for line in _comment(note)]
    for section, values in config_to_mapping(config).items():
        reasoned = [key for key in values if f"{section}.{key}" in reasons]
        if not reasoned:
            continue
        lines += ["", f"{section}:"]
        for key in reasoned:
            text = [*_comment(reasons[f"{section}.{key}"]), *_value(key, values[key])]
            lines += [f"  {line}" for line in text]
    return "\n".join([*lines, ""])


def _comment(text: str) -> list[str]:
    return textwrap.wrap(
        text, _WIDTH - 2, initial_indent="# ", subsequent_indent="# ", break_on_hyphens=False
    )


def _value(key: str, value: Any) -> list[str]:
    style = None if isinstance(value, list) else False  # lists of numbers on one line
    dumped: str = yaml.safe_dump({key: value}, default_flow_style=style, width=_NO_WRAP)
    return dumped.splitlines()
