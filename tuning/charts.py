"""Charts of a search as SVG."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fcnseg.extras import require_extra
from fcnseg.figures.formats import svg_of

from .importance import comparable, place
from .trials import Trial

if TYPE_CHECKING:
    from markupsafe import Markup
    from matplotlib.axes import Axes

_BLUE, _ORANGE, _GREY = "#0b5cad", "#e6781e", "#5b6b7b"


def best_over_time(trials: Sequence[Trial], *, epochs: int, objective: str) -> Markup:
    """Draws the objective of each trial by the time of its end, and the best so far as steps.

    Args:
        trials: Trials of a search.
        epochs: Epochs of a complete training; shorter trials are hollow and do not count.
        objective: Name of the objective.
    """
    ended = sorted(
        (trial for trial in trials if trial.ended and trial.objective is not None),
        key=lambda trial: trial.ended or "",
    )
    begin = min(datetime.datetime.fromisoformat(trial.began) for trial in ended)
    axes = _axes(7.5, 3.2)
    best = -np.inf
    steps: list[tuple[float, float]] = []
    for trial in ended:
        hours = _hours(trial.ended or "", begin)
        is_complete = trial.until_epoch >= epochs
        value = trial.objective or 0.0
        face = _BLUE if is_complete else "none"
        axes.scatter([hours], [value], s=22, facecolors=face, edgecolors=_BLUE, zorder=3)
        if is_complete:
            best = max(best, value)
            steps.append((hours, best))
    if steps:
        axes.step(*zip(*steps, strict=True), where="post", color=_ORANGE)
    axes.set_xlabel("hours since the first trial began")
    axes.set_ylabel(objective)
    return svg_of(axes.figure)  # type: ignore[arg-type]


def importance_bars(importances: Mapping[str, float]) -> Markup:
    """Draws a bar for the importance of each setting."""
    axes = _axes(7.5, 0.32 * len(importances) + 0.8)
    names, values = list(importances), list(importances.values())
    axes.barh(names, values, color=_BLUE)
    axes.invert_yaxis()
    axes.set_xlabel("share of the variance of the objective")
    return svg_of(axes.figure)  # type: ignore[arg-type]


def parallel_coordinates(
    trials: Sequence[Trial],
    space: Mapping[str, Mapping[str, Any]],
    own: Mapping[str, Any],
    *,
    objective: str,
) -> Markup:
    """Draws a line per trial over an axis per setting and one of the objective.

    Args:
        trials: Trials of a search; those of the length that most have are drawn.
        space: Search space, as `Search.space`.
        own: The base configuration's values of its settings.
        objective: Name of the objective.
    """
    chosen = sorted(comparable(trials), key=lambda trial: trial.objective or 0.0)
    values = [trial.objective or 0.0 for trial in chosen]
    low, high = min(values), max(values)
    axes = _axes(max(7.5, 1.5 * (len(space) + 1)), 3.8)
    colours = require_extra("matplotlib").colormaps["viridis"]
    for trial, value in zip(chosen, values, strict=True):
        share = (value - low) / (high - low) if high > low else 1.0
        places = [place(trial, key, space[key], own) for key in space]
        axes.plot([*places, share], color=colours(share), linewidth=0.8 + 1.2 * share)
    for number, key in enumerate(space):
        _ends(axes, number, *_range_of(space[key]))
    _ends(axes, len(space), f"{low:.3f}", f"{high:.3f}")
    names = [key.replace(".", ".\n") for key in space]
    axes.set_xticks(range(len(space) + 1), [*names, objective], fontsize=8)
    axes.set_yticks([])
    axes.set_ylim(-0.15, 1.15)
    axes.grid(axis="x", color="#cfd8e0")
    return svg_of(axes.figure)  # type: ignore[arg-type]


def _range_of(values: Mapping[str, Any]) -> tuple[str, str]:
    ends = values.get("choice") or values.get("float") or values["int"]
    low, high = (_written(end) for end in (ends[0], ends[-1]))
    return low, high


def _written(value: Any) -> str:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return f"{value:g}" if is_number else json.dumps(value)


def _ends(axes: Axes, number: int, low: str, high: str) -> None:
    style: dict[str, Any] = {"ha": "center", "fontsize": 7, "color": _GREY}
    axes.text(number, -0.08, low, va="top", **style)
    axes.text(number, 1.08, high, va="bottom", **style)


def _axes(width: float, height: float) -> Axes:
    """Axes of a new figure, in inches."""
    figure = require_extra("matplotlib.figure").Figure(
        figsize=(width, height), layout="constrained"
    )
    axes: Axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#e3e8ed")
    axes.set_axisbelow(True)
    return axes


def _hours(time: str, begin: datetime.datetime) -> float:
    return (datetime.datetime.fromisoformat(time) - begin).total_seconds() / 3600
