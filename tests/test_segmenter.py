"""Volumes of any spacing through the graph: its resampling, its checks, its outputs."""

from __future__ import annotations

import functools

import nibabel as nib
import numpy as np
import pytest
import tensorflow as tf
from small_models import CONFIG, make_hu, make_info, make_network, make_oblique_volume

from fcnseg.config import override
from fcnseg.errors import InputError, ModelError
from fcnseg.inference import make_segmenter, predict_volume
from fcnseg.inference.resampling import resample_hu, resample_ids, spacing_steps
from fcnseg.volumes import Volume, resample_image

SPACING = (2.5, 0.8, 0.93)  # mm, (z, y, x)
SMALL = make_hu((5, 6, 7))
RIGHT = (2.0, 2.0, 2.0)


@pytest.fixture(scope="module")
def segmenter():
    return make_segmenter(make_network(), make_info())


def in_graph(function, *arguments):
    return tf.function(function)(*arguments).numpy()


def steps_to(target, spacing=SPACING):
    return spacing_steps(tf.constant(spacing, tf.float32), target)


@pytest.mark.parametrize(
    "target", [(2.0, 2.0, 2.0), (1.0, 1.0, 1.0), (5.0, 0.8, 1.7), (40.0, 40.0, 40.0)]
)
@pytest.mark.parametrize("shape", [(40, 33, 35), (1, 5, 4)])
def test_resamples_hu_as_the_conversion_does(target, shape):
    hu = np.random.default_rng(0).integers(-1000, 1000, shape).astype(np.int16)
    volume = Volume(hu, np.diag([*SPACING[::-1], 1.0]))
    resampled = in_graph(resample_hu, tf.constant(hu), steps_to(target))
    expected = resample_image(volume, target).array
    assert resampled.dtype == np.int16
    assert resampled.shape == expected.shape
    # The same matrices: a sum in another order may end on the other side of a half.
    difference = np.abs(resampled.astype(int) - expected)
    assert difference.max() <= 1
    assert (difference > 0).mean() < 1e-3


@pytest.mark.parametrize("target", [(2.0, 2.0, 2.0), (1.1, 1.07, 1.03), (5.1, 0.8, 1.7)])
def test_brings_ids_back_to_where_they_lie_in_the_patient(target):
    """A box along the axes comes back as every voxel whose centre lies in it."""
    volume = Volume(np.zeros((40, 33, 35), np.int16), np.diag([*SPACING[::-1], 1.0]))
    coarse = resample_image(volume, target)
    ids = np.zeros(coarse.shape, np.uint8)
    box = tuple(slice(n // 4, n // 4 + n // 2) for n in coarse.shape)
    ids[box] = 2
    resample = functools.partial(resample_ids, num_classes=3)
    back = in_graph(resample, ids, tf.constant(volume.shape), steps_to(target))
    to_coarse = np.linalg.inv(coarse.affine) @ volume.affine
    index = np.indices(volume.shape).reshape(3, -1)[::-1]  # (x, y, z)
    position = nib.affines.apply_affine(to_coarse, index.T)[:, ::-1]
    edges = [np.array([part.start, part.stop]) - 0.5 for part in box]
    inside = np.all([(p > lo) & (p < hi) for p, (lo, hi) in zip(position.T, edges, strict=True)], 0)
    # Corners are rounded off: there no class has half of a voxel along each axis.
    agree = (back == 2 * inside.reshape(volume.shape)).mean()
    assert agree > 0.98


@pytest.mark.parametrize("spacing", [(2.0, 2.0, 2.0), (2.0001, 2.0, 1.9999)])
def test_volume_at_the_spacing_of_the_model_is_not_resampled(segmenter, spacing):
    hu = make_hu((20, 15, 17))
    labels = segmenter.segment_volume(hu, np.array(spacing, np.float32))["labels"]
    np.testing.assert_array_equal(labels, segmenter.segment_model_grid(hu))


def test_labels_lie_on_the_grid_of_the_volume_and_are_counted(segmenter):
    hu = make_hu((11, 40, 35))
    outputs = segmenter.segment_volume(hu, np.array(SPACING, np.float32))
    labels = outputs["labels"].numpy()
    assert labels.shape == hu.shape
    assert outputs["voxel_counts"].dtype == tf.int64
    counts = np.bincount(labels.ravel(), minlength=3)
    np.testing.assert_array_equal(outputs["voxel_counts"], counts)
    assert (counts > 0).sum() > 1


def test_probabilities_are_float32_and_sum_to_one(segmenter):
    patches = make_hu((8, 12, 10)).astype(np.float32)[None, ..., None]
    probabilities = segmenter.predict_patches(patches)["probabilities"]
    assert probabilities.dtype == tf.float32
    np.testing.assert_allclose(tf.reduce_sum(probabilities, -1), 1, atol=1e-6)


# What is sent, and what the error says; SavedModels are asked the same in test_export.py.
BAD_REQUESTS = {
    "no slices": (SMALL[:0], RIGHT, r"volume must have three axes .* got shape \[0 6 7\]"),
    "spacing zero": (SMALL, (2, 0, 2), r"spacing must be three positive numbers .* \[2 0 2\]"),
    "spacing below": (SMALL, (2, -1, 2), r"spacing must be three .* got \[2 -1 2\]"),
    "spacing nan": (SMALL, (2, np.nan, 2), r"spacing must be three .* got \[2 nan 2\]"),
    "large": (np.zeros((100, 100, 11), np.int16), RIGHT, r"at most 100000 voxels, got shape"),
    "large inside": (
        SMALL,
        (100, 100, 100),
        r"at most 100000 voxels at the spacing of the model, got shape \[250 300 350\]",
    ),
}


@pytest.mark.parametrize(("volume", "spacing", "message"), BAD_REQUESTS.values(), ids=BAD_REQUESTS)
def test_bad_request_is_refused_by_name_and_value(segmenter, volume, spacing, message):
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        segmenter.segment_volume(volume, np.array(spacing, np.float32))


def test_predicts_on_the_own_grid_of_a_volume_that_is_not_canonical(segmenter):
    """The volume is turned by hand, as its affine reads.

    Its first axis in memory goes to anterior, the second to inferior, the third to the left; those
    of a canonical volume go to superior, anterior, right.
    """
    volume = make_oblique_volume()
    assert volume.orientation == "LIA"
    turned = volume.array.transpose(1, 0, 2)[::-1, :, ::-1]
    spacing_mm = (2.5, np.hypot(0.13, 1.49), np.hypot(1.5, 0.13))  # columns of the affine
    labels = segmenter.segment_volume(turned, np.array(spacing_mm, np.float32))["labels"].numpy()
    assert len(np.unique(labels)) > 1
    mask = predict_volume(segmenter, volume)
    assert mask.dtype == np.uint8
    np.testing.assert_array_equal(mask, labels[::-1, :, ::-1].transpose(1, 0, 2))


def test_volume_that_is_too_large_is_a_users_error(segmenter):
    volume = Volume(np.zeros((100, 100, 11), np.int16), np.eye(4))
    with pytest.raises(InputError, match="^volume must have at most 100000 voxels, got shape"):
        predict_volume(segmenter, volume)


def test_network_that_needs_a_coarse_prediction_is_refused():
    network = make_network(override(CONFIG, {"model.coarse_input": True}))
    with pytest.raises(ModelError, match="must take HU alone, got one of 2 channels"):
        make_segmenter(network, make_info())
