"""Three orthogonal slices through a volume, with outlines, in the radiological convention."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fcnseg.extras import require_extra
from fcnseg.figures.palette import organ_colour
from fcnseg.volumes import Volume

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SOFT_TISSUE_HU = (-160, 240)  # the usual window of abdominal CT: level 40, width 400
_IGNORED = "white"  # outline of ignored voxels (`LabelMap.ignore_label`)
_PANEL_INCHES = 3.4  # height of the tallest of the three
_LETTER: Mapping[str, Any] = {
    "color": "white",
    "fontsize": 8,
    "bbox": {"facecolor": "black", "alpha": 0.45, "linewidth": 0, "pad": 1.2},  # legible on bone
}


@dataclasses.dataclass(frozen=True)
class View:
    """One plane through a volume in RAS.

    Attributes:
        name: Radiological name.
        axis: The axis of (z, y, x) that is cut.
        edges: Anatomical direction at its left, right, upper and lower edge: patient's right and
            left, anterior and posterior, superior and inferior.
    """

    name: str
    axis: int
    edges: tuple[str, str, str, str]

    def cut(self, volume: Volume, centre: npt.NDArray[np.intp]) -> npt.NDArray[Any]:
        """The slice through `centre` (z, y, x), oriented for display.

        Superior, or in the axial plane anterior, is up; the patient's right, or in the sagittal
        plane anterior, is on the left.
        """
        return np.take(volume.array, centre[self.axis], axis=self.axis)[::-1, ::-1]

    def size_mm(self, volume: Volume) -> tuple[float, float]:
        """Height and width of the slice."""
        extent = np.multiply(volume.shape, volume.spacing)
        height, width = np.delete(extent, self.axis)
        return float(height), float(width)


VIEWS = (
    View("axial", 0, ("R", "L", "A", "P")),
    View("coronal", 1, ("R", "L", "S", "I")),
    View("sagittal", 2, ("A", "P", "S", "I")),
)


def draw_slices(
    under: Volume,
    outlines: Sequence[tuple[Volume, Mapping[str, Any]]],
    centre: npt.NDArray[np.intp],
    *,
    title: str,
    limits: tuple[float, float] = SOFT_TISSUE_HU,
) -> Figure:
    """Draws three planes through a point.

    Args:
        under: Background volume of the outlines, in RAS.
        outlines: Volumes of class indices on the same grid, each with its line style.
        centre: The point, as index (z, y, x).
        title: Title above all three.
        limits: Values that are black and white.

    Returns:
        A figure that belongs to no window and no global state.

    Raises:
        MissingExtraError: If matplotlib is not installed.
    """
    heights, widths = zip(*(view.size_mm(under) for view in VIEWS), strict=True)
    inches = _PANEL_INCHES / max(heights)  # of paper for a millimetre
    figure: Figure = require_extra("matplotlib.figure").Figure(
        figsize=(inches * sum(widths), _PANEL_INCHES + 0.8), dpi=145, layout="constrained"
    )
    panels = figure.subplots(1, len(VIEWS), width_ratios=widths)
    for view, axes, height, width in zip(VIEWS, panels, heights, widths, strict=True):
        pixels = view.cut(under, centre)
        square = (height / pixels.shape[0]) / (width / pixels.shape[1])
        axes.imshow(pixels, cmap="gray", vmin=limits[0], vmax=limits[1], aspect=square)
        for classes, line in outlines:
            _outline(axes, view.cut(classes, centre), line)
        place, count = centre[view.axis] + 1, under.shape[view.axis]
        axes.set_title(f"{view.name} {place}/{count}", fontsize=9)
        axes.set_axis_off()
        _name_edges(axes, view)
    figure.suptitle(title, fontsize=11)
    return figure


def add_legend(
    figure: Figure, organs: Mapping[int, str], lines: Mapping[str, Mapping[str, Any]] | None = None
) -> None:
    """Adds a legend below the slices, unless it would be empty.

    Args:
        figure: Figure from `draw_slices`.
        organs: Display names by class index.
        lines: Line styles by name of outline, as `draw_slices` takes them.
    """
    line = require_extra("matplotlib.lines").Line2D
    handles = [
        line([], [], color="grey", lw=look["linewidths"], alpha=look.get("alpha"), label=name)
        for name, look in (lines or {}).items()
    ]
    handles += [
        line([], [], color=organ_colour(index), lw=3, label=label)
        for index, label in organs.items()
    ]
    if handles:
        figure.legend(
            handles=handles, loc="outside lower center", ncols=9, fontsize=8, frameon=False
        )


def middle_of(label: Volume) -> npt.NDArray[np.intp]:
    """Index (z, y, x) of the centre of all labels, or of the volume if there are none."""
    labelled = label.array > 0
    if not labelled.any():
        return np.array(label.shape) // 2
    profiles = profiles_of(labelled)
    return np.array([round(np.average(np.arange(p.size), weights=p)) for p in profiles])


def profiles_of(voxels: npt.NDArray[np.bool_]) -> list[npt.NDArray[np.intp]]:
    """Number of True voxels in each slice, along z, y and x."""
    return [np.count_nonzero(voxels, axis=others) for others in ((1, 2), (0, 2), (0, 1))]


def _outline(axes: Axes, classes: npt.NDArray[Any], line: Mapping[str, Any]) -> None:
    if min(classes.shape) < 2:  # a slice of a single row of voxels has no outline
        return
    sizes = np.bincount(classes.ravel())
    for index in np.argsort(-sizes, kind="stable"):  # a vessel in the liver is drawn on top
        if index > 0 and 0 < sizes[index] < classes.size:
            colour = _IGNORED if index == np.iinfo(classes.dtype).max else organ_colour(int(index))
            axes.contour(classes == index, [0.5], colors=colour, **line)


def _name_edges(axes: Axes, view: View) -> None:
    places = ((0.02, 0.5), (0.98, 0.5), (0.5, 0.98), (0.5, 0.02))
    aligned = (("left", "center"), ("right", "center"), ("center", "top"), ("center", "bottom"))
    for letter, (x, y), (across, along) in zip(view.edges, places, aligned, strict=True):
        axes.text(x, y, letter, transform=axes.transAxes, ha=across, va=along, **_LETTER)
