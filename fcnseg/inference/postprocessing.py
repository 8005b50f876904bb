"""What is mended in a mask once it is there: stray parts of organs, and holes in them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pydantic
from pydantic import NonNegativeFloat
from scipy import ndimage

from fcnseg.errors import require_extra

_CONNECTIVITY = 26  # voxels that share a corner are of one part


@pydantic.dataclasses.dataclass(frozen=True, config=pydantic.ConfigDict(extra="forbid"))
class Postprocessing:
    """What is done to a mask; by default nothing."""

    largest_component: bool = False
    """Keep only the largest connected part of each organ."""
    smallest_component_mm3: NonNegativeFloat = 0.0
    """Remove connected parts of organs that are smaller than this."""
    fill_holes: bool = False
    """Give background that an organ encloses to the organ."""


NOTHING = Postprocessing()
"""No post-processing."""


def postprocess(
    mask: npt.NDArray[np.uint8], how: Postprocessing, *, voxel_mm3: float
) -> npt.NDArray[np.uint8]:
    """A mended mask; each organ is looked at in its own box.

    Parts are removed first and become background, then holes are filled, so that a stray part
    inside another organ becomes part of that.

    Args:
        mask: Class ids (z, y, x), 0 for background.
        how: What is done.
        voxel_mm3: Volume of a voxel.

    Returns:
        The same mask where nothing is to be done, else a new one.

    Raises:
        MissingExtraError: If connected-components-3d or fill-voids is not installed.
    """
    if how == NOTHING:
        return mask
    result = mask.copy()
    boxes = ndimage.find_objects(mask)
    organs = [(class_id, box) for class_id, box in enumerate(boxes, start=1) if box is not None]
    for class_id, box in organs:
        stray = _stray_parts(mask[box] == class_id, how, voxel_mm3)
        result[box][stray] = 0
    if how.fill_holes:
        fill_voids = require_extra("fill_voids", "train")
        for class_id, box in organs:
            filled = fill_voids.fill(result[box] == class_id)
            result[box][filled & (result[box] == 0)] = class_id
    return result


def _stray_parts(
    organ: npt.NDArray[np.bool_], how: Postprocessing, voxel_mm3: float
) -> npt.NDArray[np.bool_]:
    """Voxels of an organ (z, y, x) that are to be removed."""
    if not (how.largest_component or how.smallest_component_mm3):
        return np.zeros_like(organ)
    cc3d = require_extra("cc3d", "train")
    parts = cc3d.connected_components(organ, connectivity=_CONNECTIVITY)
    sizes = cc3d.statistics(parts)["voxel_counts"][1:]  # the first is what is no organ
    stays = sizes * voxel_mm3 >= how.smallest_component_mm3
    if how.largest_component:
        stays &= np.arange(len(sizes)) == sizes.argmax()
    return organ & ~np.concatenate([[False], stays])[parts]
