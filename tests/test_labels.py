"""Labels on the grid of their image: one file or a folder of masks, here or elsewhere."""

from __future__ import annotations

import dataclasses
import itertools

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from small_cases import AFFINE, SPACING_MM

from fcnseg.conversion.cases import Case
from fcnseg.conversion.check_options import CheckOptions
from fcnseg.conversion.labels import LabelReader
from fcnseg.conversion.preprocessing import Preprocessing
from fcnseg.conversion.rejects import CaseError
from fcnseg.volumes import (
    Geometry,
    LabelMap,
    Volume,
    to_canonical,
    write_volume,
)
from fcnseg.volumes.regridding import label_on_grid

SHAPE = (12, 14, 16)
GRID = Geometry(SHAPE, AFFINE)
LABEL_MAP = LabelMap(
    {"background": (0,), "liver": (5,), "vein": (63, "cava", "portal"), "stomach": (6,)}
)


def boxes(*values: int) -> np.ndarray:
    """A box for each value, the second beginning inside the first and so on."""
    label = np.zeros(SHAPE, np.uint8)
    for n, value in enumerate(values):
        label[2 * n : 2 * n + 4, 3:9, 4:10] = value
    return label


def write(path, array, affine=AFFINE):
    path.parent.mkdir(parents=True, exist_ok=True)
    write_volume(Volume(array, affine), path)
    return str(path)


def reader(**options) -> LabelReader:
    return LabelReader(LABEL_MAP, CheckOptions(**options))


def inspect_and_read(label: str) -> None:
    reader().inspect(label, GRID)
    reader().read(label, GRID)


@pytest.fixture
def masks(tmp_path):
    """TotalSegmentator's layout: 4 slices of liver, then 4 of each vein, then no stomach."""
    folder = tmp_path / "segmentations"
    for n, name in enumerate(("liver", "cava", "portal")):
        write(folder / f"{name}.nii.gz", boxes(*[0] * n, 1))
    write(folder / "stomach.nii.gz", boxes(0))
    write(folder / "lung.nii.gz", boxes(1))  # of no class: it is not read
    (folder / "lung.nii.gz").write_bytes(b"junk")
    (folder / "statistics.json").write_text("{}")
    return folder


def test_masks_are_merged_by_name_and_the_later_class_wins(masks):
    label, findings = reader().read(str(masks), GRID)

    assert label.dtype == np.uint8
    assert label[:, 5, 5].tolist() == [1, 1, 2, 2, 2, 2, 2, 2, 0, 0, 0, 0]
    # Slices 2 and 3 are liver too, of 6 x 6 voxels each; two masks of one class may meet.
    assert [(found.code, found.reason) for found in findings] == [
        (
            "masks_overlap",
            "masks overlap, and the later class of the label map takes the voxels: "
            "from liver to vein 72 voxels",
        )
    ]


def test_masks_make_the_record_that_one_file_makes(tmp_path):
    label = boxes(5, 0, 63, 0, 6)
    for value, name in ((5, "liver"), (63, "cava"), (0, "portal"), (6, "stomach")):
        mask = (label == value) & (label > 0)
        write(tmp_path / "masks" / f"{name}.nii.gz", np.uint8(255 * mask))
    image = np.random.default_rng(0).integers(-1000, 1000, SHAPE, dtype=np.int16)
    case = Case(
        "a", write(tmp_path / "ct.nii.gz", image), write(tmp_path / "label.nii.gz", label), "p"
    )
    preprocessing = Preprocessing(LABEL_MAP, SPACING_MM)
    preprocessing.inspect(dataclasses.replace(case, label=f"{tmp_path}/masks"))
    one = preprocessing.convert(case)
    many = preprocessing.convert(dataclasses.replace(case, label=f"{tmp_path}/masks/"))

    np.testing.assert_array_equal(one.record.label, many.record.label)
    assert one.record.class_histogram.tolist() == many.record.class_histogram.tolist()
    assert min(one.record.class_histogram) > 0
    assert [warning.code for warning in one.warnings] == ["thick_slices"]
    assert many.warnings == one.warnings


def test_masks_may_have_suffixes_of_any_case(masks):
    here, _ = reader().read(str(masks), GRID)
    for name, suffix in (("liver", ".NII.GZ"), ("cava", ".nii.GZ"), ("stomach", ".Nii.Gz")):
        (masks / f"{name}.nii.gz").rename(masks / f"{name}{suffix}")
    there, _ = reader().read(str(masks), GRID)
    np.testing.assert_array_equal(here, there)
    write(masks / "liver.nii.gz", boxes(1))
    with pytest.raises(CaseError, match=r"one file, got liver\.NII\.GZ and liver\.nii\.gz"):
        reader().inspect(str(masks), GRID)


def test_two_files_may_not_be_one_mask(masks):
    write(masks / "liver.nii", boxes(1))
    with pytest.raises(CaseError, match="one file, got liver.nii and liver.nii.gz") as caught:
        reader().inspect(str(masks), GRID)
    assert caught.value.code == "mask_ambiguous"


# Each: what is done to the folder, the code, what the reason says, which file is to blame.
BAD_MASKS = {
    "a file is missing": (
        lambda folder: (folder / "portal.nii.gz").unlink(),
        "masks_missing",
        "no portal in",
        "",
    ),
    "no file at all": (
        lambda folder: [path.unlink() for path in folder.iterdir()],
        "masks_missing",
        "no liver, cava, portal and 1 more in",
        "",
    ),
    "ids": (
        lambda folder: write(folder / "cava.nii.gz", boxes(1, 2)),
        "mask_not_binary",
        "got 0, 1, 2 in",
        "cava.nii.gz",
    ),
    "negative": (
        lambda folder: write(folder / "cava.nii.gz", boxes(1).astype(np.int16) - 1),
        "mask_not_binary",
        "got -1, 0 in",
        "cava.nii.gz",
    ),
    "another shape": (
        lambda folder: write(folder / "cava.nii.gz", boxes(1)[1:]),
        "shape_mismatch",
        "same shape",
        "cava.nii.gz",
    ),
    "broken": (
        lambda folder: (folder / "cava.nii.gz").write_bytes(b"junk"),
        "unreadable",
        "not a readable volume",
        "cava.nii.gz",
    ),
}


@pytest.mark.parametrize("name", BAD_MASKS)
def test_bad_masks_are_named(masks, name):
    spoil, code, reason, file = BAD_MASKS[name]
    spoil(masks)
    with pytest.raises(CaseError, match=reason) as caught:
        inspect_and_read(str(masks))
    assert caught.value.code == code
    assert caught.value.file == str(masks / file)


# -- another grid


def moved(*, x_mm: float) -> np.ndarray:
    affine = AFFINE.copy()
    affine[0, 3] += x_mm
    return affine


def test_float_noise_and_what_the_user_tolerates_pass(tmp_path):
    for distance, tolerance in ((0.005, 0.01), (0.9, 1.0)):
        path = write(tmp_path / "label.nii.gz", boxes(5), moved(x_mm=distance))
        label, findings = reader(geometry_tolerance_mm=tolerance).read(path, GRID)
        np.testing.assert_array_equal(label, boxes(1))
        assert findings == []


def test_a_label_is_taken_to_lie_where_the_image_lies_if_asked(tmp_path):
    path = write(tmp_path / "label.nii.gz", boxes(5), moved(x_mm=10))
    trusting = reader(on_mismatch="trust_image")
    trusting.inspect(path, GRID)
    label, (finding,) = trusting.read(path, GRID)
    np.testing.assert_array_equal(label, boxes(1))
    assert finding.code == "label_moved"
    assert "10 mm apart" in finding.reason

    path = write(tmp_path / "label.nii.gz", boxes(5)[1:])
    with pytest.raises(CaseError, match="same shape") as caught:
        trusting.inspect(path, GRID)
    assert caught.value.code == "shape_mismatch"


def test_a_label_is_brought_to_the_grid_of_the_image_if_asked(tmp_path):
    # Two voxels to the right are two lower indices: x grows to the left, by 5 mm.
    path = write(tmp_path / "label.nii.gz", boxes(5), moved(x_mm=10))
    resampling = reader(on_mismatch="resample_label")
    resampling.inspect(path, GRID)
    label, (finding,) = resampling.read(path, GRID)
    np.testing.assert_array_equal(label, np.roll(boxes(1), -2, axis=2))
    assert finding.code == "label_resampled"


def test_masks_are_brought_to_the_grid_of_the_image_if_asked(masks):
    for name in ("liver", "cava", "portal", "stomach"):
        (masks / f"{name}.nii.gz").unlink()
        write(masks / f"{name}.nii.gz", boxes(int(name == "cava")), moved(x_mm=10))
    label, findings = reader(on_mismatch="resample_label").read(str(masks), GRID)
    np.testing.assert_array_equal(label, np.roll(boxes(2), -2, axis=2))
    assert {finding.code for finding in findings} == {"label_resampled"}


ORIENTATIONS = [
    axes
    for order in itertools.permutations(("RL", "AP", "SI"))
    for axes in itertools.product(*order)
]


def stored_as(axes: str, label: Volume) -> Volume:
    """The same voxels in the same places, their axes in that order."""
    straight = nib.Nifti1Image(label.array.T, label.affine)
    now = nib.orientations.io_orientation(label.affine)
    turn = nib.orientations.ornt_transform(now, nib.orientations.axcodes2ornt(axes))
    turned = straight.as_reoriented(turn)
    return Volume(np.asarray(turned.dataobj).T, turned.affine)


def tilted(affine: np.ndarray) -> np.ndarray:
    """An oblique grid, as of a head that is not straight."""
    turn = nib.affines.from_matvec(nib.eulerangles.euler2mat(x=0.3, z=0.2))
    return turn @ affine


@pytest.mark.parametrize("on_mismatch", ["reject", "resample_label", "trust_image"])
@pytest.mark.parametrize("axes", ORIENTATIONS, ids="".join)
def test_the_order_of_axes_of_a_label_does_not_matter(tmp_path, axes, on_mismatch):
    """The same voxels in the same places are turned, and no voxel is interpolated."""
    ids = np.random.default_rng(0).choice(np.array([0, 5, 6, 63], np.uint8), SHAPE)
    wanted = LABEL_MAP.apply(ids)
    for affine in (AFFINE, tilted(AFFINE)):
        image = Geometry(SHAPE, affine)
        turned = stored_as("".join(axes), Volume(ids, affine))
        path = write(tmp_path / "label.nii.gz", turned.array, turned.affine)
        bringing = reader(on_mismatch=on_mismatch)
        bringing.inspect(path, image)
        label, findings = bringing.read(path, image)
        np.testing.assert_array_equal(label, wanted)
        assert findings == []


@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
def test_the_order_of_axes_does_not_matter_in_other_formats(tmp_path, suffix):
    turned = stored_as("LAS", Volume(boxes(5), AFFINE))
    picture = sitk.GetImageFromArray(turned.array)
    lps = np.diag([-1, -1, 1, 1]) @ turned.affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    picture.SetOrigin(lps[:3, 3])
    picture.SetSpacing(spacing)
    picture.SetDirection((lps[:3, :3] / spacing).ravel())
    sitk.WriteImage(picture, tmp_path / f"label{suffix}")
    label, findings = reader().read(f"{tmp_path}/label{suffix}", GRID)
    np.testing.assert_array_equal(label, boxes(1))
    assert findings == []


def test_the_order_of_axes_of_masks_does_not_matter(masks):
    wanted, _ = reader().read(str(masks), GRID)
    for name, axes in (("liver", "LAS"), ("cava", "ASR")):
        mask = boxes(1) if name == "liver" else boxes(0, 1)
        turned = stored_as(axes, Volume(mask, AFFINE))
        write(masks / f"{name}.nii.gz", turned.array, turned.affine)
    reader().inspect(str(masks), GRID)
    label, _ = reader().read(str(masks), GRID)
    np.testing.assert_array_equal(label, wanted)


MIRRORS = {
    "left and right": (-1, 1, 1),
    "front and back": (1, -1, 1),
    "head and foot": (1, 1, -1),
    "half a turn": (-1, -1, 1),
}


@pytest.mark.parametrize("name", MIRRORS)
def test_a_label_that_another_direction_is_told_of_is_never_mirrored(tmp_path, name):
    """It lies elsewhere by its header, so nobody knows which voxel is which."""
    path = write(tmp_path / "label.nii.gz", boxes(5), AFFINE @ np.diag([*MIRRORS[name], 1]))
    for options in ({}, {"on_mismatch": "trust_image"}):
        for act in (reader(**options).inspect, reader(**options).read):
            with pytest.raises(CaseError, match="orientation LPS and") as caught:
                act(path, GRID)
            assert caught.value.code == "grid_mismatch"
    assert str(caught.value).endswith("trust_image turns and mirrors none")


def test_axes_in_another_order_are_not_the_same_voxels_elsewhere(tmp_path):
    """A turned label that is also shifted is refused as it was."""
    turned = stored_as("LAS", Volume(boxes(5), AFFINE))
    turned.affine[0, 3] += 0.5
    path = write(tmp_path / "label.nii.gz", turned.array, turned.affine)
    with pytest.raises(CaseError, match="must lie on the same grid") as caught:
        reader().inspect(path, GRID)
    assert caught.value.code == "grid_mismatch"


@pytest.mark.parametrize("axes", ORIENTATIONS, ids="".join)
def test_a_turned_label_comes_to_the_same_voxels(axes):
    rng = np.random.default_rng(0)
    label = Volume(rng.integers(0, 4, (5, 6, 7), dtype=np.uint8), oriented("".join(axes)))
    straight = to_canonical(label)
    turned = label_on_grid(label, straight.geometry)
    np.testing.assert_array_equal(turned.array, straight.array)
    back = label_on_grid(straight, label.geometry)
    np.testing.assert_array_equal(back.array, label.array)


def oriented(axes: str) -> np.ndarray:
    """An affine of that orientation, with another spacing along each axis."""
    turn = nib.orientations.axcodes2ornt(axes)
    affine = np.eye(4)
    affine[:3, :3] = np.linalg.inv(nib.orientations.inv_ornt_aff(turn, (1, 1, 1)))[:3, :3]
    return np.diag([1.5, 2.0, 3.0, 1.0]) @ affine


def test_a_finer_and_oblique_grid_takes_the_nearest_voxel():
    # A ball of 20 mm radius around the patient's origin, drawn on one grid and asked on another.
    coarse = Geometry((30, 30, 30), nib.affines.from_matvec(np.eye(3) * 2, [-29, -29, -29]))
    angle = np.radians(20)
    turn = [[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]]
    fine = Geometry((45, 45, 45), nib.affines.from_matvec(turn, np.array(turn) @ [-22, -22, -22]))
    found = label_on_grid(Volume(ball(coarse), coarse.affine), fine).array
    inside = ball(fine)
    # The surface of a ball moves by half a voxel of 2 mm at most, seen along one of three axes.
    assert 2 * np.sum(found * inside) / (found.sum() + inside.sum()) > 0.95
    assert abs(int(found.sum()) / int(inside.sum()) - 1) < 0.02


def ball(grid: Geometry, *, radius=20.0) -> np.ndarray:
    index = np.moveaxis(np.indices(grid.shape), 0, -1)[..., ::-1]  # (x, y, z)
    return np.uint8(np.linalg.norm(nib.affines.apply_affine(grid.affine, index), axis=-1) < radius)


@pytest.mark.parametrize("noise", [-1e-8, 0, 1e-8])
@pytest.mark.parametrize("turn", [(1, 1, 1), (-1, 1, -1)])
def test_a_coarser_or_finer_grid_moves_nothing(turn, noise):
    """A ball between grids whose voxels lie half way between each other's."""
    fine = centred((40, 40, 40), (1.0 + noise, 1.0 + noise, 1.0), (1, 1, 1))
    for other in (centred((20, 20, 20), (2, 2, 2), turn), centred((41, 27, 40), (1, 1.5, 1), turn)):
        there = label_on_grid(Volume(ball(fine, radius=12), fine.affine), other)
        centre = np.argwhere(there.array)[:, ::-1].mean(axis=0)
        assert np.abs(nib.affines.apply_affine(other.affine, centre)).max() < 0.05  # mm
        volume = there.array.sum() * np.prod(other.spacing)
        assert volume == pytest.approx(ball(fine, radius=12).sum(), rel=0.01)


@pytest.mark.parametrize("noise", [-1e-8, 0, 1e-8])
def test_an_oblique_grid_moves_nothing(noise):
    """Turned in the plane, with every other slice half way between two of the label's."""
    fine = centred((40, 40, 40), (1.0 + noise, 1.0, 1.0), (1, 1, 1))
    straight = centred((79, 40, 40), (0.5, 1.0, 1.0), (1, 1, 1))
    sine, cosine = np.sin(np.radians(3)), np.cos(np.radians(3))
    turn = nib.affines.from_matvec([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1]])
    other = Geometry(straight.shape, turn @ straight.affine)
    there = label_on_grid(Volume(ball(fine, radius=12), fine.affine), other)
    centre = np.argwhere(there.array)[:, ::-1].mean(axis=0)
    assert np.abs(nib.affines.apply_affine(other.affine, centre)).max() < 0.05  # mm
    volume = there.array.sum() * np.prod(other.spacing)
    assert volume == pytest.approx(ball(fine, radius=12).sum(), rel=0.01)


def centred(shape, spacing, turn) -> Geometry:
    """A grid (z, y, x) around the patient's origin, of which axes are flipped."""
    matrix = np.diag(np.multiply(spacing, turn)[::-1])
    return Geometry(
        shape, nib.affines.from_matvec(matrix, -matrix @ (np.array(shape[::-1]) - 1) / 2)
    )


def test_what_the_label_does_not_reach_is_background():
    label = Volume(np.ones((2, 2, 2), np.uint8), np.eye(4))
    wide = label_on_grid(label, Geometry((2, 2, 6), nib.affines.from_matvec(np.eye(3), [-2, 0, 0])))
    assert wide.array[0, 0].tolist() == [0, 0, 1, 1, 0, 0]
    half = label_on_grid(
        label, Geometry((2, 2, 1), nib.affines.from_matvec(np.eye(3), [1.4, 0, 0]))
    )
    assert half.array[0, 0].tolist() == [1]  # a voxel reaches beyond its centre


def test_masks_may_lie_in_an_object_store(masks, objects):
    here, _ = reader().read(str(masks), GRID)
    folder = "memory://scans/s1/segmentations"
    objects.update({f"{folder}/{path.name}": path.read_bytes() for path in masks.iterdir()})
    inspect_and_read(folder)
    there, _ = reader().read(folder, GRID)
    np.testing.assert_array_equal(here, there)
    del objects[f"{folder}/cava.nii.gz"]
    with pytest.raises(CaseError, match=f"no cava in {folder}") as caught:
        inspect_and_read(folder)
    assert caught.value.code == "masks_missing"
