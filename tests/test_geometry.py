"""Grids: by hand-drawn affines, of which each value is reasoned."""

from __future__ import annotations

import math

import nibabel as nib
import numpy as np
import pytest

from fcnseg.volumes import Geometry, voxel_ml
from fcnseg.volumes.geometry import make_affine

# i grows to posterior by 0.5 mm, j to the left by 2 mm, k to superior by 3 mm.
AXES_MM = np.array([[0, -2, 0], [-0.5, 0, 0], [0, 0, 3]], dtype=np.float64)
GRID = Geometry((4, 5, 6), nib.affines.from_matvec(AXES_MM, [10, 20, 30]))


def test_a_grid_knows_its_axes():
    np.testing.assert_array_equal(GRID.axes_mm, AXES_MM)
    np.testing.assert_array_equal(GRID.origin_mm, [10, 20, 30])
    np.testing.assert_array_equal(GRID.directions, [[0, -1, 0], [-1, 0, 0], [0, 0, 1]])
    assert GRID.spacing == (3, 2, 0.5)
    assert GRID.orientation == "PLS"


def test_a_sheared_voxel_is_smaller_than_the_product_of_its_edges():
    assert GRID.voxel_mm3 == pytest.approx(3)
    assert voxel_ml(GRID.spacing) == 0.003
    # One edge leans by 60 degrees towards another: half its length is the height.
    lean = np.array([[1, math.sin(math.radians(60)), 0], [0, 0.5, 0], [0, 0, 1]])
    sheared = Geometry((2, 2, 2), nib.affines.from_matvec(2 * lean, [0, 0, 0]))
    assert sheared.spacing == pytest.approx((2, 2, 2))
    assert sheared.voxel_mm3 == pytest.approx(4)


def test_a_grid_is_centred_at_a_position():
    grid = Geometry.centred_at((1, 2, 3), shape=GRID.shape, axes_mm=AXES_MM)
    np.testing.assert_allclose(grid.corners_mm().mean(axis=0), [1, 2, 3])
    np.testing.assert_array_equal(grid.axes_mm, AXES_MM)


def test_indices_of_two_grids_are_of_one_position():
    part = GRID.starting_at((1, 2, 3), shape=(2, 2, 2))
    # The part's first voxel is at index (i, j, k) = (3, 2, 1) of the grid, and (-3, -2, -1) back.
    np.testing.assert_allclose(part.index_to(GRID), nib.affines.from_matvec(np.eye(3), [3, 2, 1]))
    np.testing.assert_allclose(GRID.index_to(part)[:3, 3], [-3, -2, -1])
    back = part.starting_at((-1, -2, -3), shape=GRID.shape)
    np.testing.assert_allclose(back.affine, GRID.affine)


def test_another_spacing_keeps_the_middle():
    grid = GRID.respaced((0.5, 1, 4), shape=(8, 5, 1))
    assert grid.spacing == (1.5, 2, 2)
    np.testing.assert_array_equal(grid.directions, GRID.directions)
    np.testing.assert_allclose(grid.corners_mm().mean(axis=0), GRID.corners_mm().mean(axis=0))


def test_spaces_differ_in_the_signs_of_their_axes():
    lps = make_affine((1, 2, 3), np.eye(3))
    np.testing.assert_array_equal(lps[:3, 3], [-1, -2, 3])
    np.testing.assert_array_equal(np.diag(lps), [-1, -1, 1, 1])
    ras = make_affine((1, 2, 3), np.eye(3), signs=(1, 1, 1))
    np.testing.assert_array_equal(ras, nib.affines.from_matvec(np.eye(3), [1, 2, 3]))
