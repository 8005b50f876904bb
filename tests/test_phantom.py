import csv
import dataclasses
import hashlib
import json
import time

import numpy as np
import pytest
import yaml

from fcnseg.cli.phantom import PhantomCommand
from fcnseg.errors import InputError
from fcnseg.testing.phantom import LABEL_MAP, ORGANS, Pose, make_phantom, write_phantoms
from fcnseg.testing.phantom.anatomy import CLASS_NAMES, HU, draw_patient
from fcnseg.testing.phantom.writing import ORIENTATIONS, draw_acquisition
from fcnseg.volumes import (
    AIR_HU,
    LabelMap,
    check_same_grid,
    list_volumes,
    read_ct,
    read_label,
    to_canonical,
)

COARSE = {"spacing": (8.0, 5.0, 5.0)}
SEEDS = range(4)


@pytest.fixture(scope="module", params=SEEDS)
def phantom(request):
    return make_phantom(request.param, spacing=(5.0, 3.0, 3.0))


def centre_mm(label, organ):
    """Of an organ: x to the right, y to anterior, z to superior."""
    voxels = np.argwhere(label.array == CLASS_NAMES.index(organ))[:, ::-1]  # (n, 3) of i, j, k
    return voxels.mean(axis=0) @ label.affine[:3, :3].T + label.affine[:3, 3]


def millilitres(label, organ):
    return np.count_nonzero(label.array == CLASS_NAMES.index(organ)) * np.prod(label.spacing) / 1e3


# Normal adult volumes spread about twofold; the vessels are cut by the field of view.
VOLUME_ML = {
    "artery": (30, 160),
    "vein": (50, 250),
    "liver": (700, 2300),
    "spleen": (40, 350),
    "stomach": (100, 700),
    "gallbladder": (8, 80),
    "pancreas": (25, 120),
}
# The patient's dose moves enhancing organs by 8 %, each tissue varies by 4 HU, and the noise of an
# organ's median is below 1 HU; the vein's label holds two tissues.
MEDIAN_HU = {
    "artery": (HU["aorta"] * 0.85, HU["aorta"] * 1.12),
    "vein": (HU["cava"] * 0.85, HU["portal"] * 1.12),
    "liver": (HU["liver"] * 0.85, HU["liver"] * 1.15),
    "spleen": (HU["spleen"] * 0.85, HU["spleen"] * 1.15),
    "stomach": (10, 50),
    "gallbladder": (0, 20),
    "pancreas": (HU["pancreas"] * 0.8, HU["pancreas"] * 1.12),
}


def test_tables_name_every_organ():
    assert set(VOLUME_ML) == set(MEDIAN_HU) == set(ORGANS)


@pytest.mark.parametrize("organ", ORGANS)
def test_organ_is_present_in_its_size_and_hu(phantom, organ):
    image, label = phantom
    low, high = VOLUME_ML[organ]
    assert low < millilitres(label, organ) < high
    low, high = MEDIAN_HU[organ]
    assert low < np.median(image.array[label.array == CLASS_NAMES.index(organ)]) < high


def test_anatomy_lies_where_it_belongs(phantom):
    _, label = phantom
    x, y, z = {}, {}, {}
    for organ in ORGANS:
        x[organ], y[organ], z[organ] = centre_mm(label, organ)
    assert x["liver"] > x["vein"] > x["artery"] > x["stomach"] > x["spleen"]
    assert x["gallbladder"] > x["pancreas"] > x["spleen"]
    assert y["stomach"] > y["spleen"]
    assert y["gallbladder"] > y["artery"]
    assert z["liver"] > z["gallbladder"]


def test_image_has_the_hu_of_ct(phantom):
    image, label = phantom
    assert image.array.dtype == np.int16
    assert label.array.dtype == np.uint8
    assert image.array.min() == AIR_HU
    assert 400 < image.array.max() < 900  # bone
    assert np.median(image.array[:, 0]) < -990  # air about the body
    fat = (image.array > -150) & (image.array < -50)
    assert fat.mean() > 0.1


def test_noise_has_its_strength_and_grain():
    image, label = make_phantom(1, spacing=(5.0, 1.5, 1.5), shape=(16, 140, 140))
    liver = label.array == CLASS_NAMES.index("liver")
    inner = liver[:, :-1, :-1] & liver[:, 1:, :-1] & liver[:, :-1, 1:]
    hu = image.array - np.median(image.array[liver])
    here, right, above = hu[:, :-1, :-1][inner], hu[:, :-1, 1:][inner], hu[:, 1:, :-1][inner]
    plausible = np.abs(here) < 60  # leaves out hepatic veins and the liver's rim
    assert 9 < here[plausible].std() < 20
    for neighbour in (right, above):
        both = plausible & (np.abs(neighbour) < 60)
        assert 0.3 < np.corrcoef(here[both], neighbour[both])[0, 1] < 0.9


def test_seed_decides_everything():
    one, other = (make_phantom(3, **COARSE) for _ in range(2))
    for first, second in zip(one, other, strict=True):
        np.testing.assert_array_equal(first.array, second.array)
        np.testing.assert_array_equal(first.affine, second.affine)
    assert not np.array_equal(one[1].array, make_phantom(4, **COARSE)[1].array)


def test_grid_changes_the_view_and_not_the_patient():
    _, coarse = make_phantom(5, spacing=(8.0, 6.0, 6.0))
    _, fine = make_phantom(5, spacing=(4.0, 3.0, 3.0), orientation="LPS", oblique_degrees=5.0)
    for organ in ORGANS:
        assert millilitres(coarse, organ) == pytest.approx(millilitres(fine, organ), rel=0.15)


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_orientation_turns_axes_only(orientation):
    image, label = make_phantom(2, **COARSE)
    turned, turned_label = make_phantom(2, **COARSE, orientation=orientation)
    assert turned.orientation == orientation
    check_same_grid(turned, turned_label)
    np.testing.assert_array_equal(to_canonical(turned).array, image.array)
    np.testing.assert_array_equal(to_canonical(turned_label).array, label.array)
    np.testing.assert_allclose(to_canonical(turned).affine, image.affine, atol=1e-9)


@pytest.mark.parametrize(
    ("turn_degrees", "turned"),
    [
        ((0, 0, 0), lambda x, y, z: (x, y, z)),
        ((90, 0, 0), lambda x, y, z: (-y, x, z)),
        ((0, 90, 0), lambda x, y, z: (z, y, -x)),
        ((0, 0, 90), lambda x, y, z: (x, -z, y)),
        ((90, 0, 90), lambda x, y, z: (z, x, y)),  # about x first
    ],
)
def test_pose_turns_grows_and_shifts_the_patient(turn_degrees, turned):
    grid = {"spacing": (7.0, 7.0, 7.0), "shape": (64, 64, 64)}  # holds the organs however turned
    pose = Pose(turn_degrees, scale=1.1, shift_mm=(20.0, 10.0, -15.0))
    (_, before), (_, after) = make_phantom(2, **grid), make_phantom(2, **grid, pose=pose)
    middle = np.array([0, 45, 12])  # of every field of view
    for organ in ("liver", "spleen", "stomach"):  # many voxels, and none beyond the field of view
        moved = 1.1 * np.array(turned(*centre_mm(before, organ) - middle))
        expected = moved + middle + np.array([-15, 10, 20])
        np.testing.assert_allclose(centre_mm(after, organ), expected, atol=1.5)
        grown = millilitres(after, organ) / millilitres(before, organ)
        assert grown == pytest.approx(1.1**3, rel=0.05)


def test_shape_and_tilt_are_taken():
    image, label = make_phantom(
        0, spacing=(9.0, 10.0, 11.0), shape=(20, 24, 28), oblique_degrees=6.0
    )
    assert image.shape == label.shape == (20, 24, 28)
    assert image.spacing == pytest.approx((9.0, 10.0, 11.0))
    assert abs(image.affine[0, 1]) > 0.1


def test_acquisitions_differ():
    grids = [draw_acquisition(0, index) for index in range(16)]
    assert {grid.orientation for grid in grids} == set(ORIENTATIONS)
    assert len({grid.spacing for grid in grids}) > 10
    assert any(grid.oblique_degrees for grid in grids)
    assert not all(grid.oblique_degrees for grid in grids)
    assert all(3 <= grid.spacing[0] <= 5 and 2.2 <= grid.spacing[1] <= 3.2 for grid in grids)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantoms") / "out"
    PhantomCommand(cases=2, output=folder, seed=9).run()
    return folder


def test_command_writes_what_the_conversion_reads(written):
    with open(written / "cases.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["case_id"] for row in rows] == ["phantom_000", "phantom_001"]
    assert len({row["patient_id"] for row in rows}) == 2
    assert LabelMap.read(written / "label_map.yaml") == LABEL_MAP
    assert yaml.safe_load((written / "label_map.yaml").read_text())["unlisted"] == "reject"
    for row in rows:
        image, label = read_ct(written / row["image"]), read_label(written / row["label"])
        check_same_grid(image, label)
        assert set(np.unique(label.array)) == set(range(8))


def test_a_case_depends_on_seed_and_number_only(written, tmp_path):
    list(write_phantoms(1, tmp_path / "one", seed=9))
    alone = read_ct(tmp_path / "one/images/phantom_000.nii.gz")
    among = read_ct(written / "images/phantom_000.nii.gz")
    np.testing.assert_array_equal(alone.array, among.array)
    np.testing.assert_array_equal(alone.affine, among.affine)


def test_nothing_is_overwritten_unasked(tmp_path):
    list(write_phantoms(1, tmp_path, seed=1))
    path = tmp_path / "images/phantom_000.nii.gz"
    before = path.read_bytes()
    (tmp_path / "images/phantom_001.nii.gz").touch()  # as if there had been more cases
    with pytest.raises(InputError, match="must be an empty folder"):
        write_phantoms(1, tmp_path, seed=2)
    assert path.read_bytes() == before
    cases = write_phantoms(1, tmp_path, seed=2, overwrite=True)
    next(cases)
    assert not (tmp_path / "cases.csv").exists()  # it comes last
    assert list(cases) == []
    assert (tmp_path / "cases.csv").exists()
    assert list(list_volumes(tmp_path / "images")) == ["phantom_000"]
    assert path.read_bytes() != before


def test_scans_of_others_are_never_overwritten(tmp_path):
    """Names of folders are common; `--overwrite` is for phantoms."""
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels/liver_017.nii.gz").write_bytes(b"precious")
    message = "must be a folder of phantoms to be replaced, got .*labels/liver_017.nii.gz"
    with pytest.raises(InputError, match=message):
        write_phantoms(1, tmp_path, overwrite=True)
    assert [path.name for path in tmp_path.rglob("*.*")] == ["liver_017.nii.gz"]


def plain(value):
    """Plain values for JSON, with numbers that are the same to the sixth decimal everywhere."""
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [plain(each) for each in value]
    return value if value is None or isinstance(value, int) else round(float(value), 6) + 0.0


# Taken before there was a variety. Of the patient and not of the voxels, whose HU a library of
# linear algebra may round the other way on another processor.
USUAL_PATIENTS = {
    3: "fb81025ba2e661c678c9b0c534b449836050276b6c7e73ce10cb4385e3cadaa1",
    4: "1350d862818cb9a5362ef6cc2575c5fb57c8043d15141f84a1de80924b59ce70",
}


@pytest.mark.parametrize("seed", USUAL_PATIENTS)
def test_usual_patients_stay_the_same(seed):
    patient = draw_patient(np.random.default_rng(seed), variety=1.0)
    text = json.dumps(plain(dataclasses.asdict(patient)))
    assert hashlib.sha256(text.encode()).hexdigest() == USUAL_PATIENTS[seed]


def test_usual_scans_stay_the_same():
    grid = draw_acquisition(0, 1, variety=1.0)
    assert grid == draw_acquisition(0, 1)
    assert (grid.spacing, grid.orientation, grid.oblique_degrees) == ((3.5, 3.05, 3.05), "RAS", 7.6)
    usual, unvaried = make_phantom(3, **COARSE), make_phantom(3, **COARSE, variety=1.0)
    for first, second in zip(usual, unvaried, strict=True):
        np.testing.assert_array_equal(first.array, second.array)


@pytest.fixture(scope="module")
def varied():
    """Volume of each organ in each of 12 patients, ml, and median HU."""
    rows = []
    for seed in range(12):
        image, label = make_phantom(seed, spacing=(8.0, 6.0, 6.0), variety=2.5)
        median = {
            organ: np.median(image.array[label.array == index])
            for index, organ in enumerate(CLASS_NAMES)
            if (label.array == index).any()
        }
        rows.append(({organ: millilitres(label, organ) for organ in ORGANS}, median))
    return rows


@pytest.mark.parametrize("organ", ORGANS)
def test_varied_patients_have_every_organ_but_the_gallbladder(varied, organ):
    low, high = VOLUME_ML[organ]
    for volumes, _ in varied:
        missing = organ == "gallbladder" and not volumes[organ]
        assert missing or low / 10 < volumes[organ] < 2 * high


@pytest.mark.parametrize(
    ("variety", "share"), [(1.0, 0), (1.5, 1 / 16), (2.0, 1 / 8), (3.0, 1 / 8)]
)
def test_some_varied_patients_have_no_gallbladder(variety, share):
    label = CLASS_NAMES.index("gallbladder")
    patients = [draw_patient(np.random.default_rng(seed), variety=variety) for seed in range(200)]
    missing = [all(tissue.label != label for tissue in patient.tissues) for patient in patients]
    assert np.mean(missing) == pytest.approx(share, abs=0.06 if share else 0)


def test_varied_patients_differ_more(varied):
    usual = [millilitres(make_phantom(seed, **COARSE)[1], "spleen") for seed in range(8)]
    spleens = [volumes["spleen"] for volumes, _ in varied]
    assert max(spleens) / min(spleens) > 2 * max(usual) / min(usual)
    phases = [median["artery"] - median["vein"] for _, median in varied]
    assert min(phases) < -35 < 15 < max(phases)  # late and early; -15 +- 15 as usual


def test_varied_scans_differ_more():
    slices = [draw_acquisition(0, index, variety=2.5).spacing[0] for index in range(40)]
    assert 1.5 <= min(slices) < 2.5
    assert 5.5 < max(slices) <= 6.5


def test_command_writes_varied_phantoms(written, tmp_path):
    PhantomCommand(cases=1, output=tmp_path, seed=9, variety=2.0).run()
    one, other = (read_ct(folder / "images/phantom_000.nii.gz") for folder in (written, tmp_path))
    assert one.shape != other.shape  # as the slices differ in thickness
    image, _ = make_phantom(
        [9, 0, 0], **dataclasses.asdict(draw_acquisition(9, 0, variety=2.0)), variety=2.0
    )
    np.testing.assert_array_equal(other.array, image.array)


@pytest.mark.parametrize("variety", [0, 0.99, -1, 3.1, float("nan"), float("inf")])
@pytest.mark.parametrize(
    "use",
    [
        lambda variety, folder: make_phantom(0, **COARSE, variety=variety),
        lambda variety, folder: draw_patient(np.random.default_rng(0), variety=variety),
        lambda variety, folder: draw_acquisition(0, 0, variety=variety),
        lambda variety, folder: write_phantoms(1, folder / "out", variety=variety),
    ],
)
def test_a_variety_out_of_range_is_refused(use, variety, tmp_path):
    with pytest.raises(InputError, match=rf"variety must be a number from 1 to 3, got {variety}"):
        use(variety, tmp_path)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("cases", [0, -1])
def test_no_case_is_refused(cases, tmp_path):
    with pytest.raises(InputError, match="cases must be at least 1"):
        write_phantoms(cases, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_file_as_output_is_refused(tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(InputError, match="output must be a folder"):
        write_phantoms(1, tmp_path / "out")


def test_rendering_is_quick():
    start = time.process_time()
    make_phantom(0)
    assert time.process_time() - start < 5  # 0.5 s measured; the rest is room for slower machines
