"""Configurations in YAML files and by name, and changes of single values."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pydantic
import yaml

from fcnseg.config.presets import PRESETS
from fcnseg.config.renamed import with_new_names
from fcnseg.config.sections import Config
from fcnseg.errors import ConfigError, InputError, first_finding
from fcnseg.storage.whole_file import write_whole
from fcnseg.storage.yaml_json import read_yaml

_SECTIONS = {type(section).__name__: name for name, section in vars(Config()).items()}


def read_config(path_or_preset: str | os.PathLike[str]) -> Config:
    """Reads a configuration from a YAML file, or takes a preset by its name.

    Raises:
        ConfigError: If there is no such file or preset, or it contains an unknown key, a duplicate
            key, or an invalid value.
    """
    name = os.fspath(path_or_preset)
    if name in PRESETS:
        return PRESETS[name]
    try:
        content = read_yaml(name)
    except OSError as error:
        presets = ", ".join(PRESETS)
        raise ConfigError(
            f"config must be a YAML file or one of the presets {presets}, got {name!r}"
        ) from error
    except InputError as error:
        raise ConfigError(f"config {name} is not valid YAML: {error}") from error
    return config_from_mapping({} if content is None else content, source=name)


def config_from_mapping(mapping: Mapping[str, Any], *, source: str = "config") -> Config:
    """Builds a `Config` from nested mappings; omitted keys keep their default.

    Args:
        mapping: Sections of keys, as in the YAML file.
        source: Origin of the mapping, for error messages.

    Raises:
        ConfigError: If a key is unknown (the known ones are listed) or a value breaks its rule.
    """
    try:
        return pydantic.TypeAdapter(Config).validate_python(mapping)
    except pydantic.ValidationError as error:
        raise config_error(error, source=source) from error


def config_to_mapping(config: Config) -> dict[str, Any]:
    """Converts the configuration to nested dictionaries of plain values."""
    mapping: dict[str, Any] = pydantic.TypeAdapter(Config).dump_python(config, mode="json")
    return mapping


def write_config(config: Config, path: Path) -> None:
    """Writes a configuration as YAML that `read_config` reads back."""
    text = yaml.safe_dump(config_to_mapping(config), sort_keys=False, default_flow_style=None)
    write_whole(path, text)


def override(config: Config, settings: Mapping[str, Any]) -> Config:
    """Copies the configuration with some dotted keys changed.

    Args:
        config: The configuration to start from; it is not modified.
        settings: Values by dotted key, as in `{"training.learning_rate": 1e-4}`.

    Raises:
        ConfigError: If a key is unknown or a value breaks its rule.
    """
    mapping = config_to_mapping(config)
    for key, value in settings.items():
        *sections, name = key.split(".")
        section = mapping
        for part in sections:
            section = section.setdefault(part, {})
            if not isinstance(section, dict):
                raise ConfigError(
                    f"unknown key {key!r}: {part} is a value and has no keys (override)"
                )
        section.update(with_new_names(".".join(sections), {name: value}))
    return config_from_mapping(mapping, source="override")


def config_error(error: pydantic.ValidationError, *, source: str) -> ConfigError:
    """The first error found in a configuration or in one of its sections, and its place."""
    finding = error.errors()[0]
    if finding["type"] != "unexpected_keyword_argument":
        section = _SECTIONS.get(error.title)
        prefix = "" if section is None else f"{section}." if finding["loc"] else f"{section}: "
        return ConfigError(f"{prefix}{first_finding(error)} ({source})")
    *sections, name = [str(part) for part in finding["loc"]]
    where = f"key {name!r} in {'.'.join(sections)}" if sections else f"section {name!r}"
    known = ", ".join(_known_keys(sections))
    return ConfigError(f"unknown {where}; known: {known} ({source})")


def _known_keys(sections: list[str]) -> list[str]:
    owner: Any = Config()
    for section in sections:
        owner = getattr(owner, section)
    return [field.name for field in dataclasses.fields(owner)]
