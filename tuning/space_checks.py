"""Checks of a search space against the configuration that it changes, before any trial."""

from __future__ import annotations

import dataclasses
import itertools
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from fcnseg.config import Config, config_to_mapping, override
from fcnseg.config.renamed import RENAMED
from fcnseg.errors import ConfigError, InputError, did_you_mean, one_line
from fcnseg.networks import output_shape

from .effects import check_effects
from .space import Choice, FloatRange, SearchSpace, Setting

_SAME = "it does not change the network"
_LENGTH = "trials of other lengths cannot be compared"
_REFUSED = {
    "training.seed": "the luck of a draw is no setting to choose",
    "training.epochs": _LENGTH,
    "training.steps_per_epoch": _LENGTH,
    "training.patience": _LENGTH,
    "training.time_limit_hours": _LENGTH,
    "training.validate_every": "trials are compared at the same validations",
    "model.coarse_input": "records hold no coarse prediction",
    "training.tensorboard": _SAME,
    "training.checkpoint_every": _SAME,
    "training.steps_per_execution": _SAME,
    "training.jit_compile": _SAME,
    "inference.batch_size": _SAME,
    "inference.max_voxels": _SAME,
    "inference.skip_air": _SAME,
    "loss.ignore_label": "it changes what validation measures",
}
"""Keys that no search may change, with the reason."""


def checked_space(
    space: SearchSpace, config: Config, *, check: Callable[[Config], None] = lambda _: None
) -> SearchSpace:
    """Checks each key, each value and each pair of values against the base configuration.

    Args:
        space: Search space as it was read.
        config: Base configuration.
        check: Function that raises a `ConfigError` for a configuration that cannot train.

    Returns:
        The space with its choices as the configuration has them: `1e-3`, a text in YAML, is 0.001.

    Raises:
        ConfigError: If a key is unknown or may not be searched, or a value breaks a rule, alone or
            beside another one, or the base configuration cannot train.
    """
    check(config)
    for key, setting in space.settings.items():
        _check_key(key, space.source)
        _check_kind(key, setting, space.source)
    settings = {
        key: _normal(key, setting, config, space) for key, setting in space.settings.items()
    }
    for key, setting in settings.items():
        when = {
            parent: [_as_in_config(config, parent, value) for value in values]
            for parent, values in setting.when.items()
        }
        settings[key] = dataclasses.replace(setting, when=when)
        _check_conditions(key, settings, space.source)
    _check_possible(settings, space.source)
    checked = SearchSpace(settings, space.source)
    _check_values(checked, config, check)
    return checked


def _check_conditions(key: str, settings: Mapping[str, Setting], source: str) -> None:
    """Checks that the values in the conditions of a setting are among the choices."""
    for parent, values in settings[key].when.items():
        choices = settings[parent].values.all_values() or ()
        for value in values:
            if value not in choices:
                raise ConfigError(
                    f"{key}: when must have values of {parent}, {list(choices)}, got {value!r}"
                    f" ({source})"
                )


def _check_possible(settings: Mapping[str, Setting], source: str) -> None:
    """Checks that each setting, behind those of its conditions, applies to some values of them."""
    needed: dict[str, dict[str, list[Any]]] = {}
    for key, setting in settings.items():
        needed[key] = {}
        for parent, values in setting.when.items():
            for other, allowed in {**needed[parent], parent: values}.items():
                before = needed[key].get(other, allowed)
                needed[key][other] = [value for value in before if value in allowed]
                if not needed[key][other]:
                    raise ConfigError(
                        f"{key}: when must leave {other} a value, got {before} and {allowed}, by"
                        f" {parent} ({source})"
                    )


def _check_key(key: str, source: str) -> None:
    sections = {field.name: field for field in dataclasses.fields(Config)}
    section, _, name = key.partition(".")
    if section not in sections:
        raise ConfigError(
            f"unknown section {section!r} in {key!r}; known: {', '.join(sections)} ({source})"
        )
    known = [field.name for field in dataclasses.fields(getattr(Config(), section))]
    if new := RENAMED.get(section, {}).get(name):
        raise ConfigError(f"{key} is {section}.{new} now ({source})")
    if name not in known:
        owner, _, rest = name.partition(".")
        if rest and owner in known:
            raise ConfigError(f"unknown key {key!r}: {owner} is a value and has no keys ({source})")
        raise ConfigError(
            f"unknown key {name!r} in {section}{did_you_mean(name, known)}; known:"
            f" {', '.join(known)} ({source})"
        )
    if key in _REFUSED:
        raise ConfigError(f"{key} must not be searched: {_REFUSED[key]} ({source})")


def _check_kind(key: str, setting: Setting, source: str) -> None:
    """Refuses a range for a setting that is no number, or not of its kind, and 1 as true."""
    for parent, values in setting.when.items():
        if _has_bools(parent, values):
            raise ConfigError(
                f"{key}: when must not have true or false for {parent}, got {values} ({source})"
            )
    kind = _number_type(key)
    if isinstance(setting.values, Choice):
        if _has_bools(key, setting.values.choice):
            raise ConfigError(
                f"{key}: choice must not list true or false, got {setting.values.choice} ({source})"
            )
    elif kind not in (int, float):
        raise ConfigError(f"{key} must have choice, as it is not one number ({source})")
    elif kind is int and isinstance(setting.values, FloatRange):
        raise ConfigError(
            f"{key} must have int or choice, as it is an integer, got float"
            f" {list(setting.values.float)} ({source})"
        )


def _has_bools(key: str, values: Iterable[Any]) -> bool:
    """True if there is a true or false among the values of a setting that is neither."""
    return _number_type(key) is not bool and any(isinstance(value, bool) for value in values)


def _number_type(key: str) -> type | None:
    """The type of a field of the configuration that is bool, int or float; None for others."""
    section, _, name = key.partition(".")
    hints = typing.get_type_hints(type(getattr(Config(), section)))
    return _plain(hints[name])


def _plain(hint: Any) -> type | None:
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        kinds = {_plain(each) for each in typing.get_args(hint) if each is not types.NoneType}
        return kinds.pop() if len(kinds) == 1 else None
    return hint if hint in (bool, int, float) else None


def _normal(key: str, setting: Setting, config: Config, space: SearchSpace) -> Setting:
    """The setting with choices as the configuration has them."""
    if not isinstance(setting.values, Choice):
        return setting
    values = [_as_in_config(config, key, value) for value in setting.values.choice]
    for value in values:
        if values.count(value) > 1:
            raise ConfigError(
                f"{key}: choice must list each value once, got {value} again ({space.source})"
            )
    return dataclasses.replace(setting, values=Choice(values))


def _as_in_config(config: Config, key: str, value: Any) -> Any:
    """A value as the configuration has it; unchanged if it breaks a rule, which is found later."""
    section, _, name = key.partition(".")
    try:
        return config_to_mapping(override(config, {key: value}))[section][name]
    except ConfigError:
        return value


def _check_values(space: SearchSpace, config: Config, check: Callable[[Config], None]) -> None:
    """Tries each value, and each pair, beside the first values of the other settings."""
    single = [
        (key, value)
        for key, setting in space.settings.items()
        for value in setting.values.extremes()
    ]
    for key, value in single:
        _check(space, config, {key: value}, check)
    for (one, value), (other, beside) in itertools.combinations(single, 2):
        if one != other:
            _check(space, config, {one: value, other: beside}, check)


def _check(
    space: SearchSpace, config: Config, tried: dict[str, Any], check: Callable[[Config], None]
) -> None:
    settings = _beside_first_values(space, tried)
    if settings is None:
        return
    try:
        made = override(config, settings)
        output_shape(made.model, made.patches.size)
        check_effects(settings, override(config, _inside(space, settings)))
        check(made)
    except InputError as error:
        values = " with ".join(f"{key}={value}" for key, value in tried.items())
        rule = one_line(error).removesuffix(" (override)")
        raise ConfigError(f"{values} breaks a rule: {rule} ({space.source})") from error


def _inside(space: SearchSpace, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with the middle of each range without steps, of which no trial draws an end."""
    inside = dict(settings)
    for key in settings:
        values = space.settings[key].values
        if isinstance(values, FloatRange) and values.step is None:
            inside[key] = sum(values.float) / 2
    return inside


def _beside_first_values(space: SearchSpace, tried: Mapping[str, Any]) -> dict[str, Any] | None:
    """Settings with some values, conditions met, and the first value of each other one.

    None if the conditions of the values exclude each other.
    """
    forced = dict(tried)
    for key in reversed(space.settings):  # conditions stand before what depends on them
        if key in forced:
            for parent, values in space.settings[key].when.items():
                if forced.setdefault(parent, values[0]) not in values:
                    return None
    settings: dict[str, Any] = {}
    for key, setting in space.settings.items():
        if setting.is_active(settings):
            settings[key] = forced.get(key, setting.values.extremes()[0])
    return settings
