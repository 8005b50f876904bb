"""Every format reads to the same volume, and what is no volume is refused by name and code."""

from __future__ import annotations

import sys
from itertools import permutations, product

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from bad_files import BAD_FILES, SHAPE, voxels, write_itk
from dicom_series import make_slices
from dicom_series import write as write_series

from fcnseg.codes import CODES
from fcnseg.conversion.rejects import CaseError, opened
from fcnseg.errors import InputError, LabelError, MissingExtraError
from fcnseg.volumes import (
    Volume,
    case_id_of,
    check_same_grid,
    list_images,
    list_volumes,
    pair_by_name,
    read_ct,
    read_geometry,
    read_label,
    to_canonical,
    write_mask,
    write_volume,
)

SUFFIXES = [".nii", ".nii.gz", ".hdr", ".nrrd", ".nhdr", ".seg.nrrd", ".mha", ".mhd"]
ITK_SUFFIXES = [".nrrd", ".mha"]
# Where each of ITK's axes (i, j, k) grows to: all 48 ways.
SIGNED_AXES = [
    np.eye(3)[list(order)].T * signs
    for order in permutations(range(3))
    for signs in product((1, -1), repeat=3)
]


def itk_image(array, direction=None, spacing=(0.7, 0.9, 2.5), origin=(-31.5, 20.25, 112)):
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(spacing)
    image.SetOrigin(origin)
    if direction is not None:
        image.SetDirection(np.ravel(direction).tolist())
    return image


def turn(degrees):
    """A rotation about z."""
    angle = np.deg2rad(degrees)
    return np.array(
        [[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]]
    )


def write_any(path, array):
    """Writes an array with the affine diag(-0.7, -0.9, 2.5), by whoever owns the format."""
    if path.name.endswith((".nii", ".nii.gz", ".hdr")):
        image_class = nib.Nifti1Pair if path.suffix == ".hdr" else nib.Nifti1Image
        nib.save(image_class(array.T, np.diag([-0.7, -0.9, 2.5, 1])), path)
    else:
        sitk.WriteImage(itk_image(array, origin=(0, 0, 0)), str(path))


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_volume_reads_alike_from_every_format(tmp_path, suffix):
    path = tmp_path / f"case{suffix}"
    write_any(path, voxels())
    for volume in (read_ct(path), read_label(str(path))):
        np.testing.assert_array_equal(volume.array, voxels())
        np.testing.assert_allclose(volume.affine, np.diag([-0.7, -0.9, 2.5, 1]), atol=1e-6)
    assert read_ct(path).array.dtype == np.int16
    check_same_grid(read_geometry(path), read_ct(path))
    assert case_id_of(path) == "case"
    assert list(list_volumes(tmp_path)) == ["case"]


# Suffixes as other systems write them; of a pair, those of its two files.
CAPITALS = [".NII", ".Nii", ".NII.GZ", ".nii.GZ", ".Nii.Gz", ".NRRD", ".SEG.NRRD"]
PAIRS = [(".HDR", ".IMG"), (".Hdr", ".Img"), (".HDR", ".img"), (".hdr", ".IMG")]


@pytest.mark.parametrize("suffix", CAPITALS)
def test_suffixes_may_be_of_any_case(tmp_path, suffix):
    write_any(tmp_path / f"x{suffix.lower()}", voxels())
    path = (tmp_path / f"x{suffix.lower()}").rename(tmp_path / f"case{suffix}")
    for read in (read_ct, read_label):
        np.testing.assert_array_equal(read(path).array, voxels())
    assert list_volumes(tmp_path) == list_images(tmp_path) == {"case": path}
    (tmp_path / "case.nii.gz").touch()
    (tmp_path / "case.nii.GZ").touch()
    with pytest.raises(InputError, match=r"one file, got case\.\S+ and case\.\S+ \(case case\)"):
        list_volumes(tmp_path)


@pytest.mark.parametrize(("header", "data"), PAIRS)
def test_the_suffixes_of_a_pair_may_be_of_any_case(tmp_path, header, data):
    nib.save(nib.Nifti1Pair(voxels().T, np.diag([-0.7, -0.9, 2.5, 1])), tmp_path / "x.hdr")
    for old, new in ((".hdr", header), (".img", data)):
        (tmp_path / f"x{old}").rename(tmp_path / f"case{new}")
    for suffix in (header, data):
        np.testing.assert_array_equal(read_ct(tmp_path / f"case{suffix}").array, voxels())
    assert list_volumes(tmp_path) == {"case": tmp_path / f"case{header}"}


def test_slices_called_dcm_in_capitals_are_one_volume(tmp_path):
    folder = write_series(make_slices(), tmp_path / "series")
    for path in folder.iterdir():
        path.rename(path.with_suffix(".DCM"))
    assert list_images(folder) == {"series": folder}
    assert read_ct(folder).shape == (5, 6, 7)
    one = next(iter(folder.iterdir()))
    assert case_id_of(one) == one.stem


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".nrrd", ".mha"])
def test_the_beginning_of_a_file_tells_its_grid(tmp_path, suffix):
    """Of a file on an object store no more is copied to inspect it."""
    path = tmp_path / f"case{suffix}"
    rng = np.random.default_rng(0)
    write_any(path, rng.integers(-1000, 1000, (20, 30, 40)).astype(np.int16))
    whole = read_geometry(path)
    path.write_bytes(path.read_bytes()[:5000])
    check_same_grid(read_geometry(path), whole)
    with pytest.raises(InputError, match="incomplete or corrupt volume"):
        read_ct(path)


@pytest.mark.parametrize("degrees", [0, 17])
@pytest.mark.parametrize("suffix", ITK_SUFFIXES)
def test_every_voxel_lies_where_itk_puts_it(tmp_path, suffix, degrees):
    """In all 48 orientations: ITK's own index-to-point, in LPS, is the affine, in RAS."""
    for axes in SIGNED_AXES:
        image = itk_image(voxels(shape=(2, 3, 4)), direction=turn(degrees) @ axes)
        sitk.WriteImage(image, str(tmp_path / f"ct{suffix}"))
        volume = read_ct(tmp_path / f"ct{suffix}")
        for (z, y, x), value in np.ndenumerate(volume.array):
            assert image.GetPixel(x, y, z) == value
            point = np.array(image.TransformIndexToPhysicalPoint((x, y, z))) * (-1, -1, 1)
            np.testing.assert_allclose(volume.affine @ (x, y, z, 1), (*point, 1), atol=1e-4)


@pytest.mark.parametrize("suffix", ITK_SUFFIXES)
@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        (np.array([-3024, 0, 3071], np.int32), [-3024, 0, 3071]),
        (np.array([-1000.4, 40.6, 99999], np.float32), [-1000, 41, 32767]),
        (np.array([-1000.4, 40.6, 99999], np.float64), [-1000, 41, 32767]),
        (np.array([0, 40, 40000], np.uint16), [0, 40, 32767]),
        (np.array([0, 40, 255], np.uint8), [0, 40, 255]),
        (np.array([-70000, 40, 2**40], np.int64), [-32768, 40, 32767]),
    ],
)
def test_ct_is_hu_in_int16(tmp_path, suffix, stored, expected):
    write_itk(tmp_path / f"ct{suffix}", stored.reshape(3, 1, 1))
    volume = read_ct(tmp_path / f"ct{suffix}")
    assert volume.array.dtype == np.int16
    assert volume.array.ravel().tolist() == expected


@pytest.mark.parametrize("suffix", ITK_SUFFIXES)
def test_labels_keep_their_integers_and_fractions_are_refused(tmp_path, suffix):
    path = tmp_path / f"label{suffix}"
    write_itk(path, np.full(SHAPE, 300, np.uint16))
    assert read_label(path).array.dtype == np.uint16
    write_itk(path, np.full(SHAPE, 7, np.float32))
    assert read_label(path).array.dtype == np.int8
    write_itk(path, np.full(SHAPE, 70000, np.int64))
    assert read_label(path).array.dtype == np.int32
    write_itk(path, np.full(SHAPE, 3.5, np.float32))
    with pytest.raises(LabelError, match=r"integral, got 3\.5 .*\(case c1\)"):
        read_label(path, case_id="c1")


# What float32 makes of 1, 2 and 3: by a slope, by another program's rounding, by a division.
ROUNDED = [1.0000153, 2.00000009, 3.0000002, 0.9999999, -1e-7, 117.0008]
# Ids that were resampled, or scaled as a picture.
NOT_ROUNDED = [0.988, 1.5, 0.996, 2.002, -0.01, 1e-2]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", *ITK_SUFFIXES])
def test_labels_pass_with_the_noise_of_rounding_and_with_no_more(tmp_path, suffix, dtype):
    path = tmp_path / f"label{suffix}"
    write_any(path, np.array(ROUNDED, dtype).reshape(3, 2, 1))
    assert read_label(path).array.ravel().tolist() == [1, 2, 3, 1, 0, 117]
    for value in NOT_ROUNDED:
        write_any(path, np.full((3, 2, 1), value, dtype))
        with pytest.raises(LabelError, match="integral, got"):
            read_label(path)


@pytest.mark.parametrize("most", [1, 2, 3, 13, 117])
@pytest.mark.parametrize("dtype", [np.int16, np.uint16, np.int32])
def test_float_labels_under_an_integer_header_pass(tmp_path, most, dtype):
    """nibabel stores floats as integers with a slope: ids miss theirs by half a step."""
    label = np.resize(np.arange(most + 1), (5, 5, 5))
    image = nib.Nifti1Image(label.astype(np.float64), np.eye(4))
    image.set_data_dtype(dtype)
    nib.save(image, tmp_path / "label.nii")
    np.testing.assert_array_equal(read_label(tmp_path / "label.nii").array, label.T)


@pytest.mark.parametrize("suffix", [".nii.gz", *ITK_SUFFIXES])
def test_a_fourth_axis_of_one_volume_is_dropped(tmp_path, suffix):
    path = tmp_path / f"ct{suffix}"
    sitk.WriteImage(sitk.JoinSeries([itk_image(voxels())]), str(path))
    np.testing.assert_array_equal(read_ct(path).array, voxels())
    assert read_geometry(path).spacing == pytest.approx((2.5, 0.9, 0.7))


@pytest.mark.parametrize("suffix", ITK_SUFFIXES)
def test_a_mask_lies_on_the_grid_of_its_image(tmp_path, suffix):
    axes = turn(12) @ SIGNED_AXES[29]
    sitk.WriteImage(itk_image(voxels(), direction=axes), str(tmp_path / f"ct{suffix}"))
    volume = read_ct(tmp_path / f"ct{suffix}")
    mask = (volume.array % 3).astype(np.uint8)
    write_mask(mask, tmp_path / "mask.nii.gz", like=volume)
    back = read_label(tmp_path / "mask.nii.gz")
    np.testing.assert_array_equal(back.array, mask)
    check_same_grid(volume, back, tolerance_mm=1e-3)


def test_a_sheared_grid_is_written_so_that_it_can_be_read(tmp_path):
    """A quaternion cannot tell shear, so the sform alone is set."""
    affine = np.eye(4)
    affine[1, 2] = 0.4
    write_volume(Volume(voxels(), affine), tmp_path / "ct.nii")
    np.testing.assert_allclose(read_geometry(tmp_path / "ct.nii").affine, affine, atol=1e-6)
    assert nib.load(tmp_path / "ct.nii").header["qform_code"] == 0


def test_float_noise_between_qform_and_sform_passes(tmp_path):
    """The worst of quaternions: nearly half a turn, on a scan of half a metre."""
    turned = np.eye(4)
    turned[:3, :3] = turn(179.98) * (0.98, 0.98, 5)
    image = nib.Nifti1Image(np.zeros((512, 512, 2), np.int16), turned)
    image.set_qform(turned, code=1)
    image.set_sform(turned, code=1)
    nib.save(image, tmp_path / "ct.nii")
    assert read_geometry(tmp_path / "ct.nii").shape == (2, 512, 512)


@pytest.mark.parametrize("name", BAD_FILES)
def test_what_is_no_volume_is_refused_by_name_and_code(tmp_path, name, capfd):
    bad = BAD_FILES[name]
    path = bad.write(tmp_path)
    with pytest.raises(InputError, match=bad.reason) as caught:
        read_ct(path, case_id="liver_017")
    message = str(caught.value)
    assert path.name in message
    assert message.endswith("(case liver_017)")
    assert "\n" not in message
    assert "0x" not in message, "an address in a reason makes two runs differ"
    with pytest.raises(CaseError) as rejected, opened(str(path)) as local:
        read_ct(local)
    assert rejected.value.code == bad.code
    assert rejected.value.code in CODES
    assert capfd.readouterr().err == ""


def test_overlapping_segments_are_refused_with_the_reason(tmp_path):
    image = sitk.GetImageFromArray(np.zeros((*SHAPE, 2), np.uint8), isVector=True)
    image.SetMetaData("Segment0_Layer", "0")
    image.SetMetaData("Segment1_Layer", "1")
    sitk.WriteImage(image, str(tmp_path / "label.seg.nrrd"))
    with pytest.raises(LabelError, match="must not overlap.* 2 layers") as caught:
        read_label(tmp_path / "label.seg.nrrd")
    assert caught.value.code == "segments_overlap"


def test_a_missing_extra_is_asked_for_by_name(tmp_path, monkeypatch):
    path = write_series(make_slices(), tmp_path / "series")
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(
        MissingExtraError, match="it comes with fcnseg's extra dicom, pip install .*'pydicom>="
    ):
        read_ct(path)
    with pytest.raises(CaseError) as rejected, opened(str(path)) as local:
        read_ct(local)
    assert rejected.value.code == "missing_extra"


def test_images_and_labels_of_two_formats_make_pairs(tmp_path):
    for name in ("images/a_0000.nrrd", "images/b.mha", "labels/a.seg.nrrd", "labels/b.nii.gz"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    pairs = pair_by_name(tmp_path / "images", tmp_path / "labels")
    assert [(case, label.name) for case, _, label in pairs] == [
        ("a", "a.seg.nrrd"),
        ("b", "b.nii.gz"),
    ]


@pytest.mark.real_data
def test_real_nrrd_and_its_segments(real_data):
    folder = real_data / "chest_ct_nrrd"
    image, label = read_ct(folder / "CTChest4.nrrd"), read_label(folder / "Segmentation.seg.nrrd")
    check_same_grid(image, label)
    assert image.shape == (34, 128, 128)
    assert image.spacing == pytest.approx((10, 3.0469, 3.0469), abs=1e-4)
    assert image.orientation == "RAS"
    assert image.array.min() == -3024  # the padding outside the field of view
    assert np.unique(label.array).tolist() == list(range(8))
    right, left = (np.argwhere(label.array == lung) for lung in (5, 6))
    assert right[:, 2].mean() > left[:, 2].mean() + 20, "x grows to the right"
    assert image.array[label.array == 5].mean() < -600, "lungs hold air"
    with pytest.raises(LabelError, match="2 layers: export them as one labelmap"):
        read_label(folder / "SegmentationOverlapping.seg.nrrd")


@pytest.mark.real_data
def test_real_mha(real_data):
    volume = read_ct(real_data / "lung_ct_mha/3DCT_lung_baseline_small.mha")
    assert volume.shape == (64, 78, 57)
    assert volume.spacing == pytest.approx((5, 2.732, 2.732))
    assert volume.orientation == "LPS"
    canonical = to_canonical(volume).array
    assert canonical[:5].mean() > -100, "the abdomen is below"
    assert canonical[20:30].mean() < -500, "the lungs are above"
    assert canonical[:, :2, 20:36].mean() > 50, "the spine is behind"
