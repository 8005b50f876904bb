"""Volumes: what is read is what was written, on exactly its grid."""

from __future__ import annotations

import gzip
import os
from itertools import permutations, product

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fcnseg.errors import GeometryError, InputError, LabelError
from fcnseg.volumes import (
    Volume,
    case_id_of,
    check_same_grid,
    from_canonical,
    list_volumes,
    pair_by_name,
    read_ct,
    read_geometry,
    read_label,
    to_canonical,
    write_mask,
    write_volume,
)

# All 48 ways in which the axes of a volume can lie along the patient's.
ORIENTATIONS = [
    "".join(axis[side] for axis, side in zip(axes, sides, strict=True))
    for axes in permutations(("LR", "PA", "IS"))
    for sides in product((0, 1), repeat=3)
]


def oblique_affine(orientation: str, degrees: float = 0.0) -> np.ndarray:
    """Affine with spacing (x, y, z) = (0.7, 0.9, 2.5) mm, axes as named, turned about z."""
    ornt = nib.orientations.axcodes2ornt(orientation)
    affine = np.zeros((4, 4))
    for column, (row, sign) in enumerate(ornt):
        affine[int(row), column] = sign * (0.7, 0.9, 2.5)[column]
    angle = np.deg2rad(degrees)
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    affine[:, 3] = (-31.5, 20.25, 112.0, 1)
    return turn @ affine


def small_volume(orientation: str = "LPS", degrees: float = 0.0) -> Volume:
    array = np.arange(3 * 4 * 5, dtype=np.int16).reshape(3, 4, 5)
    return Volume(array, oblique_affine(orientation, degrees))


def test_axes_are_z_y_x_and_spacing_goes_with_them():
    volume = small_volume("RAS")
    assert volume.shape == (3, 4, 5)
    assert volume.spacing == pytest.approx((2.5, 0.9, 0.7))
    assert volume.orientation == "RAS"


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("degrees", [0.0, 17.0])
def test_canonical_orientation_keeps_each_voxel_in_its_place(orientation, degrees):
    volume = small_volume(orientation, degrees)
    canonical = to_canonical(volume)
    assert canonical.orientation == "RAS"
    for (z, y, x), value in np.ndenumerate(canonical.array):
        here = nib.affines.apply_affine(canonical.affine, (x, y, z))
        k, j, i = np.argwhere(volume.array == value)[0]
        np.testing.assert_allclose(here, nib.affines.apply_affine(volume.affine, (i, j, k)))
    np.testing.assert_array_equal(from_canonical(canonical.array, volume), volume.array)


@settings(max_examples=20, deadline=None)
@given(
    shape=st.tuples(*[st.integers(1, 6)] * 3),
    orientation=st.sampled_from(ORIENTATIONS),
    degrees=st.floats(-40, 40),
)
def test_way_to_canonical_and_back_is_exact(shape, orientation, degrees):
    array = np.arange(np.prod(shape), dtype=np.int16).reshape(shape)
    volume = Volume(array, oblique_affine(orientation, degrees))
    np.testing.assert_array_equal(from_canonical(to_canonical(volume).array, volume), array)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_volume_round_trip(tmp_path, suffix):
    volume = small_volume("LPI", degrees=10)
    path = tmp_path / f"case{suffix}"
    write_volume(volume, path)
    back = read_ct(path)
    np.testing.assert_array_equal(back.array, volume.array)
    np.testing.assert_allclose(back.affine, volume.affine, atol=1e-5)
    np.testing.assert_allclose(read_geometry(path).affine, back.affine)
    assert read_geometry(path).shape == (3, 4, 5)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("codes", [(1, 1), (0, 2), (4, 0)])
@pytest.mark.parametrize("image_class", [nib.Nifti1Image, nib.Nifti2Image])
def test_mask_has_the_exact_header_geometry_of_its_image(tmp_path, codes, image_class):
    qform_code, sform_code = codes
    affine = oblique_affine("LAS", degrees=12)
    image = image_class(np.zeros((5, 4, 3), np.int16), affine)
    image.set_qform(affine, code=qform_code)
    image.set_sform(affine, code=sform_code)
    image.header.set_xyzt_units("mm")
    nib.save(image, tmp_path / "ct.nii.gz")
    volume = read_ct(tmp_path / "ct.nii.gz")
    mask = np.arange(60, dtype=np.uint8).reshape(volume.shape)
    write_mask(mask, tmp_path / "mask.nii.gz", like=volume)

    ours, theirs = nib.load(tmp_path / "mask.nii.gz"), nib.load(tmp_path / "ct.nii.gz")
    geometry = ["dim", "pixdim", "qform_code", "sform_code", "xyzt_units", "srow_x", "srow_y"]
    geometry += ["srow_z", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y"]
    for key in geometry:
        np.testing.assert_array_equal(ours.header[key], theirs.header[key], err_msg=key)
    np.testing.assert_array_equal(read_label(tmp_path / "mask.nii.gz").array, mask)


def test_mask_of_another_shape_is_refused(tmp_path):
    with pytest.raises(GeometryError, match=r"shape \(3, 4, 5\), got \(3, 4, 4\)"):
        write_mask(np.zeros((3, 4, 4), np.uint8), tmp_path / "m.nii", like=small_volume())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("stored", "slope", "intercept", "expected"),
    [
        # A scanner's usual storage: unsigned, with intercept -1024.
        (np.array([0, 1024, 4095], np.uint16), 1, -1024, [-1024, 0, 3071]),
        (np.array([0, 1, 3], np.int16), 2.5, 0, [0, 2, 8]),  # 2.5 rounds to even, 7.5 to 8
        (np.array([-1000.4, 40.6, 99999], np.float32), 1, 0, [-1000, 41, 32767]),
        (np.array([-2000, 0, 3], np.int32), 1, 0, [-2000, 0, 3]),
    ],
)
def test_ct_is_hu_in_int16(tmp_path, stored, slope, intercept, expected):
    image = nib.Nifti1Image(stored.reshape(3, 1, 1), np.eye(4))
    image.header.set_slope_inter(slope, intercept)
    nib.save(image, tmp_path / "ct.nii")
    # nibabel divides by the slope on writing, so the stored numbers are put back by hand.
    raw = bytearray((tmp_path / "ct.nii").read_bytes())
    raw[352:] = stored.astype(stored.dtype).tobytes()
    (tmp_path / "ct.nii").write_bytes(raw)
    volume = read_ct(tmp_path / "ct.nii")
    assert volume.array.dtype == np.int16
    assert volume.array.ravel().tolist() == expected


def test_integral_floats_are_labels_and_others_are_not(tmp_path):
    write_volume(Volume(np.full((2, 2, 2), 3.0, np.float32), np.eye(4)), tmp_path / "good.nii")
    write_volume(Volume(np.full((2, 2, 2), 3.5, np.float32), np.eye(4)), tmp_path / "bad.nii")
    assert read_label(tmp_path / "good.nii").array.dtype.kind == "i"
    with pytest.raises(LabelError, match=r"integral, got 3\.5 .*\(case c1\)"):
        read_label(tmp_path / "bad.nii", case_id="c1")


def write_bad_volume(path, kind):
    if kind == "truncated":
        write_volume(Volume(np.zeros((8, 8, 8), np.int16), np.eye(4)), path)
        path.write_bytes(path.read_bytes()[:600])
    elif kind == "broken gzip":
        path.write_bytes(gzip.compress(b"0" * 1000)[:-20])
    elif kind == "wrong suffix":
        path.touch()
    elif kind == "not nifti":
        path.write_bytes(b"hello")
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "four-dimensional":
        nib.save(nib.Nifti1Image(np.zeros((2, 2, 2, 2), np.int16), np.eye(4)), path)
    elif kind == "rgb":
        rgb = np.zeros((2, 2, 2), np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")]))
        nib.save(nib.Nifti1Image(rgb, np.eye(4)), path)
    elif kind == "nan":
        nib.save(nib.Nifti1Image(np.full((2, 2, 2), np.nan, np.float32), np.eye(4)), path)
    elif kind == "singular":
        image = nib.Nifti1Image(np.zeros((2, 2, 2), np.int16), np.eye(4))
        image.set_sform(np.diag([1, 0, 1, 1]), code=1)
        nib.save(image, path)


@pytest.mark.parametrize(
    ("kind", "name", "message"),
    [
        ("missing", "ct.nii.gz", "no such file"),
        ("pipe", "ct.nii.gz", "must be a file, got the pipe or device .*ct.nii.gz"),
        ("wrong suffix", "ct.jpg", r"must be a \.nii, \.nii\.gz, .* file"),
        ("truncated", "ct.nii", "incomplete or corrupt volume"),
        ("broken gzip", "ct.nii.gz", "not a readable volume"),
        ("not nifti", "ct.nii", "not a readable volume"),
        ("four-dimensional", "ct.nii", "three dimensions"),
        ("rgb", "ct.nii", "must be numbers"),
        ("nan", "ct.nii", "must be finite"),
        ("singular", "ct.nii", "invertible"),
    ],
)
def test_bad_volume_is_refused_by_name(tmp_path, kind, name, message):
    path = tmp_path / name
    write_bad_volume(path, kind)
    with pytest.raises(InputError, match=message) as caught:
        read_ct(path, case_id="liver_017")
    assert name in str(caught.value)
    assert "(case liver_017)" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_trailing_axes_of_one_are_dropped(tmp_path):
    array = np.arange(24, dtype=np.int16).reshape(2, 3, 4, 1)
    nib.save(nib.Nifti1Image(array, np.eye(4)), tmp_path / "ct.nii")
    np.testing.assert_array_equal(read_ct(tmp_path / "ct.nii").array, array[..., 0].T)


def test_float_noise_in_headers_passes_and_a_shift_does_not():
    image = small_volume()
    noisy, shifted = image.affine + 1e-6, image.affine.copy()
    shifted[0, 3] += 0.5
    check_same_grid(image, Volume(image.array, noisy))
    with pytest.raises(GeometryError, match=r"0\.5 mm apart: origin .*\(case c7\)"):
        check_same_grid(image, Volume(image.array, shifted), case_id="c7")


def test_flipped_label_is_named_by_its_orientation():
    with pytest.raises(GeometryError, match="orientation LPS and RPS"):
        check_same_grid(small_volume("LPS"), small_volume("RPS"))


def test_case_ids():
    assert case_id_of("a/b/liver_017_0000.nii.gz") == "liver_017"
    assert case_id_of("liver.v2.nii") == "liver.v2"


def test_folders_are_paired_by_name(tmp_path):
    for name in ("images/b_0000.nii.gz", "images/a_0000.nii.gz", "labels/a.nii", "labels/b.nii.gz"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "images/.hidden.nii").touch()
    (tmp_path / "images/notes.txt").touch()
    pairs = pair_by_name(tmp_path / "images", tmp_path / "labels")
    assert [case for case, _, _ in pairs] == ["a", "b"]
    assert pairs[0][2].name == "a.nii"
    (tmp_path / "images/c.nii.gz").touch()
    with pytest.raises(InputError, match=r"no label in .*labels for c$"):
        pair_by_name(tmp_path / "images", tmp_path / "labels")


def test_folders_without_volumes_are_refused(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        list_volumes(tmp_path / "nowhere")
    with pytest.raises(InputError, match="no volume"):
        list_volumes(tmp_path)
    (tmp_path / "a.nii").touch()
    (tmp_path / "a_0000.nii.gz").touch()
    with pytest.raises(InputError, match=r"one file, got a\.nii and a_0000\.nii\.gz"):
        list_volumes(tmp_path)


@pytest.mark.real_data
def test_real_scan_reads_without_rescaling(real_data):
    volume = read_ct(real_data / "abdomen_ct_sm/ct.nii.gz")
    assert volume.shape == (30, 101, 122)
    assert volume.spacing == pytest.approx((3, 3, 3))
    assert volume.array.flags.c_contiguous
    assert -1100 <= volume.array.min() < -900
