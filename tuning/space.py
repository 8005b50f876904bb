"""The search space: the settings to search, and their values."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import keras_tuner
import pydantic

from fcnseg.config import Config, override
from fcnseg.errors import ConfigError, InputError, first_finding, one_line
from fcnseg.storage.yaml_json import read_yaml

_STRICT = pydantic.ConfigDict(extra="forbid")


class Values(Protocol):
    """The possible values of one setting."""

    def register(self, parameters: keras_tuner.HyperParameters, key: str) -> None:
        """Adds the setting to the tuner's hyperparameters."""

    def decode(self, drawn: Any) -> Any:
        """Converts the tuner's value to the setting's."""

    def extremes(self) -> Sequence[Any]:
        """Gives values that are all in range if every value is."""


@pydantic.dataclasses.dataclass(frozen=True, config=_STRICT)
class Choice:
    """One of a list of values of any kind, unordered."""

    choice: list[Any]

    def __post_init__(self) -> None:
        if not self.choice:
            raise ValueError("choice must list at least one value")
        try:
            json.dumps(self.choice)
        except TypeError as error:  # a date of YAML's, or a set
            raise ValueError(f"choice must list numbers, words and lists: {error}") from error

    def register(self, parameters: keras_tuner.HyperParameters, key: str) -> None:
        """Adds the setting; KerasTuner does not support lists, so it gets each value as JSON."""
        parameters.Choice(key, [json.dumps(value) for value in self.choice])

    def decode(self, drawn: str) -> Any:
        """Decodes the JSON value."""
        return json.loads(drawn)

    def extremes(self) -> Sequence[Any]:
        """Gives all values."""
        return self.choice


@pydantic.dataclasses.dataclass(frozen=True, config=_STRICT)
class FloatRange:
    """A number from a range, uniform, or uniform in its logarithm."""

    float: tuple[pydantic.FiniteFloat, pydantic.FiniteFloat]
    log: bool = False

    def __post_init__(self) -> None:
        _check_range("float", *self.float)
        if self.log and self.float[0] <= 0:
            raise ValueError(f"float must be above 0 where log is true, got {list(self.float)}")

    def register(self, parameters: keras_tuner.HyperParameters, key: str) -> None:
        """Adds the setting."""
        parameters.Float(key, *self.float, sampling="log" if self.log else "linear")

    def decode(self, drawn: Any) -> Any:
        """Returns the value unchanged."""
        return drawn

    def extremes(self) -> Sequence[Any]:
        """Gives both ends."""
        return self.float


@pydantic.dataclasses.dataclass(frozen=True, config=_STRICT)
class IntRange:
    """An integer from a range, both ends included, in steps."""

    int: tuple[pydantic.StrictInt, pydantic.StrictInt]
    step: pydantic.PositiveInt = 1

    def __post_init__(self) -> None:
        _check_range("int", *self.int)

    def register(self, parameters: keras_tuner.HyperParameters, key: str) -> None:
        """Adds the setting."""
        parameters.Int(key, *self.int, step=self.step)

    def decode(self, drawn: Any) -> Any:
        """Returns the value unchanged."""
        return drawn

    def extremes(self) -> Sequence[Any]:
        """Gives both ends."""
        return self.int


_KINDS: dict[str, type] = {"choice": Choice, "float": FloatRange, "int": IntRange}


@dataclasses.dataclass(frozen=True)
class SearchSpace:
    """Values by dotted key of the configuration.

    Attributes:
        values: Values by key, as in `{"training.learning_rate": FloatRange((1e-4, 1e-2),
            log=True)}`.
    """

    values: dict[str, Values]

    @classmethod
    def read(cls, path: Path) -> SearchSpace:
        """Reads a search space from YAML.

        Each dotted key has one of `{choice: [...]}`, `{float: [low, high], log: true}` and
        `{int: [low, high], step: 8}`.

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
        return cls({key: _parse(key, value, source=path) for key, value in content.items()})

    def check(self, config: Config) -> None:
        """Checks that each key and each single value fits the configuration.

        Raises:
            ConfigError: If one does not.
        """
        for key, values in self.values.items():
            for value in values.extremes():
                override(config, {key: value})

    def hyperparameters(self) -> keras_tuner.HyperParameters:
        """Makes the space as KerasTuner's hyperparameters."""
        parameters = keras_tuner.HyperParameters()
        for key, values in self.values.items():
            values.register(parameters, key)
        return parameters

    def settings(self, drawn: Mapping[str, Any]) -> dict[str, Any]:
        """Converts KerasTuner's values to settings by dotted key, as `override` takes them."""
        return {key: values.decode(drawn[key]) for key, values in self.values.items()}


def _parse(key: str, content: Any, *, source: Path) -> Values:
    kinds = set(content) & set(_KINDS) if isinstance(content, dict) else set()
    if len(kinds) != 1:
        raise ConfigError(
            f"{key} must have one of {', '.join(_KINDS)}, got {content!r} (search space {source})"
        )
    try:
        values: Values = pydantic.TypeAdapter(_KINDS[kinds.pop()]).validate_python(content)
    except pydantic.ValidationError as error:
        raise ConfigError(f"{key}: {first_finding(error)} (search space {source})") from error
    return values


def _check_range(kind: Literal["float", "int"], low: float, high: float) -> None:
    if not low < high:
        raise ValueError(f"{kind} must be [low, high] with low < high, got [{low}, {high}]")
