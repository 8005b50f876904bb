"""The body in a scan, as the served model finds it: all else is background."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import scipy.ndimage

from fcnseg.volumes import AIR_HU, Volume, resample_image

# As in fcnseg.inference.regions, with which a test compares.
_TISSUE_HU = -500
_BLOCK = 8


def body_region(hu: npt.NDArray[np.int16]) -> npt.NDArray[np.bool_]:
    """Finds everything but the air around a body.

    The body is what lies, within its slices, between tissue on both sides along x and also along y;
    and all that is less than 8 voxels from that.

    Args:
        hu: int16 (z, y, x), y and x across the body.

    Returns:
        bool (z, y, x).
    """
    padding = [(0, -size % _BLOCK) for size in hu.shape]
    padded = np.pad(hu, padding, constant_values=AIR_HU)
    depth, height, width = (size // _BLOCK for size in padded.shape)
    blocks = padded.reshape(depth, _BLOCK, height, _BLOCK, width, _BLOCK)
    tissue = blocks.max(axis=(1, 3, 5)) > _TISSUE_HU
    body = scipy.ndimage.binary_dilation(
        _between(tissue, axis=1) & _between(tissue, axis=2), np.ones((3, 3, 3))
    )
    for axis in range(3):
        body = body.repeat(_BLOCK, axis=axis)
    region: npt.NDArray[np.bool_] = body[tuple(map(slice, hu.shape))]
    return region


def resample_region(
    region: npt.NDArray[np.bool_], like: Volume, spacing: tuple[float, float, float]
) -> npt.NDArray[np.bool_]:
    """Resamples a region: all voxels of the new grid that touch it.

    Args:
        region: bool (z, y, x), on the grid of a volume.
        like: The volume.
        spacing: New spacing (z, y, x) in mm.
    """
    touched = resample_image(like.with_array(region.astype(np.int16) * 1000), spacing)
    return touched.array > 0


def _between(blocks: npt.NDArray[np.bool_], *, axis: int) -> npt.NDArray[np.bool_]:
    """Finds blocks that are set, or lie between set ones along an axis."""
    before = np.logical_or.accumulate(blocks, axis=axis)
    after = np.flip(np.logical_or.accumulate(np.flip(blocks, axis), axis=axis), axis)
    return before & after
