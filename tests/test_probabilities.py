"""Probabilities of each class beside the masks, on the grid of the image."""

from __future__ import annotations

import shutil

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
import tensorflow as tf
from scripts import output_of
from small_models import (
    CROP,
    make_hu,
    make_info,
    make_network,
    make_oblique_volume,
    write_run,
)

from fcnseg.cli.predict import PredictCommand
from fcnseg.errors import InputError
from fcnseg.inference import case_prediction, make_segmenter, predict_volume
from fcnseg.inference.prediction import predict_probabilities
from fcnseg.inference.sliding_window import PROBABILITY_SCALE
from fcnseg.volumes import Volume, read_ct, write_volume

NAMES = ("000_background.nii.gz", "001_liver.nii.gz", "002_spleen.nii.gz")
NEAR = 2 / PROBABILITY_SCALE  # rounded once on either grid


def probabilities_of(segmenter, volume):
    mask, parts = predict_probabilities(segmenter, volume)
    return mask, np.stack(list(parts), axis=-1) / PROBABILITY_SCALE


def volume_of(hu, spacing=(2.0, 2.0, 2.0)):
    return Volume(hu, np.diag([*spacing[::-1], 1.0]))


@pytest.fixture(scope="module")
def network():
    return make_network()


@pytest.fixture(scope="module")
def segmenter(network):
    return make_segmenter(network, make_info(skip_air=False))


def test_one_window_has_the_softmax_of_the_network(network, segmenter):
    hu = make_hu(segmenter.info.window)
    mask, found = probabilities_of(segmenter, volume_of(hu))
    logits = network(hu[np.newaxis, ..., np.newaxis].astype(np.float32))[0]
    np.testing.assert_allclose(found, tf.nn.softmax(logits), rtol=0, atol=NEAR)
    np.testing.assert_array_equal(mask, np.argmax(logits, axis=-1))


@pytest.mark.parametrize("shape", [(13, 31, 29), (3, 30, 5), (40, 12, 10)])
def test_windows_are_averaged_and_the_largest_is_the_mask(segmenter, shape):
    volume = volume_of(make_hu(shape))
    mask, found = probabilities_of(segmenter, volume)
    np.testing.assert_array_equal(mask, predict_volume(segmenter, volume))
    np.testing.assert_allclose(found.sum(axis=-1), 1, rtol=0, atol=3 * NEAR)
    of_mask = np.take_along_axis(found, mask[..., np.newaxis].astype(int), axis=-1)[..., 0]
    np.testing.assert_allclose(of_mask, found.max(axis=-1), rtol=0, atol=NEAR)
    assert len(np.unique(mask)) > 1


@pytest.mark.slow
def test_networks_are_averaged(network, segmenter):
    other, volume = make_network(seed=1), volume_of(make_hu((13, 31, 29)))
    (_, first), (_, second), (_, both) = (
        probabilities_of(each, volume)
        for each in (
            segmenter,
            make_segmenter(other, segmenter.info),
            make_segmenter([network, other], segmenter.info),
        )
    )
    np.testing.assert_allclose(both, (first + second) / 2, rtol=0, atol=NEAR)
    assert np.abs(first - second).max() > 0.01


@pytest.fixture(scope="module")
def skips_air():
    """A segmenter that takes all that it looks at for an organ."""
    network = make_network()
    network.get_layer("logits").bias.assign([0, 1, 1])
    return make_segmenter(network, make_info(skip_air=True))


@pytest.mark.parametrize("spacing", [(2.0, 2.0, 2.0), (1.3, 2.9, 2.2)])
def test_what_is_not_looked_at_is_background(skips_air, spacing):
    hu = np.full((24, 30, 30), -1000, np.int16)
    hu[:, 10:14, 10:14] = make_hu((24, 4, 4)) // 4 + 300
    volume = volume_of(hu, spacing)
    mask, found = probabilities_of(skips_air, volume)
    assert mask[12, 12, 12] != 0
    assert mask[12, 29, 29] == 0
    np.testing.assert_array_equal(found[12, 29, 29], [1, 0, 0])
    assert found[12, 12, 12, 0] < 0.5


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("probabilities") / "run")


def write_images(folder):
    folder.mkdir()
    for seed, name in enumerate(("one.nii.gz", "two.nii.gz")):
        write_volume(make_oblique_volume((15, 14, 18), seed=seed), folder / name)
    return folder


@pytest.fixture(scope="module")
def done(run_dir, tmp_path_factory):
    """Images, and their masks with probabilities."""
    images = write_images(tmp_path_factory.mktemp("done") / "images")
    predict(run_dir, images, probabilities=True)
    return images.parent


@pytest.fixture
def images(done, tmp_path):
    """A copy of the images, alongside their masks."""
    shutil.copytree(done / "masks", tmp_path / "masks")
    return shutil.copytree(done / "images", tmp_path / "images")


def predict(run_dir, images, **flags):
    PredictCommand(
        (run_dir,), images=images, output=images.parent / "masks", **flags, accept=CROP
    ).run()
    return images.parent / "masks"


def test_files_lie_on_exactly_the_grid_of_their_image(segmenter_of_run, done):
    images, masks = done / "images", done / "masks"
    folder = masks / "probabilities/one"
    assert sorted(path.name for path in folder.iterdir()) == list(NAMES)
    assert sorted(path.name for path in masks.glob("*.nii.gz")) == ["one.nii.gz", "two.nii.gz"]
    source = nib.load(images / "one.nii.gz")
    written = [nib.load(folder / name) for name in NAMES]
    for image in written:
        assert image.get_data_dtype() == np.int16
        for field in ("qform_code", "sform_code", "pixdim", "quatern_b", "srow_x"):
            np.testing.assert_array_equal(image.header[field], source.header[field])
    total = sum(image.get_fdata() for image in written)
    np.testing.assert_allclose(total, 1, rtol=0, atol=3 * NEAR)
    mask, found = probabilities_of(segmenter_of_run, read_ct(images / "one.nii.gz"))
    np.testing.assert_array_equal(np.asarray(nib.load(masks / "one.nii.gz").dataobj).T, mask)
    np.testing.assert_allclose(written[1].get_fdata().T, found[..., 1], rtol=0, atol=1e-6)
    by_itk = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(folder / NAMES[1])))
    np.testing.assert_allclose(by_itk, found[..., 1], rtol=0, atol=1e-6)


@pytest.mark.usefixtures("shared_segmenter")
def test_resume_does_a_case_that_lacks_them(run_dir, images):
    masks = images.parent / "masks"
    for path in (masks / "probabilities/two").iterdir():
        path.unlink()
    (masks / "probabilities/two").rmdir()
    untouched = (masks / "probabilities/one" / NAMES[0]).stat().st_mtime_ns
    predict(run_dir, images, probabilities=True, resume=True)
    assert len(list((masks / "probabilities/two").iterdir())) == 3
    assert (masks / "probabilities/one" / NAMES[0]).stat().st_mtime_ns == untouched
    with pytest.raises(InputError, match="probabilities was True, got None"):
        predict(run_dir, images, resume=True)


@pytest.mark.usefixtures("shared_segmenter")
def test_old_ones_do_not_stay_beside_new_masks(run_dir, images):
    masks = predict(run_dir, images, overwrite=True)
    assert not list((masks / "probabilities").iterdir())


@pytest.mark.usefixtures("shared_segmenter")
def test_a_case_that_fails_in_the_midst_leaves_none(run_dir, tmp_path, monkeypatch):
    images = write_images(tmp_path / "images")
    write = case_prediction.write_parts

    def write_first_only(parts, path, **options):
        if path.name != NAMES[0]:
            raise OSError("no space left")
        write(parts, path, **options)

    monkeypatch.setattr(case_prediction, "write_parts", write_first_only)
    with pytest.raises(InputError, match=r"2 of 2 volumes failed: one: .*/one: no space left"):
        predict(run_dir, images, probabilities=True)
    masks = images.parent / "masks"
    assert not list((masks / "probabilities").iterdir())
    assert not list(masks.glob("*.nii.gz"))


@pytest.mark.slow
def test_they_are_held_once_in_two_bytes():
    """8 classes of 13 million voxels: 210 MB, and each class on its own takes 26 MB."""
    script = """
import keras, numpy as np
from fcnseg.inference import make_segmenter, predict_probabilities
from fcnseg.volumes import Volume
from scripts import peak_bytes
from small_models import make_info

network = keras.Sequential([keras.Input((None, None, None, 1)), keras.layers.Conv3D(8, 1)])
info = make_info(
    class_names=tuple("abcdefgh"), window=(40, 64, 64), overlap=(0, 0, 0), batch_size=1,
    max_voxels=200 * 256 * 256,
)
segmenter = make_segmenter(network, info)

def predict(shape):
    volume = Volume(np.zeros(shape, np.int16), np.diag([2, 2, 2, 1]))
    for parts in predict_probabilities(segmenter, volume)[1]:
        assert parts.shape == shape

predict((40, 64, 64))
before = peak_bytes()
predict((200, 256, 256))
print("grown", peak_bytes() - before)
"""
    assert int(output_of(script).split("grown")[1]) < 480 * 2**20
