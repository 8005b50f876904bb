"""Volumes in folders of an object store are those that the same folder has on this machine."""

from __future__ import annotations

from pathlib import Path

import dicom_series
import numpy as np
import pytest

from fcnseg.conversion.case_lists.volumes import list_images, list_volumes
from fcnseg.errors import InputError
from fcnseg.volumes import Volume, write_volume

ROOT = "memory://hospital/scans"


def write_nifti(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_volume(Volume(np.zeros((2, 3, 4), np.int16), np.eye(4)), path)


def write_series(folder: Path, suffix: str = ".dcm") -> None:
    dicom_series.write(dicom_series.make_slices(), folder, suffix=suffix)


def write_frames(path: Path) -> None:
    dicom_series.make_enhanced().save_as(path, enforce_file_format=True)


# What to write into a folder, by what it is.
LAYOUTS = {
    "volumes": lambda root: [write_nifti(root / name) for name in ("a_0000.nii.gz", "b.nii")],
    "a folder of masks beside volumes": lambda root: [
        write_nifti(root / name) for name in ("a.nii.gz", "probabilities/a/000.nii.gz")
    ],
    "a table beside volumes": lambda root: [
        write_nifti(root / "a.nii.gz"),
        (root / "volumes.csv").write_text("case_id\n"),
        (root / "a.json").write_text("{}"),
    ],
    "slices": lambda root: write_series(root),
    "slices without suffix": lambda root: write_series(root, ""),
    "folders of slices": lambda root: [write_series(root / name) for name in ("s1", "s2")],
    "folders of folders of slices": lambda root: [write_series(root / "s1/deep", "")],
    "slices beside a volume": lambda root: [
        write_series(root),
        write_nifti(root / "a.nii.gz"),
    ],
    "hidden files": lambda root: [write_nifti(root / "a.nii"), write_nifti(root / ".b.nii")],
}


@pytest.fixture
def upload(tmp_path, objects):
    """Puts what a function writes into a folder here and into the object store."""

    def upload(write):
        (tmp_path / "scans").mkdir()
        write(tmp_path / "scans")
        for path in tmp_path.rglob("*"):
            if path.is_file():
                objects[f"memory://hospital/{path.relative_to(tmp_path)}"] = path.read_bytes()
        return tmp_path / "scans"

    return upload


def there(listed, folder):
    """The same with the paths of the object store."""
    return {name: path.replace(str(folder), ROOT) for name, path in listed.items()}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_volumes_are_those_of_the_same_folder_here(upload, layout):
    folder = upload(LAYOUTS[layout])
    assert list_images(ROOT) == there(list_images(folder), folder)
    if "slices" not in layout or layout.startswith("folders"):
        assert list_volumes(ROOT) == there(list_volumes(folder), folder)


def test_files_of_many_frames_are_volumes_each(upload):
    def write(folder):
        for name in ("a.dcm", "b.dcm"):
            write_frames(folder / name)

    folder = upload(write)
    assert list_images(ROOT) == there(list_images(folder), folder)
    assert list(list_images(ROOT)) == ["a", "b"]


def test_one_file_is_a_volume(upload):
    upload(lambda folder: write_nifti(folder / "a_0000.nii.gz"))
    assert list_images(f"{ROOT}/a_0000.nii.gz") == {"a": f"{ROOT}/a_0000.nii.gz"}


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a.nii", "a.nii.gz"], "a case must have one file, got a.nii and a.nii.gz"),
        (["a.txt"], f"no volume in folder {ROOT}"),
    ],
)
def test_folder_that_is_none_of_volumes_is_refused(objects, names, message):
    objects.update({f"{ROOT}/{name}": b"text" for name in names})
    for look in (list_images, list_volumes):
        with pytest.raises(InputError, match=message):
            look(ROOT)


def test_nothing_is_refused(objects):
    with pytest.raises(InputError, match=f"^images must be a volume or a folder .*, got {ROOT}$"):
        list_images(ROOT)
    with pytest.raises(InputError, match=f"^no such folder: {ROOT}$"):
        list_volumes(ROOT)
