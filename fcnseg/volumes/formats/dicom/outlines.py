"""Outlines of a region in a slice, as polygons that enclose exactly the centres of its pixels."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from fcnseg.extras import require_extra

Points = npt.NDArray[np.float64]

_EDGE = 0.5  # between pixels with 0 and with 1: half way from centre to centre
_ABOVE_ALL = 2.0


def outlines(inside: npt.NDArray[np.bool_]) -> Iterator[Points]:
    """Draws the outline of each connected part of a region.

    An outline runs half way between the centres of pixels inside and outside, so it encloses
    exactly those of the region: drawn again by the centres of pixels, it is the region. It cuts
    corners, so its area is half a pixel less than that of its pixels, and a hole's too. A hole is
    connected to its outline by a channel of no width, the keyhole technique of DICOM.

    Args:
        inside: The region (y, x).

    Yields:
        Points (n, 2) of a closed polygon: x and y in pixels, 0 at the centre of the first; the
        first point is not repeated at the end.

    Raises:
        MissingExtraError: If contourpy is not installed.
    """
    rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    if not rows.size:
        return
    part = inside[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    contourpy = require_extra("contourpy")
    generator = contourpy.contour_generator(
        z=np.pad(part, 1).astype(np.float64),
        name="serial",
        fill_type=contourpy.FillType.OuterOffset,
    )
    origin = (columns[0] - 1, rows[0] - 1)  # of the padded part
    polygons, offsets = generator.filled(_EDGE, _ABOVE_ALL)
    for points, starts in zip(polygons, offsets, strict=True):
        outer, *holes = (
            _without_collinear(points[start : end - 1])  # the last point is the first again
            for start, end in itertools.pairwise(starts)
        )
        yield _with_holes(outer, holes) + origin


def _without_collinear(ring: Points) -> Points:
    """Leaves out points between two others on a line; coordinates are exact multiples of 1/2."""
    before, after = ring - np.roll(ring, 1, axis=0), np.roll(ring, -1, axis=0) - ring
    return ring[before[:, 0] * after[:, 1] != before[:, 1] * after[:, 0]]


def _with_holes(outline: Points, holes: list[Points]) -> Points:
    """Connects holes to the outline, nearest first, so that no channel crosses an outline."""
    from scipy.spatial import KDTree  # not loaded by those who only read volumes

    while holes:
        distances, nearest = zip(*(KDTree(outline).query(hole) for hole in holes), strict=True)
        chosen = int(np.argmin([one.min() for one in distances]))
        hole = holes.pop(chosen)
        start = int(distances[chosen].argmin())
        at = int(nearest[chosen][start])
        around = np.concatenate([hole[start:], hole[: start + 1]])
        outline = np.concatenate([outline[: at + 1], around, outline[at:]])
    return outline
