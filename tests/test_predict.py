"""The predict command: masks on their images' grids, and what it does about bad input."""

from __future__ import annotations

import csv
import dataclasses
import json
import re
import shlex
import shutil
import threading
from xml.etree import ElementTree

import dicom_series
import nibabel as nib
import numpy as np
import pytest
import SimpleITK
import tensorflow as tf
from small_models import CONFIG, CROP, make_oblique_volume, write_run

from fcnseg.cli.predict import PredictCommand
from fcnseg.config import override
from fcnseg.errors import InputError
from fcnseg.inference import case_prediction, load_run, predict_volume
from fcnseg.inference.postprocessing import Postprocessing, postprocess
from fcnseg.masks.case_outputs import CaseOutputs
from fcnseg.networks.build import build_fcn
from fcnseg.runs import read_run
from fcnseg.volumes import Volume, list_images, read_ct, write_volume


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("predict") / "run")


@pytest.fixture
def images(tmp_path):
    return write_images(tmp_path / "images")


@pytest.fixture(scope="module")
def done(run_dir, tmp_path_factory):
    """A folder of images, and one of what the command makes of them."""
    folder = tmp_path_factory.mktemp("done")
    write_images(folder / "images")
    PredictCommand((run_dir,), images=folder / "images", output=folder / "masks", accept=CROP).run()
    return folder


def write_images(folder):
    folder.mkdir()
    for number, name in enumerate(("one_0000.nii.gz", "two.nii")):
        write_volume(make_oblique_volume((15 + number, 14, 18), seed=number), folder / name)
    return folder


def masks_in(folder):
    return {path.name for path in folder.glob("*.nii*")}


def test_mask_lies_on_exactly_the_grid_of_its_image(segmenter_of_run, done):
    files = {path.name for path in (done / "masks").iterdir()}
    tables = {"volumes.csv", "organs.label", "organs.ctbl"}
    assert files == {"one.nii.gz", "one.json", "two.nii.gz", "two.json"} | tables
    for image, mask in (("one_0000.nii.gz", "one.nii.gz"), ("two.nii", "two.nii.gz")):
        source, written = nib.load(done / "images" / image), nib.load(done / "masks" / mask)
        assert written.get_data_dtype() == np.uint8
        np.testing.assert_array_equal(written.affine, source.affine)
        for field in ("qform_code", "sform_code", "pixdim", "quatern_b", "srow_x"):
            np.testing.assert_array_equal(written.header[field], source.header[field])
        expected = predict_volume(segmenter_of_run, read_ct(done / "images" / image))
        np.testing.assert_array_equal(np.asarray(written.dataobj).T, expected)
        assert len(np.unique(expected)) > 1


@pytest.mark.usefixtures("shared_segmenter")
def test_one_file_is_enough(run_dir, images, tmp_path):
    PredictCommand(
        (run_dir,), images=images / "two.nii", output=tmp_path / "deep" / "masks", accept=CROP
    ).run()
    assert masks_in(tmp_path / "deep" / "masks") == {"two.nii.gz"}


FORMATS = ("nrrd.nrrd", "meta.mha", "pair.hdr", "slices", "frames.dcm")


def write_image(path, volume):
    """The volume in the format that the name tells, or as a folder of DICOM slices."""
    if path.suffix == ".hdr":
        nib.save(nib.Nifti1Pair(volume.array.T, volume.affine), path)
    elif path.suffix == ".dcm":
        dicom_series.make_enhanced(volume.array).save_as(path, enforce_file_format=True)
    elif path.suffix:
        image = SimpleITK.GetImageFromArray(volume.array)
        lps = np.diag([-1, -1, 1]) @ volume.affine[:3]
        image.SetSpacing(volume.spacing[::-1])
        image.SetOrigin(lps[:, 3].tolist())
        image.SetDirection((lps[:, :3] / volume.spacing[::-1]).ravel().tolist())
        SimpleITK.WriteImage(image, str(path))
    else:
        dicom_series.write(dicom_series.make_slices(volume.array), path)


@pytest.mark.parametrize("name", FORMATS)
def test_path_of_every_format_is_a_volume_or_a_folder_of_volumes(tmp_path, name):
    write_image(tmp_path / name, make_oblique_volume((6, 9, 8)))
    volume = {name.split(".")[0]: tmp_path / name}
    assert list_images(tmp_path / name) == list_images(tmp_path) == volume


@pytest.mark.usefixtures("shared_segmenter")
def test_every_format_gives_a_mask_on_its_grid(run_dir, segmenter_of_run, tmp_path):
    images, masks = tmp_path / "images", tmp_path / "masks"
    images.mkdir()
    for name in FORMATS:
        write_image(images / name, make_oblique_volume((6, 9, 8)))
    PredictCommand((run_dir,), images=images, output=masks, accept=CROP).run()
    for name in FORMATS:
        image, mask = read_ct(images / name), nib.load(masks / f"{name.split('.')[0]}.nii.gz")
        np.testing.assert_allclose(mask.affine, image.affine, atol=1e-4)
        expected = predict_volume(segmenter_of_run, image)
        np.testing.assert_array_equal(np.asarray(mask.dataobj).T, expected)


def test_folder_of_slices_is_named_by_itself(tmp_path, monkeypatch):
    write_image(tmp_path / "study", make_oblique_volume((6, 9, 8)))
    monkeypatch.chdir(tmp_path / "study")
    assert list(list_images(".")) == ["study"]


@pytest.mark.usefixtures("shared_segmenter")
def test_resume_does_only_what_is_not_whole(run_dir, done, tmp_path, caplog, capsys):
    masks = shutil.copytree(done / "masks", tmp_path / "masks")
    table = (masks / "volumes.csv").read_text()
    first = (masks / "one.nii.gz").stat().st_mtime_ns
    (masks / "two.nii.gz").unlink()  # as if killed before the second mask
    with caplog.at_level("INFO"):
        PredictCommand(
            (run_dir,), images=done / "images", output=masks, resume=True, accept=CROP
        ).run()
    assert (masks / "one.nii.gz").stat().st_mtime_ns == first
    assert masks_in(masks) == {"one.nii.gz", "two.nii.gz"}
    assert (masks / "volumes.csv").read_text() == table
    assert "left out: 1 cases" in caplog.text
    assert caplog.messages[-1] == f"2 masks are in {masks}"
    assert not capsys.readouterr().err  # no bar in the log of a job


@pytest.mark.usefixtures("shared_segmenter")
@pytest.mark.parametrize("content", [b"", b"[1]", b'{"made_with": 3}', bytes(300)], ids=len)
def test_resume_makes_again_what_a_disk_has_lost(run_dir, done, tmp_path, content):
    masks = shutil.copytree(done / "masks", tmp_path / "masks")
    whole = json.loads((masks / "one.json").read_text())
    (masks / "one.json").write_bytes(content)
    PredictCommand((run_dir,), images=done / "images", output=masks, resume=True, accept=CROP).run()
    again = json.loads((masks / "one.json").read_text())
    assert again["seconds"].keys() == whole["seconds"].keys()
    assert again == {**whole, "seconds": again["seconds"]}


@pytest.mark.parametrize(
    ("changes", "finding"),
    [
        ({"flips": ("x",)}, "flips was \\[\\], got \\['x'\\]"),
        (
            {"postprocessing": Postprocessing(fill_holes=True)},
            "postprocessing.fill_holes was",
        ),
    ],
)
def test_resume_does_not_mix_masks_of_two_kinds(run_dir, done, tmp_path, changes, finding):
    masks = shutil.copytree(done / "masks", tmp_path / "masks")
    (masks / "two.nii.gz").unlink()
    before = {path.name: path.read_bytes() for path in masks.iterdir()}
    with pytest.raises(InputError, match=f"resume needs.*one.nii.gz began with: {finding}"):
        PredictCommand(
            (run_dir,), images=done / "images", output=masks, resume=True, **changes
        ).run()
    assert {path.name: path.read_bytes() for path in masks.iterdir()} == before


def change_last_byte(path):
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


REPLACED = {
    "a file": ("one_0000.nii.gz", lambda image: shutil.copy(image.parent / "two.nii", image)),
    "one voxel": ("two.nii", change_last_byte),
    "a slice of a folder": ("slices", lambda image: change_last_byte(next(image.iterdir()))),
    "the voxels of a header": (
        "meta.mhd",
        lambda image: change_last_byte(image.parent / "meta.raw"),
    ),
}


@pytest.mark.usefixtures("shared_segmenter")
@pytest.mark.parametrize("name", REPLACED)
def test_resume_knows_an_image_by_its_content(run_dir, tmp_path, name):
    file, replace = REPLACED[name]
    images, masks = write_images(tmp_path / "images"), tmp_path / "masks"
    if not (images / file).exists():
        write_image(images / file, make_oblique_volume((6, 9, 8)))
    PredictCommand((run_dir,), images=images, output=masks, accept=CROP).run()
    PredictCommand((run_dir,), images=images, output=masks, accept=CROP, resume=True).run()
    before = {path.name: path.read_bytes() for path in masks.iterdir()}
    replace(images / file)
    case_id = file.split(".")[0].removesuffix("_0000")
    message = rf"resume needs what .*{case_id}.nii.gz began with: image_sha256 was \w+, got \w+"
    with pytest.raises(InputError, match=message):
        PredictCommand((run_dir,), images=images, output=masks, accept=CROP, resume=True).run()
    assert {path.name: path.read_bytes() for path in masks.iterdir()} == before


def test_resume_takes_the_same_image_elsewhere_for_the_same(run_dir, done, tmp_path):
    shutil.copytree(done / "images", tmp_path / "moved")
    masks = shutil.copytree(done / "masks", tmp_path / "masks")
    PredictCommand((run_dir,), images=tmp_path / "moved", output=masks, resume=True).run()


def test_resume_does_not_mix_masks_of_two_networks(done, tmp_path):
    masks = shutil.copytree(done / "masks", tmp_path / "masks")
    other = write_run(tmp_path / "other", seed=1)
    with pytest.raises(InputError, match="networks_sha256 was"):
        PredictCommand(
            (other,), images=done / "images", output=masks, resume=True, accept=CROP
        ).run()


def test_resume_and_overwrite_exclude_each_other(run_dir, images, tmp_path):
    with pytest.raises(InputError, match="overwrite and resume exclude each other"):
        PredictCommand(
            (run_dir,), images=images, output=tmp_path, overwrite=True, resume=True
        ).run()


def test_organ_volumes_are_those_of_the_mask(done):
    masks = done / "masks"
    rows = list(csv.DictReader((masks / "volumes.csv").read_text().splitlines()))
    assert [row.pop("case_id") for row in rows] == ["one", "two"]
    for case_id, row in zip(("one", "two"), rows, strict=True):
        mask = nib.load(masks / f"{case_id}.nii.gz")
        voxel_ml = np.prod(mask.header.get_zooms()) / 1000
        counts = np.bincount(np.asarray(mask.dataobj).ravel(), minlength=3)
        content = json.loads((masks / f"{case_id}.json").read_text())
        assert content["case_id"] == case_id
        assert list(content["volumes_ml"]) == ["liver", "spleen"]
        for class_id, organ in ((1, "liver"), (2, "spleen")):
            volume_ml = content["volumes_ml"][organ]
            assert volume_ml == pytest.approx(counts[class_id] * voxel_ml, abs=2e-3)
            assert float(row[f"{organ}_ml"]) == volume_ml


@pytest.mark.usefixtures("shared_segmenter")
def test_postprocessing_is_done_before_volumes_are_told(
    run_dir, segmenter_of_run, images, tmp_path
):
    how = Postprocessing(largest_component=True)
    PredictCommand(
        (run_dir,), images=images / "two.nii", output=tmp_path, postprocessing=how, accept=CROP
    ).run()
    volume = read_ct(images / "two.nii")
    plain = predict_volume(segmenter_of_run, volume)
    mask = np.asarray(nib.load(tmp_path / "two.nii.gz").dataobj).T
    np.testing.assert_array_equal(mask, postprocess(plain, how, voxel_mm3=1.0))
    assert (mask != plain).any()
    content = json.loads((tmp_path / "two.json").read_text())
    assert content["made_with"]["postprocessing"]["largest_component"] is True
    voxel_ml = abs(np.linalg.det(volume.affine[:3, :3])) / 1000
    assert content["volumes_ml"]["liver"] == pytest.approx((mask == 1).sum() * voxel_ml, abs=1e-3)


def test_class_names_and_colours_are_inside_the_mask_and_beside_it(done):
    mask = done / "masks" / "one.nii.gz"
    (extension,) = nib.load(mask).header.extensions
    labels = ElementTree.fromstring(extension.content).iter("Label")
    assert [(label.get("Key"), label.text) for label in labels] == [("1", "liver"), ("2", "spleen")]
    # ITK reads NIfTI for ITK-SNAP and for 3D Slicer.
    by_itk = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(mask)))
    np.testing.assert_array_equal(by_itk, np.asarray(nib.load(mask).dataobj).T)
    snap = (done / "masks" / "organs.label").read_text().splitlines()
    rows = [shlex.split(line) for line in snap if not line.startswith("#")]
    assert rows[0] == ["0", "0", "0", "0", "0", "0", "0", "Clear Label"]
    assert rows[1:] == [
        ["1", "230", "25", "75", "1", "1", "1", "liver"],
        ["2", "67", "99", "216", "1", "1", "1", "spleen"],
    ]
    slicer = (done / "masks" / "organs.ctbl").read_text().splitlines()
    assert slicer[2:] == ["1 liver 230 25 75 255", "2 spleen 67 99 216 255"]


@pytest.mark.usefixtures("shared_segmenter")
def test_a_bad_volume_does_not_stop_the_others(run_dir, images, tmp_path, caplog):
    (images / "broken.nii.gz").write_bytes(b"no volume")
    with pytest.raises(InputError, match=r"1 of 3 volumes failed: broken: .*broken.nii.gz"):
        PredictCommand((run_dir,), images=images, output=tmp_path / "masks", accept=CROP).run()
    assert masks_in(tmp_path / "masks") == {"one.nii.gz", "two.nii.gz"}
    assert "failed: broken" in caplog.text


BODY = np.full((20, 40, 40), -900, np.int16)
BODY[2:18, 8:32, 8:32] = -80
BODY[5:15, 12:28, 12:28] = 60
# What the conversion refuses: by code, HU (z, y, x) and spacing in mm.
IMPLAUSIBLE = {
    "spacing_implausible": (BODY, 0.002),
    "field_of_view_implausible": (BODY, 0.5),
    "missing_rescale": (np.maximum(BODY, -1024) + np.int16(1024), 2.5),
    "scaled_image": (np.uint8(BODY > 0).astype(np.int16), 2.5),
    "windowed_image": (np.clip(BODY // 2 + 128, 0, 255).astype(np.int16), 2.5),
    "constant_image": (np.zeros_like(BODY), 2.5),
    "no_tissue": (np.maximum(BODY, -1000) - np.int16(400), 2.5),
}


@pytest.mark.usefixtures("shared_segmenter")
def test_what_the_conversion_refuses_is_refused_and_named(run_dir, tmp_path, caplog):
    (tmp_path / "images").mkdir()
    for name, (hu, spacing) in {"good": (BODY, 2.5), **IMPLAUSIBLE}.items():
        volume = Volume(hu, np.diag([spacing] * 3 + [1.0]))
        write_volume(volume, tmp_path / f"images/{name}.nii.gz")
    with pytest.raises(InputError, match=f"{len(IMPLAUSIBLE)} of {len(IMPLAUSIBLE) + 1} volumes"):
        PredictCommand((run_dir,), images=tmp_path / "images", output=tmp_path / "masks").run()
    assert masks_in(tmp_path / "masks") == {"good.nii.gz"}
    for code in IMPLAUSIBLE:
        message = rf"failed: {code}: .*\[{code}\]; --accept {code} lets such cases pass"
        assert re.search(message, caplog.text)


@pytest.mark.usefixtures("shared_segmenter")
def test_what_is_accepted_is_segmented_with_a_warning(run_dir, tmp_path, caplog):
    offset, spacing = IMPLAUSIBLE["missing_rescale"]
    write_volume(Volume(offset, np.diag([spacing] * 3 + [1.0])), tmp_path / "offset.nii")
    accepted = {"accept": ("missing_rescale",)}
    PredictCommand(
        (run_dir,), images=tmp_path / "offset.nii", output=tmp_path / "masks", **accepted
    ).run()
    assert "offset: values are 124 to 1084" in caplog.text
    assert masks_in(tmp_path / "masks") == {"offset.nii.gz"}


def test_codes_that_cannot_be_accepted_are_refused(run_dir, images, tmp_path):
    with pytest.raises(
        InputError, match="accept must be of .*spacing_implausible.*got file_missing"
    ):
        PredictCommand(
            (run_dir,), images=images, output=tmp_path / "masks", accept=("file_missing",)
        ).run()
    assert not (tmp_path / "masks").exists()


@pytest.mark.usefixtures("shared_segmenter")
def test_an_unexpected_error_of_one_volume_does_not_stop_the_others(run_dir, images, monkeypatch):
    read = CaseOutputs.read
    monkeypatch.setattr(
        CaseOutputs,
        "read",
        lambda case, gate: 1 / 0 if case.case_id == "one" else read(case, gate),
    )
    masks = images.parent / "masks"
    message = r"1 of 2 volumes failed: one: ZeroDivisionError: .* \[unexpected_error\]"
    with pytest.raises(InputError, match=message):
        PredictCommand((run_dir,), images=images, output=masks, accept=CROP).run()
    assert masks_in(masks) == {"two.nii.gz"}


PHASES = (
    *("reading", "turning", "finding the body", "resampling", "windows", "argmax", "way back"),
)


@pytest.mark.usefixtures("shared_segmenter")
def test_stages_of_different_volumes_are_concurrent(run_dir, tmp_path, monkeypatch, caplog):
    """The second is resampled while the first is in the network; no more than three are held."""
    images = tmp_path / "images"
    images.mkdir()
    for number in range(6):
        write_volume(make_oblique_volume((15, 14, 18), seed=number), images / f"{number}.nii.gz")
    prepared, held, most = [], set(), []
    second_is_prepared, second_is_computed = threading.Event(), threading.Event()
    read, write = CaseOutputs.read, CaseOutputs.write
    prepare, compute, finish = (
        getattr(case_prediction, name) for name in ("prepare", "compute", "finish")
    )

    def reading(case, gate):
        held.add(case.case_id)
        most.append(len(held))
        return read(case, gate)

    def preparing(*arguments, **options):
        prepared.append(prepare(*arguments, **options))
        if len(prepared) == 2:
            second_is_prepared.set()
        return prepared[-1]

    def computing(*arguments, **options):
        assert second_is_prepared.wait(60)
        if arguments[1] is prepared[1]:
            second_is_computed.set()
        return compute(*arguments, **options)

    def finishing(*arguments, **options):
        assert second_is_computed.wait(60)
        return finish(*arguments, **options)

    def writing(case, *arguments, **options):
        write(case, *arguments, **options)
        held.remove(case.case_id)

    monkeypatch.setattr(CaseOutputs, "read", reading)
    monkeypatch.setattr(CaseOutputs, "write", writing)
    monkeypatch.setattr(case_prediction, "prepare", preparing)
    monkeypatch.setattr(case_prediction, "compute", computing)
    monkeypatch.setattr(case_prediction, "finish", finishing)
    with caplog.at_level("INFO"):
        PredictCommand((run_dir,), images=images, output=tmp_path / "masks", accept=CROP).run()
    assert len(masks_in(tmp_path / "masks")) == 6
    assert max(most) <= 3
    logged = ", ".join(rf"{phase} [\d.]+ s" for phase in (*PHASES, "writing"))
    assert re.search(f"{logged}; ", caplog.text)
    seconds = json.loads((tmp_path / "masks" / "0.json").read_text())["seconds"]
    assert tuple(seconds) == PHASES
    assert all(each >= 0 for each in seconds.values())


def test_tables_of_other_cases_are_replaced_only_when_told_to(run_dir, images, done, tmp_path):
    masks = shutil.copytree(done / "masks", tmp_path / "masks")
    (images / "two.nii").rename(images / "three.nii")
    (images / "one_0000.nii.gz").unlink()
    with pytest.raises(InputError, match="volumes.csv is there already: give --overwrite"):
        PredictCommand((run_dir,), images=images, output=masks, accept=CROP).run()


@pytest.mark.usefixtures("shared_segmenter")
def test_masks_are_replaced_only_when_told_to(run_dir, images, tmp_path):
    masks = tmp_path / "masks"
    masks.mkdir()
    (masks / "two.nii.gz").write_bytes(b"precious")
    for overwrite in (False, True):  # without two.json it is an image or a label of someone's own
        with pytest.raises(InputError, match=r"two.nii.gz is no mask of fcnseg"):
            PredictCommand(
                (run_dir,), images=images, output=masks, overwrite=overwrite, accept=CROP
            ).run()
    (masks / "two.json").write_text("{}")
    with pytest.raises(InputError, match=r"two.nii.gz is there already: give --overwrite"):
        PredictCommand((run_dir,), images=images, output=masks, accept=CROP).run()
    assert masks_in(masks) == {"two.nii.gz"}
    assert (masks / "two.nii.gz").read_bytes() == b"precious"
    PredictCommand((run_dir,), images=images, output=masks, overwrite=True, accept=CROP).run()
    assert nib.load(masks / "two.nii.gz").shape == (18, 14, 16)


@pytest.mark.parametrize(
    ("name", "message"),
    [("absent", "must be a volume or a folder of volumes, got .*absent"), ("", "no volume")],
)
def test_missing_and_empty_folders_are_refused(run_dir, tmp_path, name, message):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=message):
        PredictCommand(
            (run_dir,), images=tmp_path / "empty" / name, output=tmp_path / "masks"
        ).run()
    assert not (tmp_path / "masks").exists()


def test_unfinished_run_is_refused(images, tmp_path):
    run_dir = write_run(tmp_path / "run", finished=False)
    with pytest.raises(InputError, match="is not a finished run"):
        PredictCommand((run_dir,), images=images, output=tmp_path / "masks", accept=CROP).run()
    assert not (tmp_path / "masks").exists()


def test_network_that_is_not_whole_is_refused(images, tmp_path):
    run_dir = write_run(tmp_path / "run")
    (run_dir / "best.keras").write_bytes(b"PK half")
    with pytest.raises(InputError, match="incomplete or corrupt network: .*best.keras"):
        PredictCommand((run_dir,), images=images, output=tmp_path / "masks", accept=CROP).run()


def test_flip_named_twice_is_refused(run_dir, images, tmp_path):
    with pytest.raises(InputError, match="flips must name each axis once, got z x z"):
        PredictCommand(
            (run_dir,), images=images, output=tmp_path / "masks", flips=("z", "x", "z")
        ).run()
    assert not (tmp_path / "masks").exists()


def test_masks_of_float16_record_what_the_devices_computed_in(tmp_path):
    """A GPU computes in float16 and a CPU in float32: `--resume` keeps their masks apart."""
    run = write_run(tmp_path / "run")
    manifest = read_run(run)
    config = override(manifest.config, {"training.precision": "mixed_float16"})
    dataclasses.replace(manifest, config=config).write(run)
    write_volume(make_oblique_volume((15, 14, 18)), tmp_path / "image.nii.gz")
    image, output = tmp_path / "image.nii.gz", tmp_path / "masks"
    PredictCommand((run,), images=image, output=output, accept=CROP).run()
    made_with = json.loads((tmp_path / "masks" / "image.json").read_text())["made_with"]
    has_gpu = bool(tf.config.list_physical_devices("GPU"))
    assert made_with["precision"] == ("float16" if has_gpu else "float32")


def test_network_of_half_precision_predicts_without_a_gpu(tmp_path):
    """Trained on a GPU; a CPU cannot pool float16."""
    run = write_run(tmp_path / "run")
    half = build_fcn(CONFIG.model, num_classes=3, precision="mixed_float16")
    plain, _ = load_run(run)
    half.set_weights(plain.get_weights())
    half.save(run / "best.keras")
    hu = np.random.default_rng(0).uniform(-1000, 1000, (1, 8, 12, 10, 1)).astype(np.float32)
    found = load_run(run)[0](hu)
    if tf.config.list_physical_devices("GPU"):
        np.testing.assert_allclose(found, plain(hu), atol=0.05)
    else:
        np.testing.assert_array_equal(found, plain(hu))
