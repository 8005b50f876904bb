"""A dataset tells which files its cases came from, and which cases a split or a fold has."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
from layouts import LAYOUTS
from object_store import Objects
from small_cases import AFFINE, write_cases, write_split_cases

from fcnseg.conversion.dataset_cases import check_files_there, read_case_files, select_cases
from fcnseg.errors import DatasetError, InputError
from fcnseg.records import SPLITS, Dataset, Fold
from fcnseg.training.provenance import Provenance
from fcnseg.volumes import Volume
from pipelines.convert_ct import ConvertCt

SPACING_MM = (10.0, 7.5, 7.5)
FILE = "case_files.csv"


def make_scans(count=4):
    """Scans of a few thousand voxels with two organs, in LPS."""
    scans = {}
    for number in range(count):
        rng = np.random.default_rng(number)
        label = np.zeros((12, 14, 16), np.uint8)
        label[2:8, 3:9, 4:10], label[9:, 10:, :5] = 1, 2
        image = rng.integers(-1000, 1000, label.shape, dtype=np.int16)
        scans[f"scan_{number}"] = Volume(image, AFFINE), Volume(label, AFFINE)
    return scans


def convert(folder: Path, **flags) -> ConvertCt:
    job = ConvertCt(
        **{"output": str(folder), "spacing_mm": SPACING_MM, "test_fraction": 0.3, **flags}
    )
    job.run()
    return job


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Twelve cases of six patients in all three splits, and their records."""
    folder = tmp_path_factory.mktemp("made")
    cases = write_split_cases(folder / "in")
    convert(folder / "out", cases=str(cases), label_map=str(folder / "in/label_map.yaml"))
    return folder


@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_layout_tells_its_files_and_gives_the_same_records_by_them(tmp_path, layout):
    flags = LAYOUTS[layout](tmp_path / "in", make_scans(), ("liver", "spleen"))
    job = convert(tmp_path / "out", **flags)
    dataset = Dataset.open(tmp_path / "out")
    listed = job.list_cases(job.preprocessing().label_map)
    found = read_case_files(dataset)
    assert tuple(found.values()) == job.divided(listed)
    assert len(found) == 4
    for case in found.values():
        assert case.case_id in dataset.info.splits[case.split].case_ids
        assert Path(case.image).is_absolute()
        assert Path(case.image).exists()
        assert Path(case.label).exists()
    # The list is one that the conversion reads.
    taken = tmp_path / "map.yaml"
    taken.write_text(job.preprocessing().label_map.to_yaml())
    convert(tmp_path / "again", cases=f"{tmp_path}/out/{FILE}", label_map=str(taken), split_seed=0)
    first, again = contents(tmp_path / "out"), contents(tmp_path / "again")
    assert first.pop("COMPLETED") != again.pop("COMPLETED")  # which tells that splits were given
    assert first == again


def test_a_series_and_rejected_cases_are_in_the_list(tmp_path):
    flags = LAYOUTS["DICOM + SEG"](tmp_path / "in", make_scans(2), ("liver", "spleen"))
    rows = [
        f"scan_{n},images/scan_{n},labels/scan_{n}.dcm,1.2.3.{uid}" for n, uid in ((0, 10), (1, 99))
    ]
    text = "\n".join(["case_id,image,label,series_uid", *rows])
    (tmp_path / "in/cases.csv").write_text(text)
    convert(
        tmp_path / "out",
        cases=f"{tmp_path}/in/cases.csv",
        label_map=flags["label_map"],
        max_reject_fraction=0.5,
        validation_fraction=0.0,
        test_fraction=0.0,
    )
    assert (tmp_path / "out" / FILE).read_text().splitlines()[1:] == [
        f"scan_{n},scan_{n},train,{tmp_path}/in/images/scan_{n},{tmp_path}/in/labels/scan_{n}.dcm,"
        f"1.2.3.{uid}"
        for n, uid in ((0, 10), (1, 99))
    ]
    (only,) = read_case_files(Dataset.open(tmp_path / "out")).values()
    assert (only.case_id, only.series_uid) == ("scan_0", "1.2.3.10")


@pytest.mark.parametrize("split", SPLITS)
def test_a_split_has_the_cases_of_the_manifest(made, split):
    dataset = Dataset.open(made / "out")
    cases = select_cases(dataset, split=split)
    assert tuple(case.case_id for case in cases) == dataset.info.splits[split].case_ids


@pytest.mark.parametrize("number", range(3))
def test_a_fold_has_the_cases_that_a_training_on_it_leaves_out(made, number):
    dataset, fold = Dataset.open(made / "out"), Fold(number, 3)
    left_out = Provenance.of(dataset, fold=fold).validation_cases()
    assert len(left_out) > 0
    assert tuple(case.case_id for case in select_cases(dataset, fold=fold)) == left_out
    trained = select_cases(dataset, split="train", fold=fold)
    dealt = [c for name in ("train", "validation") for c in dataset.info.splits[name].case_ids]
    assert sorted([*left_out, *(case.case_id for case in trained)]) == sorted(dealt)
    tested = select_cases(dataset, split="test", fold=fold)
    assert tuple(case.case_id for case in tested) == dataset.info.splits["test"].case_ids


def drop_file(folder):
    (folder / FILE).unlink()


def drop_last_row(folder):
    rows = (folder / FILE).read_text().splitlines()
    (folder / FILE).write_text("\n".join(rows[:-1]))


def repeat_row(folder):
    with (folder / FILE).open("a") as file:
        file.write((folder / FILE).read_text().splitlines()[-1])


DAMAGE = {
    drop_file: "has no case_files.csv, .*: the same fcnseg convert command, given again, adds it",
    drop_last_row: "case_files.csv must list all cases of .*, it lacks case_11",
    repeat_row: r"case_files.csv must list each case once: .*\[duplicate_case\] \(case case_11\)",
}


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda damage: damage.__name__)
def test_a_dataset_that_does_not_tell_its_files_says_so(made, tmp_path, damage):
    folder = shutil.copytree(made / "out", tmp_path / "out")
    damage(folder)
    with pytest.raises(DatasetError, match=DAMAGE[damage]):
        select_cases(Dataset.open(folder), split="train")


@pytest.mark.parametrize(
    ("selection", "message"),
    [
        ({}, "--data needs --split train, validation, test, or --fold and --folds, got none"),
        ({"split": "tset"}, "--data needs --split .*, got tset"),
        ({"fold": Fold(0, 9)}, "folds must be at most as many as patients, 5, got 9"),
    ],
)
def test_a_selection_of_nothing_is_refused(made, selection, message):
    with pytest.raises(InputError, match=message):
        select_cases(Dataset.open(made / "out"), **selection)


@pytest.mark.parametrize(
    ("split", "way_out"),
    [
        ("validation", "convert with another --validation_fraction.*or train with --fold 0 --fold"),
        ("test", "convert with another --test_fraction, another --split_seed or other splits in"),
    ],
)
def test_an_empty_split_says_what_to_do(tmp_path, split, way_out):
    cases = write_cases(tmp_path / "in", 4)
    flags = {"cases": str(cases), "label_map": f"{tmp_path}/in/label_map.yaml"}
    convert(tmp_path / "out", **flags, validation_fraction=0.0, test_fraction=0.0)
    with pytest.raises(DatasetError, match=f"the {split} split of .*out has no cases: {way_out}"):
        select_cases(Dataset.open(tmp_path / "out"), split=split)


@pytest.mark.parametrize("what", ["image", "label"])
def test_files_that_were_moved_are_named_with_their_case(made, what):
    dataset = Dataset.open(made / "out")
    cases = select_cases(dataset, split="validation")
    check_files_there(cases, what=what, source=dataset.folder)
    moved = [dataclasses.replace(case, **{what: f"/moved/{case.case_id}"}) for case in cases[1:]]
    with pytest.raises(DatasetError) as caught:
        check_files_there([cases[0], *moved], what=what, source=dataset.folder)
    assert str(caught.value) == (
        f"no such file: /moved/case_07, the {what} of a case and 2 others: move it back, or correct"
        f" its path in {made}/out/case_files.csv (case case_07)"
    )


def test_an_older_dataset_gets_its_files_by_the_same_command(made, tmp_path, caplog):
    caplog.set_level("INFO")
    older = shutil.copytree(made / "out", tmp_path / "older")
    before = contents(older)
    (older / FILE).unlink()
    flags = {"cases": f"{made}/in/cases.csv", "label_map": f"{made}/in/label_map.yaml"}
    with pytest.raises(DatasetError, match="another job: split_seed was 0 and is 1 now"):
        convert(older, **flags, split_seed=1)
    assert not (older / FILE).exists()
    convert(older, **flags)
    assert contents(older) == before
    assert "added case_files.csv" in caplog.text

    # A marker of the first versions does not tell the cases: those of the manifest must be listed.
    (older / FILE).unlink()
    (older / "COMPLETED").write_bytes(b"")
    fewer = made / "in/fewer.csv"
    fewer.write_text("\n".join((made / "in/cases.csv").read_text().splitlines()[:-1]))
    with pytest.raises(DatasetError, match="the list must list all cases of .*lacks case_11"):
        convert(older, **flags | {"cases": str(fewer)})
    assert not (older / FILE).exists()


def test_corrected_paths_are_kept(made, tmp_path):
    """By hand, after files were moved: the same command finds the output complete."""
    copy = shutil.copytree(made / "out", tmp_path / "out")
    corrected = (copy / FILE).read_text().replace(f"{made}/in", "/moved")
    (copy / FILE).write_text(corrected)
    convert(copy, cases=f"{made}/in/cases.csv", label_map=f"{made}/in/label_map.yaml")
    assert (copy / FILE).read_text() == corrected
    assert read_case_files(Dataset.open(copy))["case_00"].image == "/moved/images/case_00.nii.gz"


def test_records_and_scans_may_be_in_a_store(made):
    objects = Objects()
    objects.empty()
    for path in (made / "in").rglob("*.*"):
        objects[f"memory://scans/{path.relative_to(made / 'in')}"] = path.read_bytes()
    source = {"cases": "memory://scans/cases.csv", "label_map": "memory://scans/label_map.yaml"}
    ConvertCt(**source, output="memory://records", spacing_mm=SPACING_MM).run()
    dataset = Dataset.open("memory://records")
    cases = select_cases(dataset, split="test")
    assert [case.image for case in cases] == [
        f"memory://scans/images/case_{n}.nii.gz" for n in (10, 11)
    ]
    check_files_there(cases, what="image", source=dataset.folder)
    del objects[cases[0].image]
    with pytest.raises(DatasetError, match=r"no such file: memory://.*in memory://records/case_f"):
        check_files_there(cases, what="image", source=dataset.folder)
    objects.empty()


def test_records_without_labels_tell_their_images(made, tmp_path):
    job = {"images": f"{made}/in/images", "label_map": f"{made}/in/label_map.yaml"}
    convert(tmp_path / "out", **job, images_only=True)
    cases = read_case_files(Dataset.open(tmp_path / "out"))
    assert {case.label for case in cases.values()} == {None}
    assert len(cases) == 12
