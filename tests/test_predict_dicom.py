"""The predict command's DICOM Segmentations and RT Structure Sets beside the masks."""

from __future__ import annotations

import json
import shutil
import sys

import nibabel as nib
import numpy as np
import pydicom
import pytest
from dicom_series import make_enhanced, make_slices, write
from small_models import CROP, make_oblique_volume, write_run

from fcnseg.cli.predict import PredictCommand
from fcnseg.conversion.case_lists.folders import volumes_in
from fcnseg.errors import InputError, MissingExtraError
from fcnseg.evaluation import pair_files
from fcnseg.inference import case_prediction
from fcnseg.volumes import list_volumes, read_ct, read_label, write_volume

BOTH = {"dicom_seg": True, "rtstruct": True}
FILES = {"one.nii.gz", "one.seg.dcm", "one.rtstruct.dcm", "two.nii.gz", "two.seg.dcm"}
FILES |= {"two.rtstruct.dcm", "one.json", "two.json", "volumes.csv", "organs.label", "organs.ctbl"}


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("predict_dicom") / "run")


def write_images(folder):
    """A series, and a multi-frame object."""
    write(make_slices(make_oblique_volume((6, 9, 8)).array), folder / "one")
    enhanced = make_enhanced(make_oblique_volume((6, 9, 8), seed=1).array)
    enhanced.save_as(folder / "two.dcm", enforce_file_format=True)
    return folder


@pytest.fixture(scope="module")
def done(run_dir, tmp_path_factory):
    folder = tmp_path_factory.mktemp("done")
    write_images(folder / "images")
    PredictCommand(
        (run_dir,), images=folder / "images", output=folder / "masks", accept=CROP, **BOTH
    ).run()
    return folder


def names_in(folder):
    return {path.name for path in folder.iterdir()}


def test_masks_have_their_dicom_beside_them(done):
    assert names_in(done / "masks") == FILES
    for case_id, image in (("one", "one"), ("two", "two.dcm")):
        volume = read_ct(done / "images" / image)
        mask = np.asarray(nib.load(done / f"masks/{case_id}.nii.gz").dataobj).T
        assert len(np.unique(mask)) > 1
        seg = done / f"masks/{case_id}.seg.dcm"
        np.testing.assert_array_equal(read_label(seg, like=volume.geometry).array, mask)
        labels = [segment.SegmentLabel for segment in pydicom.dcmread(seg).SegmentSequence]
        assert labels == ["liver", "spleen"]
        regions = pydicom.dcmread(done / f"masks/{case_id}.rtstruct.dcm").StructureSetROISequence
        found = np.unique(mask[mask > 0]).tolist()
        assert [region.ROINumber for region in regions] == found
        made_with = json.loads((done / f"masks/{case_id}.json").read_text())["made_with"]
        assert made_with["dicom_seg"] is made_with["rtstruct"] is True
        for items in (
            pydicom.dcmread(seg).SegmentSequence[0].SegmentationAlgorithmIdentificationSequence,
            regions[0].ROIDerivationAlgorithmIdentificationSequence,
        ):
            assert items[0].AlgorithmParameters == "made_with=" + json.dumps(
                made_with, separators=(",", ":")
            )


@pytest.mark.slow
def test_each_flag_writes_its_own_file(run_dir, done, tmp_path):
    for flag, name in (("dicom_seg", "one.seg.dcm"), ("rtstruct", "one.rtstruct.dcm")):
        command = PredictCommand(
            (run_dir,),
            images=done / "images/one",
            output=tmp_path / flag,
            accept=CROP,
            **{flag: True},
        )
        command.run()
        assert {each for each in names_in(tmp_path / flag) if each.endswith(".dcm")} == {name}


@pytest.mark.parametrize("flag", BOTH)
def test_image_that_is_no_dicom_is_refused_before_anything_is_predicted(done, tmp_path, flag):
    images = shutil.copytree(done / "images", tmp_path / "images")
    write_volume(make_oblique_volume((6, 9, 8)), images / "three.nii.gz")
    command = PredictCommand(
        (tmp_path / "no_run",), images=images, output=tmp_path / "masks", **{flag: True}
    )
    message = rf"{flag} must be given for images of DICOM alone, got .*three.nii.gz \(case three\)"
    with pytest.raises(InputError, match=message):
        command.run()
    assert not (tmp_path / "masks").exists()


def test_missing_package_is_named_before_anything_is_predicted(done, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "contourpy", None)
    command = PredictCommand(
        (tmp_path,), images=done / "images", output=tmp_path / "masks", rtstruct=True
    )
    with pytest.raises(MissingExtraError, match="contourpy is not installed"):
        command.run()


def test_images_that_cannot_be_referred_to_are_not_segmented(run_dir, tmp_path, monkeypatch):
    """Other cases are still predicted."""
    images = write_images(tmp_path / "images")
    for file in (images / "one").iterdir():
        made = pydicom.dcmread(file)
        del made.FrameOfReferenceUID
        made.save_as(file)
    segmented = []
    compute = case_prediction.compute

    def segmenting(*arguments, **options):
        segmented.append(1)
        return compute(*arguments, **options)

    monkeypatch.setattr(case_prediction, "compute", segmenting)
    with pytest.raises(InputError, match="1 of 2 volumes failed: one: .*no FrameOfReferenceUID"):
        PredictCommand(
            (run_dir,), images=images, output=tmp_path / "masks", accept=CROP, **BOTH
        ).run()
    assert names_in(tmp_path / "masks") == {name for name in FILES if not name.startswith("one")}
    assert len(segmented) == 1


def test_resume_repeats_only_what_is_not_whole(run_dir, done, tmp_path, caplog):
    masks = shutil.copytree(done / "masks", tmp_path / "masks")
    (masks / "two.rtstruct.dcm").unlink()
    before = {path.name: path.stat().st_mtime_ns for path in masks.iterdir()}
    with caplog.at_level("INFO"):
        PredictCommand(
            (run_dir,), images=done / "images", output=masks, resume=True, accept=CROP, **BOTH
        ).run()
    assert names_in(masks) == FILES
    assert "left out: 1 cases" in caplog.text
    for name in ("one.nii.gz", "one.seg.dcm", "one.rtstruct.dcm", "one.json"):
        assert (masks / name).stat().st_mtime_ns == before[name]


def test_resume_with_a_flag_more_adds_its_files(run_dir, done, tmp_path):
    masks = tmp_path / "masks"
    plain = PredictCommand((run_dir,), images=done / "images", output=masks, accept=CROP)
    plain.run()
    PredictCommand(
        (run_dir,), images=done / "images", output=masks, accept=CROP, resume=True, **BOTH
    ).run()
    assert names_in(masks) == FILES
    with pytest.raises(InputError, match="one.nii.gz began with: dicom_seg was True, got None"):
        PredictCommand(
            (run_dir,), images=done / "images", output=masks, accept=CROP, resume=True
        ).run()


def test_overwriting_leaves_no_dicom_of_another_mask(run_dir, done, tmp_path):
    masks = shutil.copytree(done / "masks", tmp_path / "masks")
    PredictCommand(
        (run_dir,), images=done / "images", output=masks, overwrite=True, accept=CROP
    ).run()
    assert names_in(masks) == {name for name in FILES if not name.endswith(".dcm")}


def test_dicom_that_is_there_is_not_replaced(run_dir, done, tmp_path):
    masks = tmp_path / "masks"
    masks.mkdir()
    (masks / "two.seg.dcm").write_bytes(b"precious")
    with pytest.raises(InputError, match="two.seg.dcm is there already: give --overwrite"):
        PredictCommand((run_dir,), images=done / "images", output=masks, accept=CROP, **BOTH).run()
    assert names_in(masks) == {"two.seg.dcm"}


def test_mask_is_written_after_its_dicom(run_dir, done, tmp_path, monkeypatch):
    """The mask says that a case is whole."""

    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("fcnseg.masks.case_outputs.write_mask", fail)
    with pytest.raises(InputError, match="2 of 2 volumes failed"):
        PredictCommand(
            (run_dir,), images=done / "images", output=tmp_path / "m", accept=CROP, **BOTH
        ).run()
    assert {"one.seg.dcm", "one.rtstruct.dcm"} < names_in(tmp_path / "m")
    assert "one.nii.gz" not in names_in(tmp_path / "m")


def test_images_and_output_may_be_in_a_store(run_dir, done, tmp_path, objects):
    for path in (done / "images").rglob("*.dcm"):
        name = path.relative_to(done / "images").as_posix()
        objects[f"memory://scans/{name}"] = path.read_bytes()
    command = PredictCommand(
        (run_dir,), images="memory://scans", output="memory://masks", accept=CROP, **BOTH
    )
    command.run()
    for case_id, image in (("one", "one"), ("two", "two.dcm")):
        for name in (f"{case_id}.seg.dcm", f"{case_id}.rtstruct.dcm"):
            (tmp_path / name).write_bytes(objects[f"memory://masks/{name}"])
        geometry = read_ct(done / "images" / image).geometry
        found = read_label(tmp_path / f"{case_id}.seg.dcm", like=geometry).array
        mask = np.asarray(nib.load(done / f"masks/{case_id}.nii.gz").dataobj).T
        np.testing.assert_array_equal(found, mask)
    write_volume(make_oblique_volume((6, 9, 8)), tmp_path / "three.nii.gz")
    objects["memory://scans/three.nii.gz"] = (tmp_path / "three.nii.gz").read_bytes()
    with pytest.raises(InputError, match=r"dicom_seg must be .* got memory://.*\(case three\)"):
        PredictCommand((run_dir,), images="memory://scans", output="memory://other", **BOTH).run()


def test_folder_of_masks_has_one_file_for_each_case(done, objects, tmp_path):
    """For an evaluation, or as labels of a conversion."""
    masks = done / "masks"
    assert {key: path.name for key, path in list_volumes(masks).items()} == {
        "one": "one.nii.gz",
        "two": "two.nii.gz",
    }
    assert [len(paths) for paths in volumes_in(str(masks)).values()] == [1, 1]
    labels = shutil.copytree(masks, tmp_path / "labels")  # a label is not its own mask
    assert [files.wrong for files in pair_files(masks, labels)] == [None, None]
    for path in masks.iterdir():
        objects[f"memory://masks/{path.name}"] = path.read_bytes()
    assert {*volumes_in("memory://masks")} == {"one", "two"}


def test_segmentation_that_prediction_did_not_write_is_a_file_of_its_case(done, tmp_path):
    for name in ("one.nii.gz", "one.seg.dcm"):  # and no one.json
        shutil.copy(done / "masks" / name, tmp_path)
    with pytest.raises(InputError, match=r"must have one file, got one.nii.gz and one.seg.dcm"):
        list_volumes(tmp_path)
    assert len(volumes_in(str(tmp_path))["one"]) == 2


def test_without_a_flag_headers_are_not_read_twice(run_dir, done, tmp_path, monkeypatch):
    monkeypatch.setattr("fcnseg.volumes.formats.dicom.outputs.read_dicom_source", None)
    PredictCommand((run_dir,), images=done / "images", output=tmp_path, accept=CROP).run()
