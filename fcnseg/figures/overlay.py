"""Reference and mask of a case as outlines on its image."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from fcnseg.figures.slices import SOFT_TISSUE_HU, add_legend, draw_slices, middle_of, profiles_of
from fcnseg.volumes import Volume, to_canonical

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# A wide pale band with a thin line on it: both are visible, in the organ's colour, even where they
# coincide.
_REFERENCE_LINE = {"linewidths": 3.5, "alpha": 0.5}
_MASK_LINE = {"linewidths": 1.1}


def draw_overlay(
    reference: Volume,
    mask: Volume,
    image: Volume | None,
    *,
    title: str,
    dice: Mapping[str, float | None],
    place: npt.NDArray[np.intp] | None = None,
) -> Figure:
    """Draws three planes.

    Args:
        reference: Class indices.
        mask: Class indices on the same grid.
        image: HU of the background image; without it, the reference in grey is the background.
        title: Title above all three.
        dice: Dice by organ, in the order of the class indices, for the legend.
        place: Index (z, y, x) in RAS of the slices; by default those where reference and mask
            differ most.

    Returns:
        A figure that belongs to no window and no global state.

    Raises:
        MissingExtraError: If matplotlib is not installed.
    """
    reference, mask = to_canonical(reference), to_canonical(mask)
    under = reference.with_array(reference.array > 0) if image is None else to_canonical(image)
    figure = draw_slices(
        under,
        [(reference, _REFERENCE_LINE), (mask, _MASK_LINE)],
        worst_place(reference, mask) if place is None else place,
        title=title,
        limits=(0, 2) if image is None else SOFT_TISSUE_HU,
    )
    labels = [organ if value is None else f"{organ} {value:.2f}" for organ, value in dice.items()]
    lines = {"reference": _REFERENCE_LINE, "mask": _MASK_LINE}
    add_legend(figure, dict(enumerate(labels, start=1)), lines)
    return figure


def worst_place(reference: Volume, mask: Volume) -> npt.NDArray[np.intp]:
    """Index (z, y, x) of the slices with the most wrong voxels; the middle if none is wrong."""
    wrong = reference.array != mask.array
    if not wrong.any():
        return middle_of(reference)
    return np.array([profile.argmax() for profile in profiles_of(wrong)])
