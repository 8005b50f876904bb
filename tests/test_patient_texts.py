"""Names, ids and dates in the headers of images stay there: nothing that is written has them."""

from __future__ import annotations

import contextlib
import gzip
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from bad_files import set_fields
from dicom_series import make_slices
from dicom_series import write as write_series
from small_cases import AFFINE, LABEL_MAP, SPACING_MM, write_case
from small_models import make_info, write_run

from fcnseg.cli.evaluate import EvaluateCommand
from fcnseg.cli.predict import PredictCommand
from fcnseg.client import VersionStatus
from fcnseg.volumes import read_ct, read_label, write_mask, write_parts, write_volume
from pipelines.convert_ct import ConvertCt
from pipelines.inspect import Inspect
from serving import client as serving_client

TEXT = b"MADE^NAME"  # made up, as is all in these files
HU = np.random.default_rng(7).integers(-1000, 1000, (12, 14, 16), dtype=np.int16)


def nifti(kind, suffix):
    def write(folder: Path) -> Path:
        image = kind(HU.T, AFFINE)
        image.set_sform(AFFINE, code=1)
        image.set_qform(AFFINE, code=1)
        image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", TEXT * 2))
        path = folder / f"ct{suffix}"
        nib.save(image, path)
        of = path.with_suffix(".hdr") if kind is nib.Nifti1Pair else path
        texts = ["descrip", "aux_file", "intent_name"]
        texts += ["unused_str"] if kind is nib.Nifti2Image else ["db_name", "data_type"]
        set_fields(of, **dict.fromkeys(texts, TEXT))
        return path

    return write


def itk(suffix):
    def write(folder: Path) -> Path:
        image = sitk.GetImageFromArray(HU)
        image.SetSpacing(SPACING_MM[::-1])
        for key in ("patient", "Comment", "ITK_FileNotes"):
            image.SetMetaData(key, TEXT.decode())
        sitk.WriteImage(image, str(folder / f"ct{suffix}"))
        return folder / f"ct{suffix}"

    return write


def dicom(folder: Path) -> Path:
    slices = make_slices(HU, spacing=SPACING_MM)
    for each in slices:
        for field in ("PatientName", "PatientID", "StudyDescription", "InstitutionName"):
            setattr(each, field, TEXT.decode())
    return write_series(slices, folder / "ct")


IMAGES = {
    "NIfTI-1": nifti(nib.Nifti1Image, ".nii"),
    "NIfTI-1 packed": nifti(nib.Nifti1Image, ".nii.gz"),
    "NIfTI-2": nifti(nib.Nifti2Image, ".nii"),
    "a pair": nifti(nib.Nifti1Pair, ".hdr"),
    "NRRD": itk(".nrrd"),
    "MetaImage": itk(".mha"),
    "DICOM": dicom,
}


def has_text(folder: Path, text: bytes = TEXT) -> list[str]:
    """The files in a folder, unpacked, in which the text is."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    assert files
    return [path.name for path in files if text in content_of(path) or text in path.read_bytes()]


def content_of(path: Path) -> bytes:
    content = path.read_bytes()
    return gzip.decompress(content) if path.suffix == ".gz" else content


@pytest.mark.parametrize("name", IMAGES)
def test_what_is_written_like_an_image_has_none_of_its_texts(tmp_path, name):
    (tmp_path / "in").mkdir()
    path = IMAGES[name](tmp_path / "in")
    assert has_text(tmp_path / "in")
    for volume in (read_ct(path), *([] if path.is_dir() else [read_label(path)])):
        out = tmp_path / f"out of {volume.array.dtype}"
        out.mkdir(exist_ok=True)
        write_mask(np.ones(volume.shape, np.uint8), out / "mask.nii", like=volume)
        write_mask(np.ones(volume.shape, np.uint8), out / "mask.nii.gz", like=volume)
        write_parts(volume.array.astype(np.int16), out / "parts.nii.gz", whole=100, like=volume)
        write_volume(volume, out / "volume.nii")
        assert has_text(out) == []
        assert read_label(out / "mask.nii").array.all()


@pytest.fixture
def case(tmp_path):
    """An image with texts in its header, and its label."""
    write_case(tmp_path, "case", seed=0)
    (tmp_path / "map.yaml").write_text(LABEL_MAP)
    for part in ("images", "labels"):
        path = tmp_path / f"{part}/case.nii.gz"
        texts = ("descrip", "aux_file", "intent_name", "db_name", "data_type")
        set_fields(path, **dict.fromkeys(texts, TEXT))
    return tmp_path


@pytest.mark.slow
def test_predictions_and_their_evaluation_have_no_text_of_headers_or_folders(case):
    run_dir = write_run(case / "run", max_voxels=200_000)
    PredictCommand(
        (run_dir,), images=case / "images", output=case / "masks", probabilities=True
    ).run()
    folders = {name: case / name for name in ("masks", "labels", "images")}
    EvaluateCommand(**folders, label_map=case / "map.yaml", output=case / "scores", workers=1).run()
    for text in (TEXT, str(case).encode()):
        assert has_text(case / "masks", text) == []
        assert has_text(case / "scores", text) == []


def test_a_dataset_and_its_page_have_no_text_of_headers(case):
    images = {"images": f"{case}/images", "labels": f"{case}/labels"}
    ConvertCt(
        **images, label_map=f"{case}/map.yaml", output=f"{case}/records", spacing_mm=SPACING_MM
    ).run()
    Inspect(case / "records").run()
    assert (case / "records/inspect.html").is_file()
    assert has_text(case / "records") == []
    # The list of the files that were converted is all that names folders.
    assert has_text(case / "records", str(case).encode()) == ["case_files.csv"]


def test_the_mask_of_a_served_model_has_no_text_of_headers(case, monkeypatch):
    class Client:
        """A server's answer without a server."""

        def wait_until_ready(self, timeout_s):
            return VersionStatus(1, "AVAILABLE")

        def pin_version(self):
            return 1

        def model_info(self):
            return make_info(class_names=("background", "liver"))

        def segment(self, volume, *, accept):
            return np.ones(volume.shape, np.uint8)

    def connect(server, **_):
        return contextlib.nullcontext(Client())

    monkeypatch.setattr(serving_client, "SegmentationClient", connect)
    serving_client.ClientCommand("nowhere:1", case / "served", case / "images/case.nii.gz").run()
    assert (case / "served/case.nii.gz").is_file()
    assert has_text(case / "served") == []
