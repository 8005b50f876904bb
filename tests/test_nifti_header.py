"""What a NIfTI header leaves open is said, with the convention that is taken in its place."""

from __future__ import annotations

import dataclasses
import itertools
import threading
from concurrent.futures import ThreadPoolExecutor

import nibabel as nib
import numpy as np
import pytest
from bad_files import set_fields, voxels

from fcnseg.errors import GeometryError
from fcnseg.volumes import Volume, read_ct, read_geometry, read_label, write_mask

AFFINE = np.array([[-2.0, 0, 0, 30], [0, -3, 0, 20], [0, 0, 4, -10], [0, 0, 0, 1]])
PIXDIM = np.diag([2.0, 3, 4, 1])  # method 1 of the standard
KINDS = {"1": nib.Nifti1Image, "2": nib.Nifti2Image}


@dataclasses.dataclass(frozen=True)
class Told:
    """Fields of a header with both forms set, and what must be read of it."""

    fields: dict
    affine: np.ndarray
    codes: tuple[str, ...] = ()


def sizes(x, y, z, qfac=1):
    return [qfac, x, y, z, 0, 0, 0, 0]


def with_steps(x, y, z):
    """The affine with other steps from voxel to voxel."""
    return AFFINE @ np.diag([x / 2, y / 3, z / 4, 1])


HEADERS = {
    "both forms": Told({}, AFFINE),
    "sform alone": Told({"qform_code": 0}, AFFINE),
    "qform alone": Told({"sform_code": 0}, AFFINE),
    "the last code": Told({"qform_code": 5, "sform_code": 5}, AFFINE),
    "qfac 0 is 1": Told({"sform_code": 0, "pixdim": sizes(2, 3, 4, qfac=0)}, AFFINE),
    "qfac 3 is 1": Told({"sform_code": 0, "pixdim": sizes(2, 3, 4, qfac=3)}, AFFINE),
    "noise in pixdim": Told({"qform_code": 0, "pixdim": sizes(2.0001, 3, 4)}, AFFINE),
    "no code": Told({"qform_code": 0, "sform_code": 0}, PIXDIM, ("orientation_unknown",)),
    "codes of no meaning": Told(
        {"qform_code": -1, "sform_code": 6}, PIXDIM, ("orientation_unknown",)
    ),
    "qform of no meaning": Told({"qform_code": 9}, AFFINE, ("orientation_unknown",)),
    "sform of no meaning": Told({"sform_code": 9}, AFFINE, ("orientation_unknown",)),
    "a size of 0": Told(
        {"sform_code": 0, "pixdim": sizes(2, 3, 0)}, with_steps(2, 3, 1), ("spacing_unknown",)
    ),
    "a size of NaN": Told(
        {"sform_code": 0, "pixdim": sizes(2, np.nan, 4)}, with_steps(2, 1, 4), ("spacing_unknown",)
    ),
    "a size of infinity": Told(
        {"sform_code": 0, "pixdim": sizes(np.inf, 3, 4)}, with_steps(1, 3, 4), ("spacing_unknown",)
    ),
    "a size below 0": Told(
        {"sform_code": 0, "pixdim": sizes(2, -3, 4)}, AFFINE, ("spacing_unknown",)
    ),
    "sizes of 0 beside sform": Told(
        {"qform_code": 0, "pixdim": sizes(0, 0, 0)}, AFFINE, ("spacing_unknown",)
    ),
    "sizes of 0 beside both forms": Told({"pixdim": sizes(0, 0, 0)}, AFFINE, ("spacing_unknown",)),
    "one size of NaN beside both forms": Told(
        {"pixdim": sizes(2, np.nan, 4)}, AFFINE, ("spacing_unknown",)
    ),
    "nothing": Told(
        {"qform_code": 0, "sform_code": 0, "pixdim": [0] * 8},
        np.eye(4),
        ("spacing_unknown", "orientation_unknown"),
    ),
}


def write(path, kind=nib.Nifti1Image, **fields):
    image = kind(voxels(), AFFINE)
    image.set_sform(AFFINE, code=1)
    image.set_qform(AFFINE, code=1)
    nib.save(image, path)
    return set_fields(path, **fields)


@pytest.mark.parametrize(("name", "kind"), [*itertools.product(HEADERS, KINDS)])
def test_what_a_header_leaves_open_is_said_and_the_convention_taken(tmp_path, name, kind):
    expected = HEADERS[name]
    path = write(tmp_path / "ct.nii", KINDS[kind], **expected.fields)
    for read in (read_geometry, read_ct, read_label):
        grid = read(path)
        np.testing.assert_allclose(grid.affine, expected.affine, atol=1e-3)
        assert tuple(finding.code for finding in grid.findings) == expected.codes


@pytest.mark.parametrize("pixdim", [sizes(-2, 3, 4), sizes(0, 3, 4)])
def test_nibabel_says_nothing_of_a_header(tmp_path, caplog, capfd, pixdim):
    path = write(tmp_path / "ct.nii", pixdim=pixdim)
    read_geometry(path)
    read_ct(path)
    assert not caplog.records
    assert capfd.readouterr() == ("", "")
    nib.load(path)  # a user's own call is as before
    assert "pixdim" in caplog.text


def test_nibabel_is_quiet_in_the_threads_of_fcnseg_alone(tmp_path, caplog, monkeypatch):
    """Two files are read at once, and a user's own is read meanwhile."""
    path = write(tmp_path / "ct.nii", pixdim=sizes(-2, 3, 4))
    together, load = threading.Barrier(3), nib.Nifti1Image.from_file_map

    def load_together(*args):
        together.wait(20)
        image = load(*args)
        together.wait(20)
        return image

    def said_of_a_users_call():
        caplog.clear()
        with path.open("rb") as file:
            nib.Nifti1Header.from_fileobj(file)
        return caplog.text

    monkeypatch.setattr(nib.Nifti1Image, "from_file_map", load_together)
    with ThreadPoolExecutor(2) as pool:
        readers = [pool.submit(read_geometry, path) for _ in range(2)]
        together.wait(20)
        assert "pixdim" in said_of_a_users_call()
        caplog.clear()
        together.wait(20)
        for reader in readers:
            reader.result()
    assert not caplog.records
    assert "pixdim" in said_of_a_users_call()


@pytest.mark.parametrize("name", HEADERS)
def test_a_mask_lies_where_its_image_was_taken_to_lie(tmp_path, name):
    path = write(tmp_path / "ct.nii", **HEADERS[name].fields)
    volume = read_ct(path)
    write_mask(np.ones(volume.shape, np.uint8), tmp_path / "mask.nii", like=volume)
    mask = read_geometry(tmp_path / "mask.nii")
    np.testing.assert_array_equal(mask.affine, volume.affine)
    stored = nib.load(tmp_path / "mask.nii").header
    for code in ("qform_code", "sform_code"):
        assert stored[code] == volume.header[code]


@pytest.mark.parametrize("pixdim", [sizes(2, 3, 5), sizes(1, 1, 1)])
def test_steps_of_two_lengths_are_refused(tmp_path, pixdim):
    path = write(tmp_path / "ct.nii", qform_code=0, pixdim=pixdim)
    with pytest.raises(GeometryError, match=r"voxels of 2, 3, 4 and .* mm \(x, y, z\)") as caught:
        read_geometry(path)
    assert caught.value.code == "qform_sform_disagree"


@pytest.mark.parametrize("intercept", [0, 5, -1024])
def test_a_slope_of_zero_means_no_scale(tmp_path, intercept):
    path = write(tmp_path / "ct.nii", scl_slope=0, scl_inter=intercept)
    for read in (read_ct, read_label):
        np.testing.assert_array_equal(read(path).array, voxels().T)


def test_a_volume_written_anew_leaves_nothing_open(tmp_path):
    nib.save(nib.Nifti1Image(voxels(), AFFINE), tmp_path / "ct.nii.gz")
    volume = read_ct(tmp_path / "ct.nii.gz")
    assert isinstance(volume, Volume)
    assert not volume.findings
