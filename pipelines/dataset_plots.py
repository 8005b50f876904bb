"""Histograms of a dataset as SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from fcnseg.extras import require_extra
from fcnseg.figures.formats import svg_of
from fcnseg.figures.palette import organ_colour
from fcnseg.records.fingerprint import Fingerprint, HuStatistics

from .inspected_dataset import InspectedDataset

if TYPE_CHECKING:
    from markupsafe import Markup
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_GREY, _ORANGE = "#5b6b7b", "#f58231"
_COLUMNS = 4
_SOFT_TISSUE = (-200, 300)  # HU between fat and enhanced vessels


def hu_plot(fingerprint: Fingerprint) -> Markup:
    """Plots HU of all voxels and of organs, over the full range and between fat and vessels."""
    figure, panels = _panels(2, height=2.8)
    for axes, soft_tissue in zip(panels, (False, True), strict=True):
        _hu_line(axes, fingerprint.hu, "all voxels", _GREY)
        if fingerprint.foreground_hu is not None:
            _hu_line(axes, fingerprint.foreground_hu, "organs", _ORANGE)
        axes.set_xlabel("HU")
        axes.set_ylabel(f"% of voxels in {fingerprint.hu.bin_hu} HU")
        if soft_tissue:
            axes.set_xlim(*_SOFT_TISSUE)
        else:
            axes.set_yscale("log")
            axes.legend(frameon=False, fontsize=8)
    return svg_of(figure)


def spacing_plot(fingerprint: Fingerprint) -> Markup:
    """Plots the spacing of the files along each axis."""
    figure, panels = _panels(3, height=2.2)
    spacings = np.array([case.source_spacing_mm for case in fingerprint.cases])
    for axes, side, values in zip(panels, "zyx", spacings.T, strict=True):
        _histogram(axes, values.tolist(), _GREY)
        axes.set_xlabel(f"spacing {side} (mm)")
    return svg_of(figure)


def volume_plot(dataset: InspectedDataset) -> Markup:
    """Plots the volume of each organ in the cases that have it."""
    figure, panels = _panels(len(dataset.organs), height=2.0)
    for index, (axes, organ) in enumerate(zip(panels, dataset.organs, strict=True), start=1):
        voxels = [case.class_voxels[index] for case in dataset.fingerprint.cases]
        volumes = [count * dataset.voxel_ml for count in voxels if count]
        _histogram(axes, volumes, organ_colour(index))
        axes.set_xlabel(f"{organ} (ml)")
    return svg_of(figure)


def _panels(count: int, *, height: float) -> tuple[Figure, list[Axes]]:
    """A figure with so many axes, a few per row."""
    columns = min(count, _COLUMNS)
    rows = math.ceil(count / columns)
    figure: Figure = require_extra("matplotlib.figure").Figure(
        figsize=(max(2.8 * columns, 7), height * rows), layout="constrained"
    )
    panels = figure.subplots(rows, columns, squeeze=False).ravel().tolist()
    for axes in panels[count:]:
        axes.set_axis_off()
    for axes in panels[:count]:
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8)
        axes.xaxis.label.set_size(9)
        axes.yaxis.label.set_size(9)
    return figure, panels[:count]


def _hu_line(axes: Axes, statistics: HuStatistics, name: str, colour: str) -> None:
    counts = np.array(statistics.histogram)
    edges = statistics.first_hu + statistics.bin_hu * np.arange(len(counts) + 1)
    shares = 100 * counts / statistics.voxels
    axes.stairs(shares, edges, label=name, color=colour, fill=False, linewidth=1.2)


def _histogram(axes: Axes, values: Sequence[float], colour: str) -> None:
    """A histogram of cases by value, from zero, so that a spread looks as wide as it is."""
    if values:
        axes.hist(values, bins=40, range=(0, 1.1 * max(values)), color=colour, alpha=0.7)
    axes.set_ylabel("cases")
    ticker = require_extra("matplotlib.ticker")
    axes.yaxis.set_major_locator(ticker.MaxNLocator(4, integer=True))
