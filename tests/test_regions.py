"""Regions: what of a volume is looked at, and that looking at less changes nothing inside."""

from __future__ import annotations

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy import ndimage
from small_models import CLASSES, make_hu, make_info, make_network

from fcnseg.inference import make_segmenter
from fcnseg.inference.regions import body_region, dilated, resample_region
from fcnseg.inference.resampling import spacing_steps
from fcnseg.inference.segmentation import Coarse, segment
from fcnseg.inference.sliding_window import SlidingWindow
from fcnseg.runs.model_info import ModelInfo
from fcnseg.volumes import Volume
from fcnseg.volumes.tiling import Tiling

BODY = (slice(4, 40), slice(40, 90), slice(30, 100))
SPACING = np.array([2.0, 2.0, 2.0], np.float32)
SIZES = {"max_voxels": 10**6, "batch_size": 8}


def make_scan(shape=(45, 128, 130)):
    """A body with skin, lungs and tissue in air."""
    hu = np.full(shape, -1000, np.int16)
    hu[BODY] = make_hu([part.stop - part.start for part in BODY])
    hu[4:40, 45:85, 35:95] = -850  # lungs as wide as can be
    hu[10:20, 60:70, 60:70] = 40
    return hu


def in_graph(function, *arguments):
    return tf.function(function)(*arguments).numpy()


def test_body_holds_its_lungs_and_not_the_air_around_it():
    hu = make_scan()
    region = in_graph(body_region, hu)
    assert region.shape == hu.shape
    assert region[BODY].all()
    body = np.zeros(hu.shape, bool)
    body[BODY] = True
    # A block that a body begins in, and the one beside it: less than 16 voxels.
    assert not region[~ndimage.maximum_filter(body, 31)].any()
    assert region.mean() < 0.6


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 9, 8), (17, 5, 30)])
def test_volume_without_air_is_all_body(shape):
    assert in_graph(body_region, np.zeros(shape, np.int16)).all()


def test_volume_of_air_has_no_body():
    assert not in_graph(body_region, np.full((9, 20, 20), -1024, np.int16)).any()


@pytest.mark.parametrize("voxels", [0, 1, 3])
def test_dilation_is_that_of_a_cube(voxels):
    region = np.random.default_rng(0).random((12, 14, 16)) > 0.99
    expected = region
    if voxels:
        expected = ndimage.binary_dilation(region, np.ones([2 * voxels + 1] * 3, bool))
    np.testing.assert_array_equal(in_graph(dilated, region, tf.constant(voxels)), expected)


@pytest.mark.parametrize("target", [(2.0, 2.0, 2.0), (1.1, 1.07, 1.03), (5.1, 0.8, 1.7)])
def test_resampled_region_holds_all_that_it_touches(target):
    region = np.zeros((20, 18, 16), bool)
    region[5:11, 4:12, 7] = True
    steps = spacing_steps(tf.constant(SPACING), target)
    resampled = in_graph(resample_region, region, steps)
    extent = [np.flatnonzero(resampled.any(axis=other)) for other in ((1, 2), (0, 2), (0, 1))]
    sides = zip(region.shape, resampled.shape, (5, 4, 7), (11, 12, 8), extent, steps, strict=True)
    for old, new, first, last, found, step in sides:
        centre = (old - 1) / 2 + (found - (new - 1) / 2) * float(step)  # voxels of the old grid
        reach = max(1.0, float(step))
        assert first - reach < centre[0] <= first
        assert last - 1 <= centre[-1] < last - 1 + reach


@pytest.mark.parametrize("shape", [(30, 40, 44), (3, 30, 5)])
def test_windows_without_a_voxel_of_the_region_are_not_computed(shape):
    tiling = Tiling((8, 12, 10), (8, 12, 10), (3, 5, 4))
    seen = tf.Variable(0)

    def predict(patches):
        seen.assign_add(tf.shape(patches)[0])
        blurred = tf.nn.avg_pool3d(patches, 3, 1, "SAME")
        return tf.nn.softmax(blurred * [0.0, 0.01, -0.01])  # hardly ever background

    window = SlidingWindow(predict, tiling, num_classes=3, batch_size=3)
    hu = make_hu(shape)
    region = np.zeros(shape, bool)
    region[2, 20:24, 3] = True
    segment = tf.function(window.segment)
    everywhere, all_windows = segment(hu).numpy(), int(seen)
    seen.assign(0)
    within = segment(hu, region).numpy()
    np.testing.assert_array_equal(within, np.where(region, everywhere, 0))
    assert within[region].any()
    starts = [tiling.starts(axis, max(n, tiling.tile[axis]), xp=np) for axis, n in enumerate(shape)]
    before = [max(n - size, 0) // 2 for n, size in zip(tiling.tile, shape, strict=True)]
    holds = [
        sum(start - pad < stop and start - pad + size > begin for start in along)
        for along, pad, size, (begin, stop) in zip(
            starts, before, tiling.tile, ((2, 3), (20, 24), (3, 4)), strict=True
        )
    ]
    assert int(seen) == np.prod(holds) < all_windows
    assert in_graph(window.count_windows, region) == np.prod(holds)
    assert tiling.count(shape, xp=np) == all_windows


class Counting(keras.layers.Layer):
    """Passes windows on, and counts them."""

    def build(self, input_shape):
        self.seen = tf.Variable(0, trainable=False)

    def call(self, inputs):
        self.seen.assign_add(tf.shape(inputs)[0])
        return tf.identity(inputs)


def make_counting():
    """A network that takes what is bright for an organ, and its count of windows."""
    hu = keras.Input((None, None, None, 1))
    counting = Counting()
    head = keras.layers.Conv3D(3, 1)
    model = keras.Model(hu, head(counting(hu)))
    kernel = np.array([0, 1, 0], "f4").reshape(1, 1, 1, 1, 3)
    head.set_weights([kernel, np.array([0, -200, -9], "f4")])
    return model, counting


@pytest.fixture(scope="module")
def coarse():
    info = make_info(**SIZES, spacing_mm=(4.0, 4.0, 4.0))
    return Coarse(make_segmenter(make_counting()[0], info), dilation_voxels=1)


@pytest.mark.parametrize(
    ("skip_air", "has_coarse", "names", "spacing", "with_probabilities"),
    [
        pytest.param(False, False, ["grid"], 2.0, False, marks=pytest.mark.slow),
        pytest.param(True, False, ["grid", "body"], 1.3, True, marks=pytest.mark.slow),
        pytest.param(False, True, ["grid", "coarse_region"], 1.3, True, marks=pytest.mark.slow),
        (True, True, ["grid", "body", "coarse_region"], 2.0, False),
    ],
)
def test_windows_are_counted_as_the_network_is_called(
    coarse, skip_air, has_coarse, names, spacing, with_probabilities
):
    network, counting = make_counting()
    segmenter = make_segmenter(network, make_info(**SIZES, skip_air=skip_air))
    volume = Volume(make_bright_organ(), np.diag([spacing, spacing, spacing, 1.0]))
    found = segment(
        segmenter,
        volume,
        coarse=coarse if has_coarse else None,
        with_probabilities=with_probabilities,
    )
    assert list(found.windows) == names
    assert list(found.windows.values()) == sorted(set(found.windows.values()), reverse=True)
    assert found.windows[names[-1]] == int(counting.seen)
    tiling = Tiling((8, 12, 10), (8, 12, 10), (3, 5, 4))
    shape = [round(size * spacing / 2) for size in volume.shape]
    assert found.windows["grid"] == tiling.count(shape, xp=np)


def make_bright_organ():
    """The scan, whose only bright part is inside its lungs."""
    hu = np.minimum(make_scan(), 0)
    hu[10:20, 60:70, 60:70] = 500
    return hu


@pytest.fixture(scope="module")
def segmenters():
    """By whether they skip air; their one network takes air alone for an organ."""
    network = make_network()
    network.get_layer("logits").bias.assign([0, 0.01, 0])
    sizes = SIZES | {"window": (16, 24, 20)}  # few of them
    return {
        skip_air: make_segmenter(network, make_info(**sizes, skip_air=skip_air))
        for skip_air in (False, True)
    }


def test_empty_region_is_all_background(segmenters):
    segmenter = segmenters[True]
    hu = make_hu((20, 20, 20))
    assert segmenter.segment_volume(hu, SPACING)["labels"].numpy().any()
    assert not segmenter.segment_grid(hu, np.zeros(hu.shape, bool))["ids"].numpy().any()


@pytest.mark.parametrize("spacing", [(2.0, 2.0, 2.0), (1.9, 2.3, 2.1)])
def test_skipping_air_changes_nothing_but_the_air(segmenters, spacing):
    hu, spacing = make_scan(), np.array(spacing, np.float32)
    looked, skipped = (
        segmenters[skip_air].segment_volume(hu, spacing)["labels"].numpy()
        for skip_air in (False, True)
    )
    region = in_graph(body_region, hu)
    np.testing.assert_array_equal(skipped[BODY], looked[BODY])
    assert looked[~region].all()
    assert not skipped[~region].any()


def test_padding_below_air_is_air(segmenters):
    hu = make_hu((20, 24, 22))
    hu[:, :6] = -1024
    padded = np.where(hu == -1024, np.int16(-3024), hu)
    spacing = np.array([2.5, 0.8, 0.93], np.float32)  # what is resampled is averaged
    air, padding = (
        segmenters[True].segment_volume(each, spacing)["labels"].numpy() for each in (hu, padded)
    )
    np.testing.assert_array_equal(padding, air)
    assert len(np.unique(air)) > 1


def test_info_of_older_models_does_not_skip():
    text = make_info(skip_air=True).to_json()
    assert ModelInfo.from_json(text).skip_air
    older = text.replace('"skip_air": true,', "")
    assert ModelInfo.from_json(older) == dataclasses.replace(make_info(), skip_air=False)
    assert ModelInfo.from_json(older).class_names == CLASSES


@pytest.mark.parametrize("skip_air", [True, False])
@pytest.mark.parametrize("spacing", [(2.0, 2.0, 2.0), (1.3, 1.1, 1.2)])
def test_the_stages_give_the_mask_of_the_served_model(segmenters, skip_air, spacing):
    """Voxel for voxel: they are the operations of one graph, in three parts and threads."""
    hu, segmenter = make_scan(), segmenters[skip_air]
    served = segmenter.segment_volume(hu, np.array(spacing, np.float32))["labels"].numpy()
    assert len(np.unique(served)) > 1
    volume = Volume(hu, np.diag([*spacing[::-1], 1.0]))
    np.testing.assert_array_equal(segment(segmenter, volume).mask, served)
