"""Where patches lie: the distribution of their centres, and what their labels hold."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
import tensorflow as tf
from scipy import stats
from small_records import make_record, write_dataset

from fcnseg.config import PRESETS, override
from fcnseg.records import Dataset, encode_record
from fcnseg.records.decoding import decode_record
from fcnseg.sampling import make_training_dataset
from fcnseg.sampling.augmentation import Augmentation
from fcnseg.sampling.centres import CentreRule, draw_centre

DRAWS = 10_000
# A chi-square test of the right distribution fails so often; seeds are fixed.
RARE = 1e-3
THIN, THICK = 30, 150  # slices
LABEL = (64, 96, 96)  # the patch of roth2018
SEED = 11


def record_of(shape, voxels, *, counts=None):
    """A record whose organs' stored voxels are given, in the order of their classes."""
    record = make_record("case", seed=0, shape=shape)
    return dataclasses.replace(
        record,
        foreground_coordinates=np.array(voxels, np.int32).reshape(-1, 3),
        foreground_counts=np.array([0, len(voxels)] if counts is None else [0, *counts]),
    )


def along_z(shape):
    """An organ with the same number of voxels in each slice."""
    return record_of(shape, [(z, shape[1] // 2, shape[2] // 2) for z in range(shape[0])])


def centres(record, rule, *, count=DRAWS, matrix=None):
    """So many centres (count, 3)."""
    decoded = decode_record(encode_record(record))

    def draw(number):
        seed = tf.stack([tf.constant(SEED, tf.int64), number])
        return draw_centre(decoded, seed, rule, matrix=matrix)

    drawn = tf.data.Dataset.range(count).map(draw, num_parallel_calls=2)
    return drawn.batch(count).get_single_element().numpy()


def is_likely(values, probabilities):
    """Whether whole numbers are drawn from a distribution {value: probability}."""
    found = dict(zip(*np.unique(values, return_counts=True), strict=True))
    assert set(found) <= set(probabilities)
    expected = np.array(list(probabilities.values())) * len(values)
    observed = np.array([found.get(value, 0) for value in probabilities])
    return stats.chisquare(observed, expected).pvalue > RARE


def translated(slices, length, most):
    """The distribution of centres about voxels in all slices alike, written another way.

    Of the translations up to the largest, those are left that keep the voxel in the label and, on
    neither side, have more of the longer one of label and volume outside the other.
    """

    def outside(centre):
        before = length // 2 - centre  # of the label, beyond the first slice
        after = length - slices - before  # beyond the last
        sign = 1 if slices >= length else -1
        return np.maximum(sign * np.array([before, after]), 0)

    found = dict.fromkeys(range(-length, slices + length), 0.0)
    for voxel in range(slices):
        allowed = [
            centre
            for centre in range(voxel - most, voxel + most + 1)
            if 0 <= voxel - centre + length // 2 < length
            and (outside(centre) <= outside(voxel)).all()
        ]
        for centre in allowed:
            found[centre] += 1 / len(allowed) / slices
    return {centre: share for centre, share in found.items() if share}


@pytest.mark.parametrize("slices", [THIN, THICK])
@pytest.mark.parametrize("translation", [(0, 0, 0), (20, 20, 20)])
def test_patches_anywhere_have_each_voxel_at_their_centre_alike(slices, translation):
    """Of 30 slices, the first and the last are the centre's in 2 of 30 patches."""
    shape = (slices, 10, 12)
    rule = CentreRule(LABEL, foreground_fraction=0.0, translation=translation)
    drawn = centres(along_z(shape), rule)
    for axis, length in enumerate(shape):
        assert is_likely(drawn[:, axis], dict.fromkeys(range(length), 1 / length))


@pytest.mark.parametrize("slices", [THIN, 50, 64, 70, THICK])
@pytest.mark.parametrize("length", [64, 17])
def test_translation_is_uniform_within_the_volume(slices, length):
    rule = CentreRule((length, 8, 8), foreground_fraction=1.0, translation=(20, 0, 0))
    drawn = centres(along_z((slices, 10, 12)), rule)
    assert is_likely(drawn[:, 0], translated(slices, length, 20))
    assert (drawn[:, 1:] == (5, 6)).all()


@pytest.mark.parametrize(("slices", "most"), [(THIN, 0.05), (THICK, 0.03)])
def test_centres_do_not_pile_up(slices, most):
    """No slice is the centre's more than twice as often as if all were alike."""
    rule = CentreRule(LABEL, foreground_fraction=1.0, translation=(20, 20, 20))
    drawn = centres(along_z((slices, 100, 100)), rule)[:, 0]
    assert np.unique(drawn, return_counts=True)[1].max() / DRAWS < most
    inside = np.minimum(drawn + 32, slices) - np.maximum(drawn - 32, 0)
    still = np.arange(slices)
    without = np.minimum(still + 32, slices) - np.maximum(still - 32, 0)
    assert inside.mean() >= without.mean()  # translation costs no voxel of the volume


def test_without_translation_the_voxel_is_at_the_centre():
    record = along_z((THIN, 10, 12))
    drawn = centres(record, CentreRule(LABEL, foreground_fraction=1.0))
    assert is_likely(drawn[:, 0], dict.fromkeys(range(THIN), 1 / THIN))


@pytest.mark.parametrize("fraction", [0.0, 0.3, 0.67, 1.0])
def test_foreground_fraction_is_the_probability_of_a_patch_for_an_organ(fraction):
    """Organs of 1 and of 999 voxels are drawn alike; nothing else is at these two places."""
    voxels = [(0, 0, 0), *[(99, 99, 99)] * 999]
    record = record_of((100, 100, 100), voxels, counts=[1, 999])
    drawn = centres(record, CentreRule((8, 8, 8), foreground_fraction=fraction))
    at = [(drawn == place).all(axis=1).sum() for place in ((0, 0, 0), (99, 99, 99))]
    std = np.sqrt(DRAWS * fraction / 2 * (1 - fraction / 2))
    for found in at:
        assert abs(found - DRAWS * fraction / 2) <= 4 * std + 1


EXTREMES = {
    "roth2018": (PRESETS["roth2018"], (1.0, 1.0, 1.0)),
    "roth2018, thick slices": (PRESETS["roth2018"], (5.0, 0.8, 0.8)),
    "fcn_s": (PRESETS["fcn_s"], (1.5, 1.5, 1.5)),
    "demo": (PRESETS["demo"], (4.0, 4.0, 4.0)),
    "small patch": (
        override(PRESETS["fcn_s"], {"patches.size": (34, 40, 37)}),
        (1.0, 1.0, 1.0),
    ),
    "flips, field, label is the middle": (
        override(
            PRESETS["roth2018"],
            {"augmentation.flip": (0.5, 0.5, 0.5), "augmentation.deformation_of": "field"},
        ),
        (1.0, 1.0, 1.0),
    ),
}


@pytest.mark.parametrize("name", EXTREMES)
def test_label_holds_the_voxel_whatever_is_drawn(name):
    """Of 2000 patches each has, in its label, the voxel within half a voxel of where it moved."""
    config, spacing = EXTREMES[name]
    size = config.patches.size
    label_size = tuple(n - 20 for n in size) if "middle" in name else size
    changes = Augmentation(config.augmentation, size, label_size, spacing)
    voxel = np.array([70, 70, 70])
    record = decode_record(encode_record(record_of((140, 140, 140), [voxel])))
    rule = CentreRule(
        label_size,
        foreground_fraction=1.0,
        translation=config.augmentation.translation_voxels,
        displacement=changes.largest_displacement,
    )

    def draw(number):
        seed = tf.stack([tf.constant(SEED, tf.int64), number])
        parameters = changes.draw(seed)
        matrix = parameters["matrix"] if config.augmentation.warps else None
        return draw_centre(record, seed, rule, matrix=matrix), parameters["matrix"]

    drawn = tf.data.Dataset.range(2000).map(draw).batch(2000).get_single_element()
    middle = drawn[0].numpy() - (1 - np.array(size) % 2) / 2  # of the patch, between two voxels
    back = np.linalg.inv(drawn[1].numpy())
    carried = np.einsum("nij,nj->ni", back, voxel - middle)
    bent = np.einsum("nij,j->ni", np.abs(back), changes.largest_displacement)
    assert (np.abs(carried) + bent <= np.array(label_size) / 2).all()
    if any(config.augmentation.translation_voxels):
        assert len(np.unique(drawn[0].numpy(), axis=0)) > 1000


@pytest.mark.parametrize("run_on", ["host", "device"])
@pytest.mark.parametrize("preset", ["roth2018", "demo"])
def test_each_patch_for_an_organ_shows_it(tmp_path, preset, run_on):
    """Of a case with one ball of an organ, 40 of 40 patches under the preset show it."""
    shape = (40, 110, 110)
    z, y, x = np.ogrid[: shape[0], : shape[1], : shape[2]]
    ball = (z - 8) ** 2 + (y - 50) ** 2 + (x - 90) ** 2 <= 4
    record = dataclasses.replace(
        record_of(shape, [(8, 50, 90)]), label=ball.astype(np.uint8), image=ball.astype(np.int16)
    )
    folder = write_dataset(tmp_path / "records", {"train": [[record]]})
    config = PRESETS[preset]
    settings = dataclasses.replace(
        config.patches, batch_size=4, shuffle_buffer=4, foreground_fraction=1.0
    )
    augmentation = dataclasses.replace(config.augmentation, run_on=run_on)
    changes = Augmentation(augmentation, settings.size, settings.size, (2.0, 2.0, 2.0))
    batches = make_training_dataset(
        Dataset.open(folder), settings, seed=0, augmentation=augmentation
    )
    for batch in itertools.islice(batches, 10):
        label = batch.label
        if batch.parameters:
            _, label = changes.apply(batch.hu, label, batch.parameters)
        assert tf.reduce_any(label == 1, axis=(1, 2, 3)).numpy().all()
