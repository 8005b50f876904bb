"""Pictures of a case: slices with the outlines of reference and mask, and the Dice of organs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from fcnseg.evaluation.cases import CaseVolumes
from fcnseg.evaluation.scores import OrganScores
from fcnseg.figures.formats import png_of
from fcnseg.figures.overlay import draw_overlay
from fcnseg.storage.whole_file import atomic_write

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_case(
    case: CaseVolumes,
    scores: Mapping[str, OrganScores],
    *,
    place: npt.NDArray[np.intp] | None = None,
) -> Figure:
    """Draws three planes; see `fcnseg.figures.overlay.draw_overlay`.

    Args:
        case: Reference and mask, and the background image; without image, the reference is the
            background.
        scores: By organ, in the order of the class indices; the legend shows their Dice.
        place: Index (z, y, x) in RAS of the slices; by default those where reference and mask
            differ most.

    Raises:
        MissingExtraError: If matplotlib is not installed.
    """
    dice = {organ: score.dice for organ, score in scores.items()}
    return draw_overlay(
        case.reference, case.mask, case.image, title=case.case_id, dice=dice, place=place
    )


def write_picture(case: CaseVolumes, path: Path, scores: Mapping[str, OrganScores]) -> None:
    """Draws a case into a PNG file."""
    with atomic_write(path) as unfinished:
        unfinished.write_bytes(png_of(draw_case(case, scores)))
