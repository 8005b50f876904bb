"""The search for a configuration whose prediction of the median case fits a time budget."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from typing import Protocol

import numpy as np

from fcnseg.config import Config
from fcnseg.errors import ConfigError
from fcnseg.planning.facts import PlanningFacts
from fcnseg.volumes import Shape, Triple, Zyx
from fcnseg.volumes.tiling import Tiling

_COARSEST_MM = 5.0  # above which thin organs have too few voxels; our own choice


class Stopwatch(Protocol):
    """Measures prediction on this machine."""

    def window_seconds(self, config: Config) -> float:
        """Measures the time of a window in the network of a configuration."""

    def other_seconds(self, config: Config, *, shape: Shape, spacing_mm: Triple) -> float:
        """Measures all else for a file of a shape and a spacing (z, y, x), up to its mask."""


@dataclasses.dataclass(frozen=True)
class CaseTime:
    """Estimated time of the prediction of the median case.

    Attributes:
        windows: Number of windows that cover it; those of air alone are skipped, so it is the
            largest number.
        window_seconds: Time of a window in the network.
        other_seconds: Time of all else: reading, resampling, sums of windows, writing.
    """

    windows: int
    window_seconds: float
    other_seconds: float

    @property
    def seconds(self) -> float:
        """Time of the case."""
        return self.windows * self.window_seconds + self.other_seconds


@dataclasses.dataclass(frozen=True)
class TimedConfig:
    """A configuration with the time that a case takes with it.

    Attributes:
        config: The configuration.
        time: Its time.
        slower: Larger configurations that do not fit, from the largest, with their seconds.
    """

    config: Config
    time: CaseTime
    slower: tuple[tuple[Config, float], ...]


@dataclasses.dataclass(frozen=True)
class TimeBudget:
    """Time budget of the prediction of the median case.

    Attributes:
        seconds_per_case: Largest time.
        stopwatch: Measures the candidates.
        facts: Facts of the dataset.
    """

    seconds_per_case: float
    stopwatch: Stopwatch
    facts: PlanningFacts

    def first_that_fits(self, configs: Iterable[Config]) -> TimedConfig:
        """Finds the first configuration that fits.

        Args:
            configs: At least one, from the largest down.

        Raises:
            ConfigError: If none fits; the message has the smallest time, and a spacing that fits.
        """
        slower: list[tuple[Config, float]] = []
        for config in configs:
            network = self.network_seconds(config)
            seconds = network
            if network <= self.seconds_per_case:  # else the time of all else makes no difference
                time = self._measure(config)
                if time.seconds <= self.seconds_per_case:
                    return TimedConfig(config, time, tuple(slower))
                seconds = time.seconds
            slower.append((config, seconds))
        raise self._refusal(self._fastest(config for config, _ in slower))

    def windows(self, config: Config) -> int:
        """Counts the windows that cover the median case."""
        window = config.patches.size
        tiling = Tiling(window, window, config.inference.overlap)
        return int(tiling.count(self.facts.shape, xp=np))

    def network_seconds(self, config: Config) -> float:
        """Measures the time of all windows."""
        return self.windows(config) * self.stopwatch.window_seconds(config)

    def _measure(self, config: Config) -> CaseTime:
        window_seconds = self.stopwatch.window_seconds(config)
        other_seconds = self.stopwatch.other_seconds(
            config, shape=self.facts.source_shape, spacing_mm=self.facts.source_spacing_mm
        )
        return CaseTime(self.windows(config), window_seconds, other_seconds)

    def _fastest(self, configs: Iterable[Config]) -> Config:
        """Finds the configuration that takes the least time; only those that can are measured."""
        fastest, *others = sorted(configs, key=self.network_seconds)
        least = self._measure(fastest).seconds
        for config in others:
            if self.network_seconds(config) >= least:
                break
            seconds = self._measure(config).seconds
            if seconds < least:
                fastest, least = config, seconds
        return fastest

    def _refusal(self, config: Config) -> ConfigError:
        """The error for a budget below the time of the fastest configuration."""
        time = self._measure(config)
        return ConfigError(
            f"seconds_per_case must be at least {_rounded_up(time.seconds):g}, which the fastest"
            f" network takes for the median case ({config.model.filters[0]} channels at the top,"
            f" {time.windows} windows of {Zyx(config.patches.size):d} voxels,"
            f" {two_digits(time.other_seconds)} s for all else), got {self.seconds_per_case:g}"
            + self._advice(time)
        )

    def _advice(self, time: CaseTime) -> str:
        """Names the spacing at which the windows would fit, if there is one."""
        left = self.seconds_per_case - time.other_seconds
        if left <= 0:
            return ""
        # The number of windows is proportional to that of voxels.
        factor = (time.windows * time.window_seconds / left) ** (1 / 3)
        coarser = Zyx(math.ceil(mm * factor * 10) / 10 for mm in self.facts.spacing_mm)
        if max(coarser) > _COARSEST_MM:
            return ""
        return (
            f": records of {Zyx(self.facts.spacing_mm):g} mm have too many voxels; convert with"
            f" --spacing_mm {' '.join(f'{mm:g}' for mm in coarser)}, then plan again"
        )


def two_digits(number: float) -> str:
    """Formats a positive number, rounded to two digits.

    >>> two_digits(343.2), two_digits(0.0518)
    ('340', '0.052')
    """
    return f"{float(f'{number:.2g}'):g}"


def _rounded_up(seconds: float) -> float:
    """Rounds up to two digits.

    >>> _rounded_up(3.21), _rounded_up(0.0514)
    (3.3, 0.052)
    """
    scale = 10.0 ** (1 - math.floor(math.log10(seconds)))
    return math.ceil(seconds * scale) / scale
