import dataclasses
import gzip
import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_cases import AFFINE, LABEL_MAP, SPACING_MM, write_case

from fcnseg.conversion.cases import Case
from fcnseg.conversion.check_options import CheckOptions
from fcnseg.conversion.foreground import count_classes, draw_coordinates
from fcnseg.conversion.preprocessing import Preprocessing
from fcnseg.conversion.rejects import Reject
from fcnseg.conversion.shards import SizedCase, plan_shards
from fcnseg.conversion.splits import check_fractions, split_of
from fcnseg.errors import InputError
from fcnseg.records import encode_record
from fcnseg.records.schema import MOST_COORDINATES
from fcnseg.volumes import LabelMap, Volume, read_ct, to_canonical, write_volume
from fcnseg.volumes.formats.raw_voxels import FileVoxels

# -- splits


def test_splits_have_the_asked_shares_and_depend_on_the_seed():
    def splits(seed):
        return [
            split_of(f"patient {n}", validation_fraction=0.2, test_fraction=0.1, seed=seed)
            for n in range(4000)
        ]

    # Four standard deviations of a share of 4000 draws are at most 0.026.
    assert splits(0).count("validation") / 4000 == pytest.approx(0.2, abs=0.026)
    assert splits(0).count("test") / 4000 == pytest.approx(0.1, abs=0.02)
    assert splits(0) != splits(1)


def test_another_validation_fraction_leaves_the_test_patients_alone():
    def test_patients(validation_fraction):
        return {
            n
            for n in range(500)
            if split_of(str(n), validation_fraction=validation_fraction, test_fraction=0.2, seed=0)
            == "test"
        }

    assert test_patients(0.1) == test_patients(0.5)


def test_splits_stay_the_same_from_version_to_version():
    fractions = {"validation_fraction": 0.3, "test_fraction": 0.2, "seed": 7}
    found = [split_of(name, **fractions) for name in ("a", "b", "c", "d", "e", "f")]
    assert found == ["train", "train", "test", "train", "validation", "train"]


@pytest.mark.parametrize("fractions", [(-0.1, 0), (0, -0.1), (0.5, 0.5), (float("nan"), 0)])
def test_fractions_that_leave_nothing_to_train_on_are_refused(fractions):
    with pytest.raises(InputError, match="sum must be below 1"):
        check_fractions(validation_fraction=fractions[0], test_fraction=fractions[1])


# -- shards


def sized(name, size=1, split="train"):
    return SizedCase(Case(name, f"{name}.nii", "", name), split, size)


def test_shards_are_named_by_split_place_and_number():
    cases = [sized("a"), sized("b"), sized("c", split="test")]
    shards = plan_shards(cases, shard_bytes=1, seed=0)
    assert [shard.name for shard in shards] == [
        "train-00000-of-00002.tfrecord",
        "train-00001-of-00002.tfrecord",
        "test-00000-of-00001.tfrecord",
    ]


@given(
    sizes=st.lists(st.integers(1, 1000), min_size=1, max_size=40),
    shard_bytes=st.integers(1, 3000),
    data=st.data(),
)
def test_a_plan_holds_each_case_once_whatever_their_order(sizes, shard_bytes, data):
    cases = [sized(f"c{n}", size) for n, size in enumerate(sizes)]
    plan = plan_shards(cases, shard_bytes=shard_bytes, seed=0)
    shuffled = data.draw(st.permutations(cases))
    size_of = {item.case: item.bytes for item in cases}
    filled = [sum(size_of[case] for case in shard.cases) for shard in plan]

    assert plan == plan_shards(shuffled, shard_bytes=shard_bytes, seed=0)
    assert sorted(case.case_id for shard in plan for case in shard.cases) == sorted(
        item.case.case_id for item in cases
    )
    assert min(filled) > 0
    assert max(filled) - min(filled) <= max(sizes)  # no file could give one away and be better
    assert sum(sizes) / len(plan) <= max(shard_bytes, max(sizes))


def test_cases_are_shuffled_within_files_by_the_seed():
    cases = [sized(f"{n:02d}") for n in range(20)]
    orders = [
        [case.case_id for case in plan_shards(cases, shard_bytes=99, seed=seed)[0].cases]
        for seed in (0, 1)
    ]
    assert orders[0] != orders[1] != sorted(orders[1])


# -- foreground


def test_coordinates_are_voxels_of_their_class():
    rng = np.random.default_rng(0)
    label = rng.choice(4, size=(9, 30, 31), p=[0.7, 0.29, 0.01, 0]).astype(np.uint8)

    counts = count_classes(label, num_classes=4)
    coordinates, drawn = draw_coordinates(label, counts, case_id="a")

    np.testing.assert_array_equal(counts.sum(axis=0), np.bincount(label.ravel(), minlength=4))
    small = counts.sum(axis=0)[2]
    np.testing.assert_array_equal(drawn, [0, MOST_COORDINATES, small, 0])
    np.testing.assert_array_equal(
        label[tuple(coordinates.T)], np.repeat(np.arange(4), drawn), strict=False
    )
    assert len(np.unique(coordinates, axis=0)) == len(coordinates)
    # All voxels of the small class are there, and those of the large one come from every slice.
    assert {*map(tuple, coordinates[-small:])} == {*map(tuple, np.argwhere(label == 2))}
    assert {*coordinates[:MOST_COORDINATES, 0]} == {*range(9)}


def test_coordinates_are_drawn_evenly():
    label = np.ones((10, 20, 20), dtype=np.uint8)
    counts = count_classes(label, num_classes=2)
    hits = np.zeros(label.shape)
    for n in range(100):
        hits[tuple(draw_coordinates(label, counts, case_id=str(n))[0].T)] += 1
    # 100 draws of a quarter of the voxels: 25 hits each, standard deviation 4.3.
    assert hits.sum() == 100 * MOST_COORDINATES
    assert hits.mean(axis=(1, 2)) == pytest.approx(np.full(10, 25), abs=1)
    assert hits.min() >= 5
    assert hits.max() <= 47


def test_a_label_of_background_alone_has_no_coordinates():
    label = np.zeros((2, 3, 4), dtype=np.uint8)
    coordinates, drawn = draw_coordinates(label, count_classes(label, num_classes=3), case_id="a")
    assert coordinates.shape == (0, 3)
    assert drawn.tolist() == [0, 0, 0]


# -- one case


@pytest.fixture
def preprocessing(tmp_path):
    (tmp_path / "label_map.yaml").write_text(LABEL_MAP)
    return Preprocessing(LabelMap.read(tmp_path / "label_map.yaml"), SPACING_MM)


@pytest.fixture
def case(tmp_path):
    write_case(tmp_path, "a", seed=0)
    return Case("a", f"{tmp_path}/images/a.nii.gz", f"{tmp_path}/labels/a.nii.gz", "p")


def test_a_record_is_the_canonical_case(preprocessing, case):
    record = preprocessing.convert(case).record
    image = to_canonical(read_ct(case.image))

    # The spacing is the case's own, so only the two flipped axes differ from the file.
    np.testing.assert_array_equal(record.image, image.array)
    np.testing.assert_array_equal(record.image, read_ct(case.image).array[:, ::-1, ::-1])
    assert record.label[4, -5, -6] == 1
    assert record.label[-1, 0, -1] == 2
    np.testing.assert_array_equal(record.class_histogram, np.bincount(record.label.ravel()))
    np.testing.assert_array_equal(record.affine[:3, :3], np.diag(SPACING_MM[::-1]))
    np.testing.assert_array_equal(record.source_affine, AFFINE)
    assert (record.case_id, record.patient_id) == ("a", "p")


def test_a_record_has_the_asked_spacing_and_nearly_the_foretold_size(preprocessing, case):
    finer = dataclasses.replace(preprocessing, spacing_mm=(5.0, 5.0, 2.5))
    record = finer.convert(case).record
    assert record.shape == (24, 21, 32)
    assert record.spacing == pytest.approx((5, 5, 2.5))
    assert record.source_shape == (12, 14, 16)
    assert finer.record_bytes(finer.inspect(case)) == record.image.nbytes + record.label.nbytes


@pytest.mark.parametrize("spacing", [(1, 1, 0), (1, -1, 1), (1, 1, float("nan"))])
def test_spacing_must_be_positive(preprocessing, spacing):
    with pytest.raises(InputError, match="spacing_mm must be three positive numbers in mm"):
        dataclasses.replace(preprocessing, spacing_mm=spacing)


def overwrite(path, array, affine=AFFINE):
    write_volume(Volume(array, np.asarray(affine)), path)


def cut(path):
    with open(path, "r+b") as file:
        file.truncate(3000)


def enlarge(*paths):
    """Headers that promise 32767 x 32767 x 32767 voxels: sound, but no memory holds them."""
    for path in paths:
        header = bytearray(gzip.decompress(path.read_bytes()))
        header[42:48] = b"\xff\x7f" * 3
        path.write_bytes(gzip.compress(bytes(header)))


MOVED = AFFINE + np.array([[0, 0, 0, 0.5], *np.zeros((3, 4))])
ZEROS = np.zeros((12, 14, 16))


# Each: what is done to the case, the code, what the reason says, whose file it is.
BAD = {
    "file_missing": (lambda c: c("label").unlink(), "no such file", "label"),
    "unreadable header": (lambda c: c("image").write_bytes(b"junk"), "not a readable vol", "image"),
    "unreadable voxels": (lambda c: cut(c("image")), "incomplete or corrupt volume", "image"),
    "not_finite": (
        lambda c: overwrite(c("image"), np.full_like(ZEROS, np.nan)),
        "voxels must be finite",
        "image",
    ),
    "bad_geometry": (
        lambda c: nib.save(nib.Nifti1Image(np.zeros((16, 14, 12, 2)), AFFINE), c("label")),
        "three dimensions",
        "label",
    ),
    "shape_mismatch": (lambda c: overwrite(c("label"), ZEROS[1:]), "same shape", "label"),
    "grid_mismatch": (lambda c: overwrite(c("label"), ZEROS, MOVED), "0.5 mm apart", "label"),
    "label_not_integral": (lambda c: overwrite(c("label"), ZEROS + 0.5), "got 0.5", "label"),
    "label_ids_unknown": (
        lambda c: overwrite(c("label"), np.uint8(ZEROS + 9)),
        r"9 \(2688 voxels\)",
        "label",
    ),
    "too_large": (lambda c: enlarge(c("image"), c("label")), "32767, 32767, 32767", "image"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_case_is_rejected_with_its_code(preprocessing, case, name):
    spoil, reason, file = BAD[name]
    spoil(lambda part: Path(getattr(case, part)))
    try:
        preprocessing.inspect(case)
        preprocessing.convert(case)
    except Exception as error:
        reject = Reject.of(error, case_id="a", stage="inspect")
    assert reject.code == name.split()[0]
    assert re.search(reason, reject.reason)
    assert reject.file == getattr(case, file)
    assert reject.detail == ""
    assert Reject.from_json(reject.to_json()) == reject


def test_what_nobody_foresaw_is_rejected_with_its_place(preprocessing, case, monkeypatch):
    def read(voxels):
        raise MemoryError(f"no room for {voxels.shape}")

    monkeypatch.setattr(FileVoxels, "read", read)
    try:
        preprocessing.convert(case)
    except Exception as error:
        reject = Reject.of(error, case_id="a", stage="convert")
    assert (reject.code, reject.file) == ("unexpected_error", "")
    assert "MemoryError" in reject.reason
    assert reject.detail


def test_a_case_without_label_has_no_voxels_of_any_class(preprocessing, case):
    record = preprocessing.convert(dataclasses.replace(case, label=None)).record
    assert record.label is None
    np.testing.assert_array_equal(record.image, preprocessing.convert(case).record.image)
    assert record.class_histogram.tolist() == record.foreground_counts.tolist() == [0, 0, 0]
    assert b"label" not in encode_record(record)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"geometry_tolerance_mm": -1.0}, "0 or more, got -1.0"),
        ({"max_case_voxels": 0}, "must be positive, got 0"),
        ({"accept": ("file_missing",)}, "accept must be of .*, got file_missing"),
    ],
)
def test_check_options_are_checked(options, message):
    with pytest.raises(InputError, match=message):
        CheckOptions(**options)
