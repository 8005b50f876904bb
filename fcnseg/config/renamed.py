"""Renamed keys of a configuration; the old names are accepted with a warning."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

RENAMED: dict[str, dict[str, str]] = {
    "patches": {"per_read": "samples_per_volume"},
    "loss": {"per": "batch_dice", "background": "include_background", "share": "fraction"},
    "training": {
        "average_decay": "ema_decay",
        "step_at": "milestones",
        "step_factor": "gamma",
        "warm_up_steps": "warmup_steps",
    },
}
"""For each section, the old names with the new ones."""

_VALUES: dict[str, dict[Any, Any]] = {"batch_dice": {"batch": True, "sample": False}}
"""For each key, by its new name, the renamed values."""


def with_new_names(section: str, values: dict[str, Any]) -> dict[str, Any]:
    """Renames old keys and values of a section; warns of each.

    Args:
        section: A section of the configuration.
        values: Values by name, old or new.

    Raises:
        ValueError: If a key is present under both names.
    """
    renamed = RENAMED.get(section, {})
    found = {}
    for name, value in values.items():
        key = renamed.get(name, name)
        if key != name:
            if key in values:
                raise ValueError(f"{section}.{name} is {section}.{key} now: give one of them")
            _warn(section, name, key)
            value = _VALUES.get(key, {}).get(value, value) if isinstance(value, str) else value
        found[key] = value
    return found


def with_new_flags(argv: Sequence[str]) -> list[str]:
    """Renames old flags in the arguments of a command; warns of each."""
    old = {
        f"--{section}.{no}{name}": (section, name, f"{no}{key}")
        for section, names in RENAMED.items()
        for name, key in names.items()
        if key not in _VALUES  # their flags take no value now
        for no in ("", "no_")
    }
    found = []
    for word in argv:
        flag, equals, value = word.partition("=")
        if flag in old:
            section, name, key = old[flag]
            _warn(section, name, key.removeprefix("no_"))
            word = f"--{section}.{key}{equals}{value}"
        found.append(word)
    return found


def _warn(section: str, name: str, key: str) -> None:
    warnings.warn(f"{section}.{name} is {section}.{key} now", FutureWarning, stacklevel=2)
