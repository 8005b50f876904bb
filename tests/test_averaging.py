"""Means of probabilities: over flips and over the networks of several runs."""

from __future__ import annotations

import itertools

import keras
import nibabel as nib
import numpy as np
import pytest
import tensorflow as tf
from small_models import CROP, make_hu, make_info, make_network, make_oblique_volume, write_run

from fcnseg.cli.predict import PredictCommand
from fcnseg.errors import InputError, ModelError
from fcnseg.inference import load_run, load_runs, make_segmenter, predict_volume
from fcnseg.volumes import read_ct, write_volume

PATCHES = make_hu((2, 8, 12, 10)).astype(np.float32)[..., None]


def probabilities(models, **how):
    segmenter = make_segmenter(models, make_info(), **how)  # its functions do not keep it alive
    return segmenter.predict_patches(PATCHES)["probabilities"]


@pytest.mark.parametrize("axes", ["", "z", "yx", "xzy"])
def test_flips_are_averaged(axes):
    network = make_network()
    numbers = ["zyx".index(axis) + 1 for axis in axes]
    expected = []
    for flip in itertools.product(*((False, True) for _ in numbers)):
        axis = tuple(n for n, is_flipped in zip(numbers, flip, strict=True) if is_flipped)
        expected.append(np.flip(tf.nn.softmax(network(np.flip(PATCHES, axis))), axis))
    assert len(expected) == 2 ** len(axes)
    found = probabilities(network, flips=tuple(axes))
    np.testing.assert_allclose(found, np.mean(expected, axis=0), atol=1e-6)


def test_networks_are_averaged_and_flipped_together():
    networks = [make_network(seed=seed) for seed in range(3)]
    expected = np.mean([probabilities(network) for network in networks], axis=0)
    np.testing.assert_allclose(probabilities(networks), expected, atol=1e-6)
    flipped = np.mean([probabilities(network, flips=("y",)) for network in networks], axis=0)
    np.testing.assert_allclose(probabilities(networks, flips=("y",)), flipped, atol=1e-6)


def test_networks_that_give_other_tiles_are_refused():
    cropping = keras.Sequential(
        [keras.Input((None, None, None, 1)), keras.layers.Conv3D(3, 3, padding="valid")]
    )
    with pytest.raises(ModelError, match=r"tiles of one size .* \[\(6, 10, 8\), \(8, 12, 10\)\]"):
        make_segmenter([make_network(), cropping], make_info())


@pytest.mark.slow
def test_command_averages_runs_over_flips(tmp_path):
    runs = tuple(write_run(tmp_path / f"run_{seed}", seed=seed) for seed in range(2))
    write_volume(make_oblique_volume(), tmp_path / "case.nii")
    PredictCommand(
        runs,
        images=tmp_path / "case.nii",
        output=tmp_path / "masks",
        flips=("z", "x"),
        accept=CROP,
    ).run()
    mask = np.asarray(nib.load(tmp_path / "masks/case.nii.gz").dataobj).T
    volume = read_ct(tmp_path / "case.nii")
    both = make_segmenter(*load_runs(runs), flips=("z", "x"))
    np.testing.assert_array_equal(mask, predict_volume(both, volume))
    for run in runs:
        assert (predict_volume(make_segmenter(*load_run(run)), volume) != mask).any()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"spacing_mm": (2.0, 2.0, 3.0)}, r"same spacing_mm, got \(2.0, 2.0, 2.0\) in .*one and"),
        ({"class_names": ("background", "spleen", "liver")}, "same class_names, got .*two"),
        ({"window": (8, 8, 8)}, r"same window, got \(8, 12, 10\)"),
        ({"overlap": (3, 5, 5)}, "same overlap"),
        ({"skip_air": True}, "same skip_air, got False .* True"),
    ],
)
def test_runs_that_differ_are_refused(tmp_path, changes, message):
    runs = [write_run(tmp_path / "one", skip_air=False)]
    runs.append(write_run(tmp_path / "two", **{"skip_air": False, **changes}))
    with pytest.raises(InputError, match=message):
        load_runs(runs)
