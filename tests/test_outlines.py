"""Outlines enclose exactly the centres of the pixels of a region, holes left out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra.numpy import array_shapes, arrays
from polygons import fill

from fcnseg.volumes.formats.dicom.outlines import outlines


def drawn(text):
    return np.array([[pixel == "x" for pixel in line] for line in text.split()])


def area(points):
    x, y = points.T
    return abs(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2


# Each: a region, the number of its outlines, and their area in pixels. An outline's corners take
# half a pixel from its region, and so do those of a hole from the hole.
REGIONS = {
    "nothing": ("... ...", 0, 0),
    "one pixel": ("... .x. ...", 1, 0.5),  # a diamond
    "all pixels": ("xxx xxx", 1, 5.5),
    "two parts": ("xx.xx xx.xx", 2, 7),
    "a hole": ("xxx x.x xxx", 1, 8 - 0.5 + 0.5),
    "two holes": ("xxxxx x.x.x xxxxx", 1, 13 - 0.5 + 2 * 0.5),
    "a part in a hole": ("xxxxx x...x x.x.x x...x xxxxx", 2, 16 - 0.5 + 0.5 + 0.5),
    "at a corner": ("x.. ... ..x", 2, 1),
}


@pytest.mark.parametrize("name", REGIONS)
def test_outlines_of_drawn_regions(name):
    text, count, expected = REGIONS[name]
    found = list(outlines(drawn(text)))
    assert len(found) == count
    assert sum(map(area, found)) == expected


def check_filled(inside):
    even_odd, nonzero = np.zeros(inside.shape, bool), np.zeros(inside.shape, bool)
    for points in outlines(inside):
        assert len(points) >= 4
        one, other = fill(points, inside.shape)
        assert not (even_odd & one).any(), "parts do not overlap"
        even_odd |= one
        nonzero |= other
    np.testing.assert_array_equal(even_odd, inside)
    np.testing.assert_array_equal(nonzero, inside)


@settings(max_examples=200)
@given(arrays(bool, array_shapes(min_dims=2, max_dims=2, max_side=9)))
def test_filled_outlines_are_the_region(inside):
    """Whatever touches at corners, is a hole, or a part within a hole."""
    check_filled(inside)


def test_many_holes_are_all_connected():
    rng = np.random.default_rng(0)
    inside = rng.random((60, 70)) < 0.8
    check_filled(inside)


def test_points_on_a_line_are_left_out():
    (points,) = outlines(np.ones((30, 40), bool))
    assert len(points) == 8  # of each side its ends, as corners are cut
