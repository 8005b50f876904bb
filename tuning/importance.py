"""The importance of settings: how much of the objective's differences each of them explains."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .trials import Trial

_FEWEST_TRIALS = 6  # with fewer a forest of trees says nothing
BEYOND = 0.05
"""Distance of a value outside the space from the end of its axis, whose length is 1."""


def comparable(trials: Sequence[Trial]) -> list[Trial]:
    """The completed trials of one length: the length that most of them have."""
    completed = [trial for trial in trials if trial.status == "completed"]
    if not completed:
        return []
    lengths = Counter(trial.until_epoch for trial in completed)
    length = max(lengths, key=lambda epochs: (lengths[epochs], epochs))
    return [trial for trial in completed if trial.until_epoch == length]


def importance(
    trials: Sequence[Trial], space: Mapping[str, Mapping[str, Any]], own: Mapping[str, Any]
) -> dict[str, float]:
    """Computes the importance of each setting, with sum 1, the largest first.

    It is the mean decrease of the variance in a forest of regression trees (Breiman 2001).

    Args:
        trials: Trials of a search.
        space: Search space, as `Search.space`.
        own: The base configuration's values of its settings.

    Returns:
        The importance by key; empty if there are too few trials, or all have one objective.
    """
    from sklearn.ensemble import RandomForestRegressor

    chosen = comparable(trials)
    objectives = [trial.objective or 0.0 for trial in chosen]
    if len(chosen) < _FEWEST_TRIALS or max(objectives) == min(objectives):
        return {}
    points = np.array(
        [[place(trial, key, space[key], own) for key in space] for trial in chosen], np.float64
    )
    forest = RandomForestRegressor(n_estimators=200, random_state=0).fit(points, objectives)
    found = dict(zip(space, map(float, forest.feature_importances_), strict=True))
    return dict(sorted(found.items(), key=lambda pair: -pair[1]))


def place(trial: Trial, key: str, values: Mapping[str, Any], own: Mapping[str, Any]) -> float:
    """The place of a trial's value on the axis of a setting.

    Args:
        trial: The trial.
        key: Key of the setting.
        values: Its values, as in `Search.space`.
        own: The base configuration's values, which a trial has where a setting does not apply.

    Returns:
        0 to 1 within the space, and a little below or above it for any other value, None too.
    """
    value = trial.settings.get(key, own[key])
    if "choice" in values:
        known = [json.dumps(each) for each in values["choice"]]
        written = json.dumps(value)
        return known.index(written) / max(1, len(known) - 1) if written in known else -BEYOND
    low, high = values.get("float") or values["int"]
    if value is None or value < low:
        return -BEYOND
    if value > high:
        return 1 + BEYOND
    if values.get("log"):
        return math.log(value / low) / math.log(high / low)
    return float((value - low) / (high - low))
