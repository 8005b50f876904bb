"""The predict command: masks on their images' grids, and what it does about bad input."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
from small_models import make_oblique_volume, write_run

from fcnseg.errors import InputError
from fcnseg.inference import load_run, make_segmenter, predict_volume
from fcnseg.predict import PredictCommand
from fcnseg.volumes import read_ct, write_volume


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("predict") / "run")


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for number, name in enumerate(("one_0000.nii.gz", "two.nii")):
        write_volume(make_oblique_volume((15 + number, 14, 18), seed=number), folder / name)
    return folder


def test_mask_lies_on_exactly_the_grid_of_its_image(run_dir, images, tmp_path):
    PredictCommand(run_dir, images, tmp_path / "masks").run()
    masks = {path.name for path in (tmp_path / "masks").iterdir()}
    assert masks == {"one.nii.gz", "two.nii.gz"}
    segmenter = make_segmenter(*load_run(run_dir))
    for image, mask in (("one_0000.nii.gz", "one.nii.gz"), ("two.nii", "two.nii.gz")):
        source, written = nib.load(images / image), nib.load(tmp_path / "masks" / mask)
        assert written.get_data_dtype() == np.uint8
        np.testing.assert_array_equal(written.affine, source.affine)
        for field in ("qform_code", "sform_code", "pixdim", "quatern_b", "srow_x"):
            np.testing.assert_array_equal(written.header[field], source.header[field])
        expected = predict_volume(segmenter, read_ct(images / image))
        np.testing.assert_array_equal(np.asarray(written.dataobj).T, expected)
        assert len(np.unique(expected)) > 1


def test_one_file_is_enough(run_dir, images, tmp_path):
    PredictCommand(run_dir, images / "two.nii", tmp_path / "deep" / "masks").run()
    assert [path.name for path in (tmp_path / "deep" / "masks").iterdir()] == ["two.nii.gz"]


def test_a_bad_volume_does_not_stop_the_others(run_dir, images, tmp_path, caplog):
    (images / "broken.nii.gz").write_bytes(b"no volume")
    with pytest.raises(InputError, match=r"1 of 3 volumes failed: broken: .*broken.nii.gz"):
        PredictCommand(run_dir, images, tmp_path / "masks").run()
    assert {path.name for path in (tmp_path / "masks").iterdir()} == {"one.nii.gz", "two.nii.gz"}
    assert "failed: broken" in caplog.text


def test_masks_are_replaced_only_when_told_to(run_dir, images, tmp_path):
    masks = tmp_path / "masks"
    masks.mkdir()
    (masks / "two.nii.gz").write_bytes(b"precious")
    with pytest.raises(InputError, match=r"two.nii.gz is there already: give --overwrite"):
        PredictCommand(run_dir, images, masks).run()
    assert [path.name for path in masks.iterdir()] == ["two.nii.gz"]
    assert (masks / "two.nii.gz").read_bytes() == b"precious"
    PredictCommand(run_dir, images, masks, overwrite=True).run()
    assert nib.load(masks / "two.nii.gz").shape == (18, 14, 16)


@pytest.mark.parametrize(
    ("name", "message"),
    [("absent", "must be a volume or a folder of volumes, got .*absent"), ("", "no volume")],
)
def test_missing_and_empty_folders_are_refused(run_dir, tmp_path, name, message):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=message):
        PredictCommand(run_dir, tmp_path / "empty" / name, tmp_path / "masks").run()
    assert not (tmp_path / "masks").exists()


def test_unfinished_run_is_refused(images, tmp_path):
    run_dir = write_run(tmp_path / "run", finished=False)
    with pytest.raises(InputError, match="is not a finished run"):
        PredictCommand(run_dir, images, tmp_path / "masks").run()
    assert not (tmp_path / "masks").exists()


def test_network_that_is_not_whole_is_refused(images, tmp_path):
    run_dir = write_run(tmp_path / "run")
    (run_dir / "best.keras").write_bytes(b"PK half")
    with pytest.raises(InputError, match="not a whole network: .*best.keras"):
        PredictCommand(run_dir, images, tmp_path / "masks").run()
