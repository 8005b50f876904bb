"""Post-processing of masks: removal of small connected components of organs, and hole filling."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pydantic
from pydantic import NonNegativeFloat
from scipy import ndimage

from fcnseg.extras import require_extra

_CONNECTIVITY = 26  # 26-connectivity: voxels that share a corner are connected


@pydantic.dataclasses.dataclass(frozen=True, config=pydantic.ConfigDict(extra="forbid"))
class Postprocessing:
    """Post-processing of a mask; by default none."""

    largest_component: bool = False
    """Keep only the largest connected component of each organ."""
    smallest_component_mm3: NonNegativeFloat = 0.0
    """Remove connected components of organs that are smaller than this."""
    fill_holes: bool = False
    """Fill holes: background enclosed by an organ becomes that organ."""


NOTHING = Postprocessing()
"""No post-processing."""


def postprocess(
    mask: npt.NDArray[np.uint8], how: Postprocessing, *, voxel_mm3: float
) -> npt.NDArray[np.uint8]:
    """Post-processes a mask; each organ is processed in its bounding box.

    Components are removed first and become background, then holes are filled, so that a stray
    component inside another organ becomes part of that organ.

    Args:
        mask: Class ids (z, y, x), 0 for background.
        how: The steps to apply.
        voxel_mm3: Volume of a voxel.

    Returns:
        The same mask if there is nothing to do, else a new one.

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
        fill_voids = require_extra("fill_voids")
        for class_id, box in organs:
            filled = fill_voids.fill(result[box] == class_id)
            result[box][filled & (result[box] == 0)] = class_id
    return result


def _stray_parts(
    organ: npt.NDArray[np.bool_], how: Postprocessing, voxel_mm3: float
) -> npt.NDArray[np.bool_]:
    """Voxels of an organ (z, y, x) to remove."""
    if not (how.largest_component or how.smallest_component_mm3):
        return np.zeros_like(organ)
    cc3d = require_extra("cc3d")
    parts = cc3d.connected_components(organ, connectivity=_CONNECTIVITY)
    sizes = cc3d.statistics(parts)["voxel_counts"][1:]  # the first is all that is no organ
    stays = sizes * voxel_mm3 >= how.smallest_component_mm3
    if how.largest_component:
        stays &= np.arange(len(sizes)) == sizes.argmax()
    return organ & ~np.concatenate([[False], stays])[parts]
