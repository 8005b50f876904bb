"""The search space: the settings to search, their values and their conditions."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

import keras_tuner
import pydantic
from keras_tuner.src.engine.conditions import Parent

from fcnseg.config import Config, config_to_mapping
from fcnseg.errors import ConfigError, InputError, first_finding, one_line
from fcnseg.storage.yaml_json import read_yaml

_STRICT = pydantic.ConfigDict(extra="forbid")
_WHEN = "when"
_MOST_STEPS = 100_000  # a list of them is made in about a tenth of a second
_ROUNDING = 1e-8  # of a step: as much as the upper end may be missed by


def _not_a_flag(value: object) -> object:
    """Refuses true and false, which pydantic takes for 1 and 0."""
    if isinstance(value, bool):
        raise ValueError(f"must be a number, got {value}")
    return value


# A text too, as YAML reads 1e-3 as one.
_Number = Annotated[pydantic.FiniteFloat, pydantic.BeforeValidator(_not_a_flag)]

_Integer = Annotated[pydantic.StrictInt, pydantic.Field(ge=-(2**63), lt=2**63)]  # TensorFlow's


class Values(Protocol):
    """The possible values of one setting."""

    def register(self, parameters: keras_tuner.HyperParameters, key: str) -> None:
        """Adds the setting to the tuner's hyperparameters."""

    def encode(self, value: Any) -> Any:
        """Converts the setting's value to the tuner's; None if it is not among the values."""

    def decode(self, drawn: Any) -> Any:
        """Converts the tuner's value to the setting's."""

    def extremes(self) -> Sequence[Any]:
        """Gives values that are all in range if every value is."""

    def all_values(self) -> Sequence[Any] | None:
        """Gives every value; None if there is no end of them."""


@pydantic.dataclasses.dataclass(frozen=True, config=_STRICT)
class Choice:
    """One of a list of values of any kind, unordered."""

    choice: Annotated[list[Any], pydantic.Strict()]  # a set of YAML's has no order

    def __post_init__(self) -> None:
        if not self.choice:
            raise ValueError("choice must list at least one value")
        try:
            written = [json.dumps(value) for value in self.choice]
        except TypeError as error:  # a date of YAML's, or a set
            raise ValueError(f"choice must list numbers, words and lists: {error}") from error
        for value in written:
            if written.count(value) > 1:
                raise ValueError(f"choice must list each value once, got {value} again")

    def register(self, parameters: keras_tuner.HyperParameters, key: str) -> None:
        """Adds the setting; KerasTuner does not support lists, so it gets each value as JSON."""
        parameters.Choice(key, [json.dumps(value) for value in self.choice])

    def encode(self, value: Any) -> Any:
        """Encodes the value as JSON."""
        return json.dumps(value) if value in self.choice else None

    def decode(self, drawn: str) -> Any:
        """Decodes the JSON value."""
        return json.loads(drawn)

    def extremes(self) -> Sequence[Any]:
        """Gives all values."""
        return self.choice

    def all_values(self) -> Sequence[Any]:
        """Gives all values."""
        return self.choice


@pydantic.dataclasses.dataclass(frozen=True, config=_STRICT)
class FloatRange:
    """A number from a range, uniform, or uniform in its logarithm; with a step, one of a grid."""

    float: tuple[_Number, _Number]
    log: pydantic.StrictBool = False
    step: _Number | None = None

    def __post_init__(self) -> None:
        _check_range("float", *self.float, log=self.log, step=self.step)

    def register(self, parameters: keras_tuner.HyperParameters, key: str) -> None:
        """Adds the setting; with a step, the index of its value."""
        values = self.all_values()
        if values is None:
            parameters.Float(key, *self.float, sampling="log" if self.log else "linear")
        else:
            _register_index(parameters, key, values)

    def encode(self, value: Any) -> Any:
        """Returns a value of the range; with a step, its index."""
        values = self.all_values()
        if values is not None:
            return _index_in(values, value)
        return value if self.float[0] <= value <= self.float[1] else None

    def decode(self, drawn: Any) -> Any:
        """Returns the value; with a step, that of an index."""
        values = self.all_values()
        return drawn if values is None else values[int(drawn)]

    def extremes(self) -> Sequence[Any]:
        """Gives both ends."""
        values = self.all_values() or self.float
        return [values[0], values[-1]]

    def all_values(self) -> Sequence[Any] | None:
        """Gives the values of the grid; None without a step."""
        return None if self.step is None else _stepped(*self.float, step=self.step, log=self.log)


@pydantic.dataclasses.dataclass(frozen=True, config=_STRICT)
class IntRange:
    """An integer from a range, both ends included, in steps."""

    int: tuple[_Integer, _Integer]
    log: pydantic.StrictBool = False
    step: Annotated[pydantic.StrictInt, pydantic.Field(gt=0)] | None = None

    def __post_init__(self) -> None:
        _check_range("int", *self.int, log=self.log, step=self.step)

    def register(self, parameters: keras_tuner.HyperParameters, key: str) -> None:
        """Adds the setting; with a step, the index of its value."""
        if self.step is None:
            parameters.Int(key, *self.int, sampling="log" if self.log else "linear")
        else:
            _register_index(parameters, key, self.all_values())

    def encode(self, value: Any) -> Any:
        """Returns a value of the range; with a step, its index."""
        values = self.all_values()
        if self.step is not None:
            return _index_in(values, value)
        return value if value in values else None

    def decode(self, drawn: Any) -> Any:
        """Returns the value; with a step, that of an index."""
        return int(drawn) if self.step is None else self.all_values()[int(drawn)]

    def extremes(self) -> Sequence[Any]:
        """Gives both ends."""
        values = self.all_values()
        return [values[0], values[-1]]

    def all_values(self) -> Sequence[Any]:
        """Gives every value."""
        if self.log and self.step:
            return _stepped(*self.int, step=self.step, log=True)
        return range(self.int[0], self.int[1] + 1, self.step or 1)


_KINDS: dict[str, type] = {"choice": Choice, "float": FloatRange, "int": IntRange}


@dataclasses.dataclass(frozen=True)
class Setting:
    """A setting to search.

    Attributes:
        values: Its possible values.
        when: For each other key, the values with which this one applies; without them it keeps the
            value of the base configuration.
    """

    values: Values
    when: dict[str, list[Any]] = dataclasses.field(default_factory=dict)

    def is_active(self, settings: Mapping[str, Any]) -> bool:
        """Tells whether the setting applies beside others."""
        return all(key in settings and settings[key] in values for key, values in self.when.items())


@dataclasses.dataclass(frozen=True)
class SearchSpace:
    """Settings by dotted key of the configuration.

    Attributes:
        settings: The settings by key, each after those of its conditions.
        source: The file, for errors.
    """

    settings: dict[str, Setting]
    source: str = "search space"

    @classmethod
    def read(cls, path: Path) -> SearchSpace:
        """Reads a search space from YAML.

        Each dotted key has one of `{choice: [...]}`, `{float: [low, high], log: true}` and `{int:
        [low, high], step: 8}`, and may have conditions, `when: {loss.name: tversky}`.

        Raises:
            ConfigError: If the file is missing, not of this form, or breaks a rule.
        """
        try:
            content = read_yaml(path)
        except (OSError, InputError) as error:
            raise ConfigError(f"search space {path} cannot be read: {one_line(error)}") from error
        if not isinstance(content, dict) or not content:
            raise ConfigError(f"search space {path} must map dotted keys to values")
        if other := [key for key in content if not isinstance(key, str)]:
            raise ConfigError(f"search space {path} must have dotted keys, got {other[0]!r}")
        source = f"search space {path}"
        settings = {key: _parse(key, value, source) for key, value in content.items()}
        return cls(_ordered(settings, source), source)

    def hyperparameters(self) -> keras_tuner.HyperParameters:
        """Makes the space as KerasTuner's hyperparameters, with their conditions."""
        parameters = keras_tuner.HyperParameters()
        for key, setting in self.settings.items():
            alone = keras_tuner.HyperParameters()
            setting.values.register(alone, key)
            # A scope of KerasTuner's takes one parent, and that one must have no condition itself.
            for parameter in alone.space:
                parameter.conditions = [
                    Parent(parent, list(map(self.settings[parent].values.encode, values)))
                    for parent, values in setting.when.items()
                ]
            parameters.merge(alone)
        return parameters

    def decoded(self, drawn: Mapping[str, Any]) -> dict[str, Any]:
        """Converts KerasTuner's values to settings by dotted key, as `override` takes them."""
        return {
            key: setting.values.decode(drawn[key])
            for key, setting in self.settings.items()
            if key in drawn
        }

    def encoded(self, config: Config) -> dict[str, Any] | None:
        """Converts a configuration's values to KerasTuner's; None if one is not in the space."""
        own = self.own_values(config)
        settings: dict[str, Any] = {}
        drawn: dict[str, Any] = {}
        for key, setting in self.settings.items():
            if setting.is_active(settings):
                settings[key] = own[key]
                drawn[key] = setting.values.encode(own[key])
        return None if None in drawn.values() else drawn

    def own_values(self, config: Config) -> dict[str, Any]:
        """Gives the values that a configuration has for the settings of the space."""
        mapping = config_to_mapping(config)
        return {key: _value_of(mapping, key) for key in self.settings}

    def combinations(self) -> Iterator[dict[str, Any]]:
        """Gives all settings there are, the last key changing first, as `override` takes them.

        Raises:
            ConfigError: If there is no end of them.
        """
        for key, setting in self.settings.items():
            if setting.values.all_values() is None:
                raise ConfigError(f"{key} must have a step to be finite ({self.source})")
        return self._combinations(list(self.settings), {})

    def _combinations(
        self, keys: Sequence[str], chosen: dict[str, Any]
    ) -> Iterator[dict[str, Any]]:
        if not keys:
            yield chosen
        elif not self.settings[keys[0]].is_active(chosen):
            yield from self._combinations(keys[1:], chosen)
        else:
            for value in self.settings[keys[0]].values.all_values() or ():
                yield from self._combinations(keys[1:], {**chosen, keys[0]: value})

    def is_finite(self, *, most: int) -> bool:
        """Tells whether there are at most so many settings."""
        if any(setting.values.all_values() is None for setting in self.settings.values()):
            return False
        return sum(1 for _ in itertools.islice(self.combinations(), most + 1)) <= most

    def encode(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Converts settings of the space to KerasTuner's values."""
        return {key: self.settings[key].values.encode(value) for key, value in settings.items()}

    def to_mapping(self) -> dict[str, Any]:
        """The space as JSON has it, for comparison."""
        content = {
            key: dataclasses.asdict(setting.values)  # type: ignore[call-overload]
            | ({_WHEN: setting.when} if setting.when else {})
            for key, setting in self.settings.items()
        }
        mapping: dict[str, Any] = json.loads(json.dumps(content))
        return mapping


def _value_of(mapping: Mapping[str, Any], key: str) -> Any:
    section, name = key.split(".")
    return mapping[section][name]


def _parse(key: str, content: Any, source: str) -> Setting:
    kinds = set(content) & set(_KINDS) if isinstance(content, dict) else set()
    if len(kinds) != 1:
        raise ConfigError(f"{key} must have one of {', '.join(_KINDS)}, got {content!r} ({source})")
    values = {name: value for name, value in content.items() if name != _WHEN}
    when = content.get(_WHEN, {})
    if not isinstance(when, dict) or (_WHEN in content and not when):
        raise ConfigError(f"{key}: when must map keys to values, got {when!r} ({source})")
    try:
        parsed: Values = pydantic.TypeAdapter(_KINDS[kinds.pop()]).validate_python(values)
    except pydantic.ValidationError as error:
        raise ConfigError(f"{key}: {first_finding(error)} ({source})") from error
    listed = {
        parent: value if isinstance(value, list) else [value] for parent, value in when.items()
    }
    return Setting(parsed, listed)


def _ordered(settings: dict[str, Setting], source: str) -> dict[str, Setting]:
    """Sorts settings behind those of their conditions, which KerasTuner needs.

    Raises:
        ConfigError: If a condition is not on a setting with choices, or one waits for itself.
    """
    for key, setting in settings.items():
        for parent, values in setting.when.items():
            _check_condition(key, parent, values, settings, source)
    found: dict[str, Setting] = {}
    while len(found) < len(settings):
        ready = {
            key: setting
            for key, setting in settings.items()
            if key not in found and found.keys() >= setting.when.keys()
        }
        if not ready:
            waiting = ", ".join(key for key in settings if key not in found)
            raise ConfigError(f"when must not form a circle, got that of {waiting} ({source})")
        found |= ready
    return found


def _check_condition(
    key: str, parent: object, values: Sequence[Any], settings: Mapping[str, Setting], source: str
) -> None:
    other = settings[parent].values if isinstance(parent, str) and parent in settings else None
    if not isinstance(other, Choice):
        raise ConfigError(
            f"{key}: when must name settings of the space that have choice, got {parent!r}"
            f" ({source})"
        )
    if not values:
        raise ConfigError(f"{key}: when must have values of {parent}, got none ({source})")


def _check_range(
    kind: Literal["float", "int"], low: float, high: float, *, log: bool, step: float | None
) -> None:
    if not low < high:
        raise ValueError(f"{kind} must be [low, high] with low < high, got [{low}, {high}]")
    if log and low <= 0:
        raise ValueError(f"{kind} must be above 0 where log is true, got [{low}, {high}]")
    if not _is_finite_width(low, high, log=log):
        raise ValueError(f"{kind} must be a range with finite width, got [{low}, {high}]")
    if step is None:
        return
    if log and not 1 < step <= high / low:
        raise ValueError(
            f"step must be a factor above 1 and at most {high / low:g} where log is true,"
            f" got {step}"
        )
    if not log and not 0 < step <= high - low:
        raise ValueError(f"step must be above 0 and at most {high - low:g}, got {step}")
    if (steps := _steps_between(low, high, step=step, log=log)) >= _MOST_STEPS:
        raise ValueError(f"step must give at most {_MOST_STEPS} values, got {step}: {steps:.0g}")


def _is_finite_width(low: float, high: float, *, log: bool) -> bool:
    """Tells whether KerasTuner can draw from a range: by its difference, or its ratio."""
    try:
        return math.isfinite(high / low if log else float(high) - low)
    except OverflowError:  # of integers
        return False


def _steps_between(low: float, high: float, *, step: float, log: bool) -> float:
    """The number of steps from one end of a range to the other, not rounded."""
    return (math.log(high) - math.log(low)) / math.log(step) if log else (high - low) / step


@functools.lru_cache
def _stepped(low: float, high: float, *, step: float, log: bool) -> tuple[float, ...]:
    """The values of a range with a step.

    KerasTuner computes them in binary, where 3 times 0.1 is not 0.3, and leaves out the upper end
    where the sum of the steps is above it.
    """
    count = int(_steps_between(low, high, step=step, log=log) + _ROUNDING) + 1
    first, each = Decimal(repr(low)), Decimal(repr(step))
    exact = (first * each**index if log else first + index * each for index in range(1, count))
    if isinstance(low, int):
        return (low, *map(int, exact))
    return (low, *(min(high, float(f"{value:.14g}")) for value in exact))


def _register_index(
    parameters: keras_tuner.HyperParameters, key: str, values: Sequence[Any]
) -> None:
    parameters.Int(key, 0, len(values) - 1)


def _index_in(values: Sequence[Any], value: Any) -> int | None:
    return values.index(value) if value in values else None
