"""The resampler on volumes whose answer is known."""

from __future__ import annotations

import tracemalloc

import nibabel as nib
import numpy as np
import pytest

from fcnseg.errors import GeometryError
from fcnseg.volumes import Volume, resample_image, resample_label, resampled_shape

SPACING = (2.5, 0.8, 0.8)  # mm, (z, y, x)
TARGETS = [(2.0, 2.0, 2.0), (1.0, 1.0, 1.0), (5.0, 0.8, 1.6), (2.5, 0.4, 3.0)]


def affine_of(spacing):
    return np.diag([*spacing[::-1], 1.0])


def ball(shape, spacing, radius_mm):
    axes = [(np.arange(n) - (n - 1) / 2) * s for n, s in zip(shape, spacing, strict=True)]
    z, y, x = np.meshgrid(*axes, indexing="ij")
    return (z**2 + y**2 + x**2 <= radius_mm**2).astype(np.uint8)


@pytest.mark.parametrize("target", TARGETS)
def test_constants_stay(target):
    volume = Volume(np.full((20, 40, 40), -987, np.int16), affine_of(SPACING))
    resampled = resample_image(volume, target)
    assert resampled.spacing == pytest.approx(target)
    assert resampled.shape == resampled_shape(volume.shape, SPACING, target)
    assert (resampled.array == -987).all()


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_ramps_stay_inside(target, axis):
    """10 HU a mm along one axis: away from the border each voxel has its position's value."""
    shape = (24, 60, 60)
    ramp = np.arange(shape[axis]) * SPACING[axis] * 10
    along = [-1 if number == axis else 1 for number in range(3)]
    array = np.broadcast_to(ramp.reshape(along), shape)
    volume = Volume(np.rint(array).astype(np.int16), affine_of(SPACING))
    resampled = resample_image(volume, target)
    indices = np.indices(resampled.shape).reshape(3, -1).T[:, ::-1]
    position_mm = nib.affines.apply_affine(resampled.affine, indices)[:, 2 - axis]
    reach_mm = 2 * max(target[axis], SPACING[axis])
    inside = (position_mm > reach_mm) & (position_mm < ramp[-1] / 10 - reach_mm)
    assert inside.any()
    error = np.abs(resampled.array.ravel() - position_mm * 10)[inside]
    # Half a HU of rounding in and out, and what the sampled triangle is off its centre.
    assert error.max() <= 1 + 0.04 * 10 * target[axis]


def test_stripes_finer_than_the_new_grid_are_averaged_not_aliased():
    stripes = np.zeros((8, 8, 64), np.int16)
    stripes[..., ::2] = 1000
    resampled = resample_image(Volume(stripes, np.eye(4)), (1.0, 1.0, 4.0))
    assert np.abs(resampled.array[..., 1:-1] - 500).max() <= 1


@pytest.mark.parametrize("target", [(2.0, 2.0, 2.0), (1.5, 1.5, 1.5), (1.0, 1.0, 1.0)])
def test_labels_keep_their_volume(target):
    label = Volume(ball((48, 120, 120), (1.6, 0.8, 0.8), 30.0), affine_of((1.6, 0.8, 0.8)))
    resampled = resample_label(label, target)
    assert resampled.array.dtype == np.uint8
    millilitres = [v.array.sum() * np.prod(v.spacing) for v in (label, resampled)]
    assert millilitres[1] == pytest.approx(millilitres[0], rel=0.01)


def test_image_and_label_stay_on_each_other():
    label = Volume(ball((40, 80, 80), SPACING, 25.0), affine_of(SPACING))
    image = label.with_array(label.array.astype(np.int16) * 1000)
    there = resample_image(image, (2.0, 2.0, 2.0)).array >= 500
    reference = resample_label(label, (2.0, 2.0, 2.0)).array == 1
    dice = 2 * (there & reference).sum() / (there.sum() + reference.sum())
    assert dice > 0.97


def test_grids_share_their_centre():
    rng = np.random.default_rng(0)
    affine = affine_of(SPACING)
    affine[:3, :3] = np.linalg.qr(rng.normal(size=(3, 3)))[0] @ affine[:3, :3]
    volume = Volume(np.zeros((11, 31, 32), np.int16), affine)
    resampled = resample_image(volume, (3.0, 1.0, 1.7))
    centres = [
        nib.affines.apply_affine(v.affine, (np.array(v.shape[::-1]) - 1) / 2)
        for v in (volume, resampled)
    ]
    np.testing.assert_allclose(*centres, atol=1e-9)


def test_a_step_beyond_the_whole_volume_weighs_no_more_than_its_voxels():
    """As where a header in metres is accepted: thousands of old voxels, had the grid so many."""
    label = Volume(np.ones((5, 6, 7), np.uint8), affine_of((0.002, 0.001, 0.001)))
    label.array[0] = 2
    resampled = resample_label(label, (2.0, 3.0, 4.0))
    assert resampled.array.tolist() in ([[[1]]], [[[2]]])
    assert resampled.spacing == pytest.approx((2.0, 3.0, 4.0))


def test_same_spacing_gives_the_same_volume():
    volume = Volume(np.zeros((3, 3, 3), np.int16), affine_of((2.0, 0.8, 0.8)))
    assert resample_image(volume, (2.0, 0.80001, 0.8)) is volume


@pytest.mark.parametrize("spacing", [(0.8, 0.8, 0.0), (1.0, -1.0, 1.0), (1.0, float("nan"), 1.0)])
def test_bad_spacing_is_refused(spacing):
    volume = Volume(np.zeros((3, 3, 3), np.int16), np.eye(4))
    with pytest.raises(GeometryError, match="three positive numbers in mm, got"):
        resample_image(volume, spacing)


def test_a_header_in_metres_takes_no_more_memory_than_the_label():
    """A new voxel of 20^3 old ones: weighed all at once they would take many times the label."""
    grid = np.indices((200, 200, 200)) - 99.5
    ball = ((grid**2).sum(axis=0) < 80**2).astype(np.uint8)
    volume = Volume(ball, np.diag([0.04, 0.04, 0.04, 1]))
    tracemalloc.start()
    coarse = resample_label(volume, (0.8, 0.8, 0.8))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8 * ball.nbytes
    voxel = (0.8 / 0.04) ** 3
    assert coarse.array.sum() * voxel == pytest.approx(ball.sum(), rel=0.02)
    centre = np.argwhere(coarse.array).mean(axis=0)
    np.testing.assert_allclose(centre, (np.array(coarse.shape) - 1) / 2, atol=0.05)
