"""Pictures of a case: its middle slices with the outlines of truth and mask."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fcnseg.errors import require_extra
from fcnseg.evaluation.cases import Case
from fcnseg.evaluation.palette import organ_colour
from fcnseg.evaluation.scores import OrganScores
from fcnseg.volumes import Volume, to_canonical

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SOFT_TISSUE_HU = (-160, 240)  # the usual window of abdominal CT: level 40, width 400
_PANEL_INCHES = 3.4  # height of the tallest of the three
# A wide pale band with a thin line on it: both are seen, in the organ's colour, even where they run
# together.
_TRUTH_LINE = {"linewidths": 3.5, "alpha": 0.5}
_MASK_LINE = {"linewidths": 1.1}


@dataclasses.dataclass(frozen=True)
class View:
    """One plane through a volume in RAS.

    Attributes:
        name: As radiologists call it.
        axis: The axis of (z, y, x) that is cut.
    """

    name: str
    axis: int

    def cut(self, volume: Volume, centre: npt.NDArray[np.intp]) -> npt.NDArray[Any]:
        """The slice through `centre` (z, y, x), turned as it is looked at.

        Superior, or in the axial plane anterior, is up; the patient's right, or in the sagittal
        plane anterior, is on the left.
        """
        return np.take(volume.array, centre[self.axis], axis=self.axis)[::-1, ::-1]

    def size_mm(self, volume: Volume) -> tuple[float, float]:
        """Height and width of the slice."""
        extent = np.multiply(volume.shape, volume.spacing)
        height, width = np.delete(extent, self.axis)
        return float(height), float(width)


VIEWS = (View("axial", 0), View("coronal", 1), View("sagittal", 2))


def draw_case(case: Case, scores: Mapping[str, OrganScores]) -> Figure:
    """Draws three planes, in each the slice where truth and mask differ the most.

    Args:
        case: Truth and mask, and the image to lie under them; without one the truth does, in grey.
        scores: By organ, in the order of the class indices; they are told in the legend.

    Returns:
        A figure that belongs to no window and no global state.

    Raises:
        MissingExtraError: If matplotlib is not installed.
    """
    truth, mask = to_canonical(case.truth), to_canonical(case.mask)
    under = truth.with_array(truth.array > 0) if case.image is None else to_canonical(case.image)
    limits = (0, 2) if case.image is None else SOFT_TISSUE_HU
    centre = worst_place(truth, mask)
    heights, widths = zip(*(view.size_mm(truth) for view in VIEWS), strict=True)
    inches = _PANEL_INCHES / max(heights)  # of paper for a millimetre
    figure: Figure = require_extra("matplotlib.figure", "evaluation").Figure(
        figsize=(inches * sum(widths), _PANEL_INCHES + 0.8), dpi=145, layout="constrained"
    )
    panels = figure.subplots(1, len(VIEWS), width_ratios=widths)
    for view, axes, height, width in zip(VIEWS, panels, heights, widths, strict=True):
        pixels = view.cut(under, centre)
        square = (height / pixels.shape[0]) / (width / pixels.shape[1])
        axes.imshow(pixels, cmap="gray", vmin=limits[0], vmax=limits[1], aspect=square)
        for classes, line in ((truth, _TRUTH_LINE), (mask, _MASK_LINE)):
            _outline(axes, view.cut(classes, centre), len(scores) + 1, line)
        place, count = centre[view.axis] + 1, truth.shape[view.axis]
        axes.set_title(f"{view.name} {place}/{count}", fontsize=9)
        axes.set_axis_off()
    figure.suptitle(case.case_id, fontsize=11)
    _add_legend(figure, scores)
    return figure


def worst_place(truth: Volume, mask: Volume) -> npt.NDArray[np.intp]:
    """Index (z, y, x) of the slices in which most voxels are wrong; the middle if none is."""
    wrong = truth.array != mask.array
    if not wrong.any():
        return middle_of(truth)
    return np.array([profile.argmax() for profile in _profiles(wrong)])


def middle_of(truth: Volume) -> npt.NDArray[np.intp]:
    """Index (z, y, x) of the centre of all labels, or of the volume where there is none."""
    labelled = truth.array > 0
    if not labelled.any():
        return np.array(truth.shape) // 2
    profiles = _profiles(labelled)
    return np.array([round(np.average(np.arange(p.size), weights=p)) for p in profiles])


def _profiles(voxels: npt.NDArray[np.bool_]) -> list[npt.NDArray[np.intp]]:
    """How many voxels are True in each slice, along z, y and x."""
    return [np.count_nonzero(voxels, axis=others) for others in ((1, 2), (0, 2), (0, 1))]


def write_picture(case: Case, path: Path, scores: Mapping[str, OrganScores]) -> None:
    """Draws a case into a PNG file."""
    draw_case(case, scores).savefig(path, format="png", facecolor="white")


def _outline(
    axes: Axes, classes: npt.NDArray[Any], num_classes: int, line: Mapping[str, Any]
) -> None:
    sizes = np.bincount(classes.ravel(), minlength=num_classes)
    for index in np.argsort(-sizes, kind="stable"):  # a vessel in the liver lies on top
        if index > 0 and 0 < sizes[index] < classes.size:
            axes.contour(classes == index, [0.5], colors=organ_colour(int(index)), **line)


def _add_legend(figure: Figure, scores: Mapping[str, OrganScores]) -> None:
    line = require_extra("matplotlib.lines", "evaluation").Line2D
    handles = [
        line([], [], color="grey", lw=3.5, alpha=0.5, label="truth"),
        line([], [], color="grey", lw=1.1, label="mask"),
    ]
    for index, (organ, score) in enumerate(scores.items(), start=1):
        label = organ if score.dice is None else f"{organ} {score.dice:.2f}"
        handles.append(line([], [], color=organ_colour(index), lw=3, label=label))
    figure.legend(handles=handles, loc="outside lower center", ncols=9, fontsize=8, frameon=False)
