"""Stray parts and holes of masks drawn by hand."""

from __future__ import annotations

import numpy as np
import pydantic
import pytest

from fcnseg.inference.postprocessing import Postprocessing, postprocess

# One slice of three; 0 is background, drawn as a dot.
MASK = """
. . . . . . . . . .
. 1 1 1 1 1 . . 2 .
. 1 . 1 2 1 . . . .
. 1 1 1 1 1 . 1 . .
. . . . . . . 1 . 2
1 . 2 2 2 . . . . 2
. . 2 . 2 . . . . .
. . 2 2 2 . . . 1 1
"""
ISLANDS = {(1, 8): 2, (2, 4): 2, (3, 7): 1, (4, 7): 1, (4, 9): 2, (5, 9): 2, (5, 0): 1}
ISLANDS |= {(7, 8): 1, (7, 9): 1}
SMALL = {(1, 8), (2, 4), (5, 0)}  # of one voxel
HOLES = {(2, 2): 1, (6, 3): 2}

# What is done, and which voxels (y, x) change to what. A voxel has 2 mm3.
CASES = {
    "nothing": ({}, {}),
    "largest": ({"largest_component": True}, dict.fromkeys(ISLANDS, 0)),
    "of 2 voxels": ({"smallest_component_mm3": 4.0}, dict.fromkeys(SMALL, 0)),
    "of 1 voxel": ({"smallest_component_mm3": 2.0}, {}),
    "larger than all": (
        {"largest_component": True, "smallest_component_mm3": 1e3},
        "all",
    ),
    "holes": ({"fill_holes": True}, HOLES),
    # The spleen's voxel within the liver is removed, and then a hole in the liver.
    "both": (
        {"largest_component": True, "fill_holes": True},
        {**dict.fromkeys(ISLANDS, 0), **HOLES, (2, 4): 1},
    ),
}


def drawn(picture):
    rows = [line.replace(".", "0").split() for line in picture.strip().splitlines()]
    return np.array(rows, np.uint8)


def in_volume(plane):
    """The plane between two that close its holes."""
    closed = plane.copy()
    for (y, x), class_id in HOLES.items():
        closed[y, x] = class_id
    closed[2, 4] = 1
    for place in ISLANDS:
        if place != (2, 4):
            closed[place] = 0
    return np.stack([closed, plane, closed])


@pytest.mark.parametrize("axes", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
@pytest.mark.parametrize(("how", "changes"), CASES.values(), ids=CASES)
def test_changes_exactly_these_voxels(how, changes, axes):
    mask = in_volume(drawn(MASK))
    before = mask.copy()
    expected = np.zeros_like(mask) if changes == "all" else mask.copy()
    for place, class_id in {} if changes == "all" else changes.items():
        expected[1][place] = class_id
    found = postprocess(mask.transpose(axes), Postprocessing(**how), voxel_mm3=2.0)
    np.testing.assert_array_equal(found, expected.transpose(axes))
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(mask, before)


def test_a_diagonal_joins_and_an_organ_may_be_absent():
    mask = np.zeros((3, 3, 3), np.uint8)
    mask[0, 0, 0] = mask[1, 1, 1] = mask[2, 2, 2] = 3
    how = Postprocessing(largest_component=True, fill_holes=True)
    np.testing.assert_array_equal(postprocess(mask, how, voxel_mm3=1.0), mask)
    empty = np.zeros_like(mask)
    np.testing.assert_array_equal(postprocess(empty, how, voxel_mm3=1.0), empty)


def test_hole_that_opens_to_a_side_is_no_hole():
    mask = np.ones((5, 5, 5), np.uint8)
    mask[2, 2, 2:] = 0
    how = Postprocessing(fill_holes=True)
    np.testing.assert_array_equal(postprocess(mask, how, voxel_mm3=1.0), mask)


def test_a_volume_below_zero_is_refused():
    with pytest.raises(pydantic.ValidationError, match="smallest_component_mm3"):
        Postprocessing(smallest_component_mm3=-1.0)
