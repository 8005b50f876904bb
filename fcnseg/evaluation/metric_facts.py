"""Presentation of each score in tables and plots: its name, its unit, and which way is better."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Literal

import numpy as np


@dataclasses.dataclass(frozen=True)
class Metric:
    """A score and its presentation.

    Attributes:
        field: Its name in `OrganScores`.
        title: Its name in tables.
        unit: `mm`, `ml`, `%` or nothing.
        best: The best value: high, low, at zero from both sides, or none.
        decimals: Decimals in tables.
    """

    field: str
    title: str
    unit: Literal["mm", "ml", "%", ""]
    best: Literal["high", "low", "zero", "nowhere"]
    decimals: int

    @property
    def heading(self) -> str:
        """Title and unit."""
        return f"{self.title} ({self.unit})" if self.unit else self.title

    def badness(self, value: float) -> float:
        """The badness of a value: larger is worse."""
        return {"high": -value, "low": value, "zero": abs(value), "nowhere": 0.0}[self.best]

    def format(self, value: float | None, *, signed: bool = False) -> str:
        """Formats a value for tables; a dash if there is none."""
        if value is None:
            return "-"
        shown = self.shown(value)
        return f"{shown:{'+' if signed else ''}.{self.decimals}f}"

    def shown(self, value: float) -> float:
        """Converts a value to the unit of the tables."""
        return 100 * value if self.unit == "%" else value


METRICS = {
    metric.field: metric
    for metric in (
        Metric("dice", "Dice", "", "high", 3),
        Metric("iou", "IoU", "", "high", 3),
        Metric("precision", "precision", "", "high", 3),
        Metric("recall", "recall", "", "high", 3),
        Metric("surface_dice", "surface Dice", "", "high", 3),
        Metric("hausdorff_distance_95_mm", "HD95", "mm", "low", 1),
        Metric("hausdorff_distance_mm", "HD", "mm", "low", 1),
        Metric("mean_surface_distance_mm", "mean surface distance", "mm", "low", 2),
        Metric("reference_ml", "reference", "ml", "nowhere", 1),
        Metric("mask_ml", "mask", "ml", "nowhere", 1),
        Metric("volume_difference_ml", "volume difference", "ml", "zero", 1),
        Metric("relative_volume_difference", "volume difference", "%", "zero", 1),
    )
}


@dataclasses.dataclass(frozen=True)
class Summary:
    """One metric of one organ over the cases that have it; None if there are too few.

    Attributes:
        count: Cases that have the score.
        mean: Mean.
        sd: Sample standard deviation, for two or more cases.
        median: Median.
        min: Smallest value.
        max: Largest value.
        worst: Ids of the worst three cases, worst first; empty if neither direction is better.
    """

    count: int
    mean: float | None = None
    sd: float | None = None
    median: float | None = None
    min: float | None = None
    max: float | None = None
    worst: tuple[str, ...] = ()

    @classmethod
    def of(cls, values: Mapping[str, float], metric: Metric) -> Summary:
        """Summarises values by case id."""
        if not values:
            return cls(0)
        numbers = np.array(list(values.values()))
        worst = sorted(values, key=lambda case_id: -metric.badness(values[case_id]))[:3]
        return cls(
            count=len(numbers),
            mean=float(numbers.mean()),
            sd=float(numbers.std(ddof=1)) if len(numbers) > 1 else None,
            median=float(np.median(numbers)),
            min=float(numbers.min()),
            max=float(numbers.max()),
            worst=() if metric.best == "nowhere" else tuple(worst),
        )
