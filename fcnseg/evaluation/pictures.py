"""Pictures of a case: its middle slices with the outlines of truth and mask."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from fcnseg.errors import require_extra
from fcnseg.evaluation.cases import Case
from fcnseg.evaluation.scores import OrganScores
from fcnseg.figures.palette import organ_colour
from fcnseg.figures.slices import SOFT_TISSUE_HU, draw_slices, middle_of, profiles_of
from fcnseg.storage.whole_file import atomic_write
from fcnseg.volumes import Volume, to_canonical

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# A wide pale band with a thin line on it: both are seen, in the organ's colour, even where they run
# together.
_TRUTH_LINE = {"linewidths": 3.5, "alpha": 0.5}
_MASK_LINE = {"linewidths": 1.1}


def draw_case(
    case: Case, scores: Mapping[str, OrganScores], *, place: npt.NDArray[np.intp] | None = None
) -> Figure:
    """Draws three planes.

    Args:
        case: Truth and mask, and the image to lie under them; without one the truth does, in grey.
        scores: By organ, in the order of the class indices; they are told in the legend.
        place: Index (z, y, x) in RAS of the slices; by default those where truth and mask differ
            the most.

    Returns:
        A figure that belongs to no window and no global state.

    Raises:
        MissingExtraError: If matplotlib is not installed.
    """
    truth, mask = to_canonical(case.truth), to_canonical(case.mask)
    under = truth.with_array(truth.array > 0) if case.image is None else to_canonical(case.image)
    figure = draw_slices(
        under,
        [(truth, _TRUTH_LINE), (mask, _MASK_LINE)],
        worst_place(truth, mask) if place is None else place,
        title=case.case_id,
        limits=(0, 2) if case.image is None else SOFT_TISSUE_HU,
    )
    _add_legend(figure, scores)
    return figure


def worst_place(truth: Volume, mask: Volume) -> npt.NDArray[np.intp]:
    """Index (z, y, x) of the slices in which most voxels are wrong; the middle if none is."""
    wrong = truth.array != mask.array
    if not wrong.any():
        return middle_of(truth)
    return np.array([profile.argmax() for profile in profiles_of(wrong)])


def write_picture(case: Case, path: Path, scores: Mapping[str, OrganScores]) -> None:
    """Draws a case into a PNG file."""
    with atomic_write(path) as unfinished:
        draw_case(case, scores).savefig(unfinished, format="png", facecolor="white")


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
