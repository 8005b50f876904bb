"""Filling of polygons, by the two rules of programs that draw contours."""

from __future__ import annotations

import numpy as np


def fill(points, shape):
    """The pixels (y, x) whose centres are in a polygon: by the even-odd and the nonzero rule.

    A ray goes from each centre to the right; the edges that it crosses are counted, with the sign
    of their direction for the second rule.
    """
    low = np.maximum(np.floor(points.min(axis=0)), 0).astype(int)
    high = np.minimum(np.ceil(points.max(axis=0)) + 1, shape[::-1]).astype(int)
    box = (slice(low[1], high[1]), slice(low[0], high[0]))  # that encloses the polygon
    y, x = (index[box] for index in np.indices(shape))
    crossings, winding = np.zeros(y.shape, int), np.zeros(y.shape, int)
    for (x0, y0), (x1, y1) in zip(points, np.roll(points, -1, axis=0), strict=True):
        if y0 == y1:
            continue
        rows = slice(*(np.ceil(sorted((y0, y1))).astype(int) - low[1]).clip(0))
        at = y[rows]
        crossed = ((y0 <= at) != (y1 <= at)) & (x[rows] < x0 + (at - y0) / (y1 - y0) * (x1 - x0))
        crossings[rows] += crossed
        winding[rows] += crossed * (1 if y1 > y0 else -1)
    even_odd, nonzero = np.zeros(shape, bool), np.zeros(shape, bool)
    even_odd[box], nonzero[box] = crossings % 2 == 1, winding != 0
    return even_odd, nonzero
