"""What augmentation does to a patch: each part against what it should do, written another way."""

from __future__ import annotations

import dataclasses

import numpy as np
import pydantic
import pytest
import tensorflow as tf
from scipy import ndimage
from scipy.interpolate import BSpline
from scipy.spatial.transform import Rotation

from fcnseg.config import AugmentationConfig
from fcnseg.sampling.augmentation import Augmentation
from fcnseg.sampling.augmentation.deformation import (
    control_points,
    displacements,
    spline_weights,
)

# Rotation, translation and deformation of Roth et al. 2018.
PAPER = AugmentationConfig(
    rotation_degrees=(20, 20, 20), translation_voxels=(20, 20, 20), deformation_voxels=(4, 4, 4)
)
EVERYTHING = dataclasses.replace(
    PAPER,
    scale=(0.8, 1.25),
    flip=(0.5, 0.5, 0.5),
    intensity_probability=1.0,
    noise_hu=20.0,
    blur_mm=2.0,
    low_resolution=(3.0, 1.5, 1.5),
    brightness_hu=30.0,
    contrast=(0.8, 1.2),
    gamma=(0.7, 1.5),
)
SIZE = (10, 14, 12)
THICK = (3.0, 1.0, 1.5)  # mm


def make(config=PAPER, *, size=SIZE, label_size=None, spacing=(1.0, 1.0, 1.0)):
    return Augmentation(config, size, label_size or size, spacing)


def draw(augmentation, count=1):
    """Parameters of so many patches, each with a batch axis."""
    seeds = tf.data.Dataset.range(count)
    drawn = seeds.map(lambda seed: augmentation.draw(tf.stack([5, seed])))
    return drawn.batch(count).get_single_element()


def still(augmentation, **changes):
    """Parameters of one patch that change nothing but what is given."""
    neutral = {
        "matrix": np.eye(3),
        "blur_voxels": np.zeros(3),
        "step": np.ones(3),
        "noise_hu": 0,
        "brightness_hu": 0,
        "contrast": 1,
        "gamma": 1,
    }
    given = {
        name: tf.constant([value], tf.float32) for name, value in {**neutral, **changes}.items()
    }
    drawn = draw(augmentation)
    control = given.pop("control", tf.zeros_like(drawn["control"]))
    return {"control": control, "noise_seed": drawn["noise_seed"], **given}


def make_source(augmentation, *, batch=1):
    """Smooth HU int16 and blocks of classes."""
    rng = np.random.default_rng(0)
    white = rng.standard_normal((batch, *augmentation.source_size))
    smooth = ndimage.gaussian_filter(white, (0, 2, 2, 2))
    hu = 300 * smooth / smooth.std()
    return tf.constant(hu.astype(np.int16)), tf.constant((hu > 100).astype(np.uint8) + (hu > 300))


def positions_by_scipy(augmentation, parameters):
    """Positions (3, z, y, x) in the source, of one patch, from its control points and matrix."""
    centre = (np.array(augmentation.source_size) - 1) / 2
    grids = [np.arange(length) - (length - 1) / 2 for length in augmentation.size]
    offsets = np.stack(np.meshgrid(*grids, indexing="ij"))
    found = np.tensordot(parameters["matrix"][0].numpy(), offsets, axes=1)
    splines = []
    for grid, spacing in zip(grids, augmentation.config.control_spacing_voxels, strict=True):
        count = control_points(len(grid), spacing)
        points = np.arange(count) - (count - 1) / 2
        splines.append(
            [BSpline.basis_element(point + np.arange(-2, 3))(grid / spacing) for point in points]
            * (np.abs(grid / spacing - points[:, None]) < 2)
        )
    bent = np.einsum("cijk,iz,jy,kx->czyx", parameters["control"][0].numpy(), *splines)
    return found + bent + centre[:, None, None, None]


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), THICK])
def test_one_resampling_of_everything_that_moves(spacing):
    config = dataclasses.replace(PAPER, scale=(0.8, 1.25), flip=(0.5, 0.5, 0.5))
    augmentation = make(config, spacing=spacing)
    hu, label = make_source(augmentation)
    parameters = draw(augmentation)
    warped, classes = augmentation.apply(hu, label, parameters)
    at = positions_by_scipy(augmentation, parameters)
    expected = ndimage.map_coordinates(hu[0].numpy().astype(float), at, order=1)
    np.testing.assert_allclose(warped[0], expected, atol=0.05)  # of some hundred HU
    nearest = ndimage.map_coordinates(label[0].numpy(), at, order=0)
    assert (nearest == classes[0]).numpy().mean() > 0.999  # halves are rounded either way
    assert len(np.unique(classes)) == 3


def test_still_patch_is_the_middle_of_its_source():
    augmentation = make(label_size=(4, 6, 6))
    assert augmentation.source_size > SIZE
    hu, label = make_source(augmentation)
    same, classes = augmentation.apply(hu, label, still(augmentation))
    margin = [(n - m) // 2 for n, m in zip(augmentation.source_size, SIZE, strict=True)]
    z, y, x = (slice(m, m + n) for m, n in zip(margin, SIZE, strict=True))
    np.testing.assert_array_equal(same[0], hu[0, z, y, x])
    np.testing.assert_array_equal(classes[0], label[0, z, y, x][3:7, 4:10, 3:9])


def test_turn_is_one_of_the_patient_in_mm():
    """In thick slices a turned ball is the same ball; turned in voxels it would be an egg."""
    size, spacing = (15, 41, 31), THICK
    config = AugmentationConfig(rotation_degrees=(20, 20, 20))
    augmentation = make(config, size=size, spacing=spacing)
    grids = [
        (np.arange(n) - (n - 1) / 2) * mm
        for n, mm in zip(augmentation.source_size, spacing, strict=True)
    ]
    z, y, x = np.meshgrid(*grids, indexing="ij")
    radius = np.sqrt(z**2 + y**2 + x**2)
    hu, label = tf.constant(10 * radius[None]), tf.constant(radius[None] < 12)
    parameters = draw(augmentation)
    warped, ball = augmentation.apply(hu, label, parameters)
    inside = [(n - m) // 2 for n, m in zip(augmentation.source_size, size, strict=True)]
    before = radius[tuple(slice(m, m + n) for m, n in zip(inside, size, strict=True))]
    # Linear interpolation cuts the tip of a cone: by a part of the longest edge of a voxel.
    np.testing.assert_allclose(warped[0] / 10, before, atol=1.5)
    assert ((before < 12) == ball[0]).numpy().mean() > 0.98
    assert not np.allclose(parameters["matrix"][0], np.eye(3), atol=0.05)


def test_matrix_is_rotation_scale_and_flip():
    config = AugmentationConfig(rotation_degrees=(20, 10, 5), scale=(0.8, 1.25), flip=(1, 0, 0))
    for matrix in draw(make(config, spacing=THICK), 50)["matrix"].numpy():
        in_mm = np.diag(THICK) @ matrix @ np.diag(1 / np.array(THICK)) @ np.diag([-1, 1, 1])
        scale = np.linalg.det(in_mm) ** (-1 / 3)
        assert 0.8 <= scale <= 1.25
        # SciPy's axes (x, y, z) in our order of axes: (z, y, x) reversed is left-handed.
        turn = Rotation.from_matrix((in_mm * scale)[::-1, ::-1])
        angles = np.abs(turn.as_euler("xyz", degrees=True))[::-1]
        assert (angles <= np.array([20, 10, 5]) + 1e-3).all()


def test_draws_reach_all_of_their_ranges():
    """Of 300 uniform draws the extremes lie within 5 % of the ends (1 - 0.975^300 > 0.999)."""
    parameters = draw(make(EVERYTHING), 300)
    ranges = {
        "brightness_hu": (-30, 30),
        "contrast": (0.8, 1.2),
        "gamma": (0.7, 1.5),
        "noise_hu": (0, 20),
    }
    for name, (low, high) in ranges.items():
        values = parameters[name].numpy()
        assert low <= values.min() < low + 0.05 * (high - low)
        assert high >= values.max() > high - 0.05 * (high - low)
    control = parameters["control"].numpy()
    assert 3.9 < control.max() <= 4
    assert -3.9 > control.min() >= -4
    assert abs(control.mean()) < 0.1
    signs = np.sign(np.linalg.det(parameters["matrix"].numpy()))
    assert 100 < (signs < 0).sum() < 200


def test_share_of_patches_that_a_change_reaches():
    config = AugmentationConfig(intensity_probability=0.25, noise_hu=10, contrast=(0.5, 0.9))
    parameters = draw(make(config), 400)
    for reached in (parameters["noise_hu"] > 0, parameters["contrast"] < 1):
        # Binomial with n = 400, p = 1/4: standard deviation 8.7.
        assert 100 - 35 < reached.numpy().sum() < 100 + 35


def test_seed_decides_the_draw():
    augmentation = make(EVERYTHING)
    first, other = draw(augmentation, 2), draw(augmentation, 2)
    for name in first:
        np.testing.assert_array_equal(first[name], other[name])
        assert not np.array_equal(first[name][0], first[name][1])


@pytest.mark.parametrize(
    ("config", "spacing"),
    [
        (PAPER, (1.0, 1.0, 1.0)),
        (PAPER, THICK),
        (dataclasses.replace(PAPER, scale=(0.5, 2)), THICK),
    ],
)
def test_source_holds_whatever_is_drawn(config, spacing):
    augmentation = make(config, spacing=spacing)
    extremes = [augmentation.size, augmentation.source_size]
    assert all((n - m) % 2 == 0 for m, n in zip(*extremes, strict=True))
    centre = (np.array(augmentation.source_size) - 1) / 2
    furthest = np.zeros(3)
    parameters = draw(augmentation, 40)
    for index in range(40):
        one = {name: value[index : index + 1] for name, value in parameters.items()}
        at = positions_by_scipy(augmentation, one)
        furthest = np.maximum(furthest, np.abs(at - centre[:, None, None, None]).max((1, 2, 3)))
    assert (furthest <= centre + 1e-3).all()
    assert (furthest > 0.6 * centre).all()  # nor is it far too large


@pytest.mark.parametrize("length", [1, 24, 25, 96])
def test_spline_weights_are_shares_of_four_control_points(length):
    weights = spline_weights(length, 24.0)
    assert weights.shape == (length, control_points(length, 24.0))
    assert (weights >= 0).all()
    assert ((weights > 0).sum(axis=1) <= 4).all()
    np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=1e-6)


@pytest.mark.parametrize(("spacing", "length"), [(8.0, 33), (24.0, 49), (24.0, 96)])
def test_field_has_the_drawn_displacements_at_its_control_points(spacing, length):
    """A spline through the drawn values, as SciPy finds it; the grid is mirrored at its ends."""
    count = control_points(length, spacing)
    drawn = np.random.default_rng(0).uniform(-4, 4, count)
    field = spline_weights(length, spacing, of="field") @ drawn
    at = (np.arange(length) - (length - 1) / 2) / spacing + (count - 1) / 2
    expected = ndimage.map_coordinates(drawn, [at], order=3, mode="mirror")
    np.testing.assert_allclose(field, expected, atol=1e-5)
    points = np.flatnonzero(at == np.round(at))
    assert len(points) >= 3 or length == 96  # whose centre lies between two control points
    np.testing.assert_allclose(field[points], drawn[at[points].astype(int)], atol=1e-5)


@pytest.mark.parametrize(
    ("deformation_of", "rms", "largest"),
    [("coefficients", 0.76, (2.0, 3.2)), ("field", 1.9, (3.9, 4.0))],
)
def test_size_of_the_deformation(deformation_of, rms, largest):
    """Along each axis, of the paper's 4 voxels; docs/augmentation.md has these numbers."""
    config = AugmentationConfig(deformation_voxels=(4, 4, 4), deformation_of=deformation_of)
    augmentation = make(config, size=(96, 96, 96))
    moved = np.array(displacements(draw(augmentation, 20)["control"], (96, 96, 96), config))
    assert np.sqrt((moved**2).mean()) == pytest.approx(rms, rel=0.05)
    assert largest[0] < np.abs(moved).max() <= largest[1]


def test_deformation_of_the_field_moves_voxels_so():
    config = dataclasses.replace(PAPER, deformation_of="field", control_spacing_voxels=(5, 5, 5))
    augmentation = make(config)
    control = draw(augmentation)["control"]
    field = [each.numpy() for each in displacements(control, SIZE, config)]
    rows = [np.abs(spline_weights(n, 5.0, of="field")).sum(axis=1).max() for n in SIZE]
    assert np.prod(rows) > 1.5  # beyond what is drawn, so that it is clipped
    assert 3 < np.abs(field).max() <= 4


@pytest.mark.parametrize("config", [PAPER, EVERYTHING], ids=["paper", "everything"])
def test_compiled_or_not_alone_or_in_a_batch(config):
    """Noise too: what is drawn from a seed must not depend on the compiler."""
    augmentation = make(config)
    hu, label = make_source(augmentation, batch=2)
    parameters = draw(augmentation, 2)
    plain = augmentation.apply(hu, label, parameters)
    compiled = augmentation.apply_compiled(hu, label, parameters)
    alone = augmentation.apply(hu[1:], label[1:], {k: v[1:] for k, v in parameters.items()})
    np.testing.assert_allclose(plain[0], compiled[0], atol=0.1)
    assert (plain[1] == compiled[1]).numpy().mean() > 0.999
    np.testing.assert_allclose(plain[0][1:], alone[0], atol=0.01)
    np.testing.assert_array_equal(plain[1][1:], alone[1])
    assert np.abs(plain[0][0] - plain[0][1]).max() > 100


def change(hu, config=EVERYTHING, **parameters):
    """HU (z, y, x) after the given changes, which move nothing."""
    config = dataclasses.replace(
        AugmentationConfig(),
        **{
            name: getattr(config, name)
            for name in ("noise_hu", "blur_mm", "low_resolution", "brightness_hu", "contrast")
        },
        gamma=config.gamma,
        intensity_probability=1.0,
    )
    augmentation = make(config, size=hu.shape)
    batch = tf.constant(hu[None], tf.float32)
    changed, label = augmentation.apply(batch, batch > 0, still(augmentation, **parameters))
    np.testing.assert_array_equal(label[0], hu > 0)
    return changed[0].numpy()


RAMP = np.tile(np.arange(-200.0, 301.0, 20), (4, 5, 1))  # (4, 5, 26)


def test_changes_of_hu():
    np.testing.assert_array_equal(change(RAMP), RAMP)
    np.testing.assert_allclose(change(RAMP, brightness_hu=7.0), RAMP + 7)
    np.testing.assert_allclose(change(RAMP, contrast=1.1), RAMP * 1.1, rtol=1e-5)


def test_gamma_bends_within_its_window():
    bent = change(np.array([[[-1000.0, -200, 50, 300, 1000]]]), gamma=2.0).ravel()
    np.testing.assert_allclose(bent, [-1000, -200, -75, 300, 1000], atol=1e-3)  # 0.5^2 = 0.25


def test_hu_stay_above_air():
    assert change(RAMP - 900, brightness_hu=-200.0).min() == -1024


def test_noise_has_the_drawn_strength_and_no_grain():
    noise = change(np.zeros((24, 24, 24)), noise_hu=15.0)
    # Of 13824 values: standard errors 0.13 of the mean, 0.09 of the deviation.
    assert abs(noise.mean()) < 0.6
    assert abs(noise.std() - 15) < 0.5
    assert abs(ndimage.zoom(noise, 1 / 2, order=0).std() - 15) < 1
    assert abs(np.mean(noise[1:] * noise[:-1])) < 0.05 * 15**2
    assert np.abs(noise).max() > 3 * 15


@pytest.mark.parametrize("parameters", [{"blur_voxels": [0.0, 1.0, 2.0]}, {"step": [2.5, 1, 3]}])
def test_coarser_patches_keep_constants_and_ramps(parameters):
    np.testing.assert_allclose(change(np.full((6, 7, 40), 50.0), **parameters), 50, rtol=1e-5)
    ramp = np.tile(np.arange(40.0), (6, 7, 1))
    inner = slice(8, -8)
    np.testing.assert_allclose(change(ramp, **parameters)[..., inner], ramp[..., inner], atol=1e-3)


def test_blur_is_a_gauss():
    point = np.zeros((15, 15, 15))
    point[7, 7, 7] = 1000
    blurred = change(point, blur_voxels=[1.5, 0.0, 1.0])
    expected = ndimage.gaussian_filter(point, (1.5, 0, 1), truncate=8)
    np.testing.assert_allclose(blurred, expected, atol=0.5)


def test_low_resolution_loses_what_is_finer():
    stripes = np.tile(np.where(np.arange(24) % 2, 500.0, -500.0)[:, None, None], (1, 5, 5))
    assert np.abs(change(stripes, step=[1.0, 3.0, 3.0])).min() > 499  # the other axes
    assert np.abs(change(stripes, step=[3.0, 1.0, 1.0])[3:-3]).max() < 200


def test_nothing_is_on_by_default():
    augmentation = make(AugmentationConfig())
    assert not augmentation.active
    assert augmentation.source_size == SIZE
    only_moved = make(AugmentationConfig(translation_voxels=(1, 2, 3)))
    assert not only_moved.active


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"scale": (1.2, 0.8)}, r"scale must be \(lowest, highest\), got \(1.2, 0.8\)"),
        ({"gamma_window": (100, 100)}, r"gamma_window must be \(low, high\)"),
        ({"flip": (0, 0, 1.5)}, "less than or equal to 1"),
        ({"rotation_degrees": (-20, 0, 0)}, "greater than or equal to 0"),
        ({"low_resolution": (0.5, 1, 1)}, "greater than or equal to 1"),
    ],
)
def test_config_out_of_range_is_refused(settings, message):
    with pytest.raises(pydantic.ValidationError, match=message):
        AugmentationConfig(**settings)
