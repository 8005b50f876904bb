"""Labels and masks on another grid: centre of mass in mm and volume, of balls and of real organs.

200 grids are drawn: ratios from 0.4 to 4 of each axis, half of them the usual ones at which voxels
lie half way between others, with spacings off by up to 1e-8 and sizes even and odd.
"""

from __future__ import annotations

import dataclasses
import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from small_models import make_info

from fcnseg.inference import make_segmenter, predict_volume
from fcnseg.inference.resampling import resample_ids
from fcnseg.saved_model.session import SavedModelSession
from fcnseg.saved_model.signatures import SEGMENT_VOLUME, ServedModel
from fcnseg.volumes import Volume, read_label, resample_image, resample_label, to_canonical
from fcnseg.volumes.resampling import resampled_shape

USUAL = (0.5, 2 / 3, 1.5, 2.0, 3.0, 4.0)  # ratios of spacings with many voxels half way
NETWORK_MM = (2.0, 2.0, 2.0)


FEW_OR_ALL = pytest.mark.parametrize(
    "count", [8, pytest.param(200, marks=pytest.mark.slow)], ids=["some", "all"]
)


@dataclasses.dataclass(frozen=True)
class Draw:
    """A ball in mm from the centre of a grid, and another spacing; all (z, y, x)."""

    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    new_spacing: tuple[float, float, float]
    centre_mm: np.ndarray
    radius_mm: float


def draws(count, *, new_spacing=None):
    rng = np.random.default_rng(0)
    for number in range(count):
        ratio = (
            rng.choice(USUAL, 3) if number % 2 else np.exp(rng.uniform(np.log(0.4), np.log(4), 3))
        )
        new = np.array(new_spacing or rng.uniform(1, 3, 3))
        spacing = np.clip(new / ratio, 0.5, 5) * (1 + rng.uniform(-1e-8, 1e-8, 3))
        radius = max(5, 2.5 * max(*spacing, *new)) * rng.uniform(1, 1.6)
        extent = 2 * (radius + 2 * max(*spacing, *new))
        shape = np.ceil(extent / spacing).astype(int) + rng.integers(0, 2, 3)
        centre = rng.uniform(-1, 1, 3) * np.maximum(spacing, new)
        yield Draw(tuple(map(int, shape)), tuple(spacing), tuple(new), centre, radius)


def distance_mm(shape, spacing, centre_mm):
    z, y, x = (
        (np.arange(n) - (n - 1) / 2) * s - c
        for n, s, c in zip(shape, spacing, centre_mm, strict=True)
    )
    return np.sqrt(z[:, None, None] ** 2 + y[:, None] ** 2 + x**2)


def centre_of_mass_mm(values, spacing):
    """From the centre of the grid, which resampling keeps."""
    total = values.sum()
    return np.array(
        [
            (values.sum(axis=tuple({0, 1, 2} - {axis})) @ (np.arange(n) - (n - 1) / 2)) * s / total
            for axis, (n, s) in enumerate(zip(values.shape, spacing, strict=True))
        ]
    )


def volume_mm3(mask, spacing):
    return np.count_nonzero(mask) * np.prod(spacing)


def check(ratios, moved_mm, voxel_mm):
    """Volumes over those before, and how far centres moved, of all draws."""
    ratios, moved = np.array(ratios), np.array(moved_mm) / np.array(voxel_mm)  # in new voxels
    assert np.mean(ratios) == pytest.approx(1, abs=0.01)
    assert np.quantile(np.abs(ratios - 1), 0.9) < 0.03
    assert np.abs(moved.mean(axis=0)).max() < 0.25 / np.sqrt(len(moved))
    assert np.abs(moved).max() < 0.3  # of a coarse grid's voxels a small ball has some twenty


def test_labels_stay_on_their_image_and_keep_their_volume():
    ratios, moved, voxels = [], [], []
    for draw in draws(200):
        away = distance_mm(draw.shape, draw.spacing, draw.centre_mm)
        affine = np.diag([*draw.spacing[::-1], 1.0])
        hu = np.clip((draw.radius_mm - away) * 200 + 500, 0, 1000).astype(np.int16)
        label = Volume((away <= draw.radius_mm).astype(np.uint8), affine)
        there = resample_label(label, draw.new_spacing)
        image = resample_image(label.with_array(hu), draw.new_spacing)
        assert there.shape == image.shape
        np.testing.assert_array_equal(there.affine, image.affine)
        ratios.append(
            volume_mm3(there.array, draw.new_spacing) / volume_mm3(label.array, draw.spacing)
        )
        moved.append(
            centre_of_mass_mm(there.array.astype(float), draw.new_spacing)
            - centre_of_mass_mm(image.array.astype(float), draw.new_spacing)
        )
        voxels.append(np.maximum(draw.new_spacing, draw.spacing))
    check(ratios, moved, voxels)


@pytest.fixture(scope="module")
def ids_back():
    specs = [
        tf.TensorSpec([None] * 3, tf.uint8),
        tf.TensorSpec([3], tf.int32),
        tf.TensorSpec([3], tf.float64),
    ]

    @tf.function(input_signature=specs)
    def back(ids, shape, steps):
        return resample_ids(ids, shape, steps, num_classes=60)

    return lambda ids, shape, steps: back(ids, np.array(shape, np.int32), np.array(steps)).numpy()


@FEW_OR_ALL
def test_masks_keep_place_and_volume_in_the_graph(ids_back, count):
    ratios, moved, voxels = [], [], []
    for draw in draws(count):
        steps = np.divide(draw.new_spacing, draw.spacing)
        shape = resampled_shape(draw.shape, draw.spacing, draw.new_spacing)
        mask = distance_mm(shape, draw.new_spacing, draw.centre_mm) <= draw.radius_mm
        back = ids_back(mask.astype(np.uint8), draw.shape, steps)
        ratios.append(volume_mm3(back, draw.spacing) / volume_mm3(mask, draw.new_spacing))
        moved.append(
            centre_of_mass_mm(back.astype(float), draw.spacing)
            - centre_of_mass_mm(mask.astype(float), draw.new_spacing)
        )
        voxels.append(np.maximum(draw.new_spacing, draw.spacing))
    check(ratios, moved, voxels)


def test_numpy_and_the_graph_decide_alike(ids_back):
    rng = np.random.default_rng(0)
    for draw in list(draws(6)):
        small = tuple(min(n, 12) for n in draw.shape)
        ids = rng.integers(0, 4, small).astype(np.uint8).repeat(2, 0).repeat(2, 1).repeat(2, 2)
        label = Volume(ids, np.diag([*draw.spacing[::-1], 1.0]))
        expected = resample_label(label, draw.new_spacing)
        steps = np.divide(draw.spacing, draw.new_spacing)  # what is undone
        found = ids_back(ids, expected.shape, steps)
        assert (found == expected.array).mean() > 0.999


def test_a_body_of_flat_sides_half_way_between_voxels_stays():
    """Its sides are ties: of these each class gets half, left and right alike."""
    ids = np.zeros((40, 40, 40), np.uint8)
    ids[11:31, 11:31, 11:31] = 1
    for noise in (-1e-8, 0, 1e-8):
        label = Volume(ids, np.diag([1 + noise, 1 - noise, 1 + noise, 1.0]))
        there = resample_label(label, (2.0, 2.0, 2.0)).array
        assert 8 * np.count_nonzero(there) == pytest.approx(20**3, rel=0.01)
        moved = centre_of_mass_mm(there.astype(float), (2, 2, 2)) - 1.0
        assert np.abs(moved).max() < 0.02


@pytest.fixture(scope="module")
def real_organs(real_data):
    label = to_canonical(read_label(real_data / "abdomen_ct_sm/label.nii.gz"))
    _, classes = np.unique(label.array, return_inverse=True)
    return label.with_array(classes.reshape(label.shape).astype(np.uint8))


@pytest.mark.real_data
@pytest.mark.parametrize("odd", [0, 1])
def test_real_organs_keep_their_volume_in_masks(real_organs, ids_back, odd):
    found = real_organs.array
    shape = [2 * n + odd for n in found.shape]
    back = ids_back(found, shape, (2.0, 2.0, 2.0))
    before, after = (np.bincount(each.ravel()) for each in (found, back))
    inside = np.setdiff1d(np.unique(found[before[found] > 50]), at_the_edge(found))
    np.testing.assert_allclose(after[inside] / 8 / before[inside], 1, atol=0.02)


@pytest.mark.real_data
@pytest.mark.parametrize("spacing", [1.3, 1.5, 2.0, 2.7])
def test_real_organs_keep_their_volume_in_records(real_organs, spacing):
    there = resample_label(real_organs, (spacing,) * 3)
    before, after = (np.bincount(each.array.ravel()) for each in (real_organs, there))
    inside = np.setdiff1d(np.flatnonzero(before > 50), at_the_edge(real_organs.array))
    ratio = after[inside] * spacing**3 / before[inside] / 27
    # A body of a few voxels also lies nearer to more or fewer of the new grid's: an adrenal of 184
    # has 0.975 at 2.7 mm.
    small = before[inside] < 300
    np.testing.assert_allclose(ratio[~small], 1, atol=0.02)
    np.testing.assert_allclose(ratio[small], 1, atol=0.03)


def at_the_edge(ids):
    """Classes that the edge of a grid cuts: another grid may reach half a voxel further."""
    return np.unique([*ids[[0, -1]].flat, *ids[:, [0, -1]].flat, *ids[..., [0, -1]].flat])


@pytest.fixture(scope="module")
def segmenter():
    """Says organ where HU > 0."""
    inputs = keras.Input((None, None, None, 1))
    model = keras.Model(inputs, keras.layers.Conv3D(2, 1)(inputs))
    model.set_weights([np.array([0, 1], "f4").reshape(1, 1, 1, 1, 2), np.zeros(2, "f4")])
    info = make_info(class_names=("background", "organ"), spacing_mm=NETWORK_MM)
    return make_segmenter(model, dataclasses.replace(info, window=(32,) * 3, max_voxels=10**7))


def image_of(draw):
    away = distance_mm(draw.shape, draw.spacing, draw.centre_mm)
    hu = np.clip((draw.radius_mm - away) * 100, -200, 200).astype(np.int16)
    return Volume(hu, np.diag([*draw.spacing[::-1], 1.0]))


@pytest.fixture(scope="module")
def predict(segmenter):
    """The image of a draw, and its mask, which is computed once."""
    images = [image_of(draw) for draw in draws(200, new_spacing=NETWORK_MM)]
    return functools.cache(
        lambda number: (images[number], predict_volume(segmenter, images[number]))
    )


@FEW_OR_ALL
def test_predicted_masks_keep_what_the_network_found(segmenter, predict, count):
    ratios, moved, voxels = [], [], []
    for number, draw in enumerate(draws(count, new_spacing=NETWORK_MM)):
        volume, mask = predict(number)
        found = segmenter.segment_model_grid(resample_image(volume, NETWORK_MM).array).numpy()
        ratios.append(volume_mm3(mask, draw.spacing) / volume_mm3(found, NETWORK_MM))
        moved.append(
            centre_of_mass_mm(mask.astype(float), draw.spacing)
            - centre_of_mass_mm(found.astype(float), NETWORK_MM)
        )
        voxels.append(np.maximum(NETWORK_MM, draw.spacing))
    check(ratios, moved, voxels)


@pytest.mark.slow
def test_served_masks_are_those_predicted(segmenter, predict, tmp_path):
    """So what holds for one holds for the other."""
    ServedModel(segmenter).write(tmp_path / "1", names=(SEGMENT_VOLUME,))
    served = SavedModelSession(tmp_path / "1")
    for number in range(200):
        volume, mask = predict(number)
        asked = {"volume": volume.array, "spacing": np.array(volume.spacing, np.float32)}
        np.testing.assert_array_equal(served.run(SEGMENT_VOLUME, asked)["labels"], mask)
