"""Plots of many cases as SVG: a row per organ, a point per case."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from fcnseg.evaluation.metric_facts import Metric
from fcnseg.extras import require_extra
from fcnseg.figures.formats import svg_of
from fcnseg.figures.palette import organ_colour

if TYPE_CHECKING:
    from markupsafe import Markup
    from matplotlib.axes import Axes

Values = Mapping[str, Mapping[str, float]]  # by organ, by case id


def box_plots(panels: Sequence[tuple[Metric, Values]], *, zero_line: bool = False) -> Markup:
    """Draws box plots next to each other, one per metric, with a row per organ.

    Args: Metrics with their values.
        panels: A metric with its values.
        zero_line: Draw a line at zero, as for differences.

    Returns:
        An `<svg>` element, the same for the same values.

    Raises:
        MissingExtraError: If matplotlib or jinja2 is not installed.
    """
    organs = list(panels[0][1])
    figure = require_extra("matplotlib.figure").Figure(
        figsize=(3.1 * len(panels) + 1, 0.42 * len(organs) + 1), layout="constrained"
    )
    all_axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, (metric, values) in zip(all_axes, panels, strict=True):
        _draw(axes, metric, list(values.values()))
        if zero_line or metric.best == "zero":
            axes.axvline(0, color="#5b6b7b", linewidth=0.8, zorder=0)
        elif metric.best == "low":
            axes.set_xlim(left=0)
    all_axes[0].set_yticks(range(len(organs)), organs)
    all_axes[0].invert_yaxis()
    return svg_of(figure)


def _draw(axes: Axes, metric: Metric, organs: Sequence[Mapping[str, float]]) -> None:
    """Draws a box and its cases per organ; the jitter of the points is fixed, not random."""
    for row, by_case in enumerate(organs):
        values = [metric.shown(value) for value in by_case.values()]
        if not values:
            continue
        colour = organ_colour(row + 1)
        axes.boxplot(
            [values],
            positions=[row],
            orientation="horizontal",
            widths=0.6,
            showfliers=False,
            patch_artist=True,
            boxprops={"facecolor": colour, "alpha": 0.25},
            medianprops={"color": "#1c2733", "linewidth": 1.6},
        )
        spread = 0.2 * np.sin(np.arange(len(values)) * 2.4)  # 2.4 rad: the golden angle
        axes.scatter(
            values, row + spread, s=11, color=colour, edgecolors="#1c2733", linewidths=0.4, zorder=3
        )
    axes.set_title(metric.heading, fontsize=10)
    axes.grid(axis="x", color="#e3e8ed")
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(left=False)
