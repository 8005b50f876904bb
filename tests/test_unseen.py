"""Cases that a run has not seen: predicted and scored from the files that they came from."""

from __future__ import annotations

import csv
import dataclasses
import json
import shutil
from pathlib import Path

import dicom_series
import nibabel as nib
import pytest
from layouts import LAYOUTS
from small_cases import write_cases, write_split_cases
from small_models import CROP, write_run
from test_dataset_cases import SPACING_MM, convert, make_scans

from fcnseg.cli.command import parse
from fcnseg.cli.evaluate import EvaluateCommand
from fcnseg.cli.image_source import ImageSource
from fcnseg.cli.predict import PredictCommand
from fcnseg.cli.unseen import warn_of_seen_cases
from fcnseg.errors import FcnsegError, InputError
from fcnseg.evaluation import Evaluation
from fcnseg.records import Dataset, Fold
from fcnseg.runs import Run, read_run
from fcnseg.training.provenance import Provenance
from pipelines.convert_ct import ConvertCt

FOLDS = 3


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Twelve cases of six patients in all three splits, their records, and runs of three folds."""
    folder = tmp_path_factory.mktemp("unseen")
    cases = write_split_cases(folder / "in")
    convert(folder / "out", cases=str(cases), label_map=str(folder / "in/label_map.yaml"))
    dataset = Dataset.open(folder / "out")
    make_run(folder / "run", dataset)
    for number in range(FOLDS):
        make_run(folder / f"fold_{number}", dataset, Fold(number, FOLDS), seed=number)
    return folder


def make_run(folder: Path, dataset: Dataset, fold: Fold | None = None, *, seed=0) -> Path:
    """A run that says that it was trained on a dataset."""
    write_run(folder, seed=seed, spacing_mm=SPACING_MM)
    manifest = dataclasses.replace(
        read_run(folder),
        data=dataset.folder,
        data_digest=dataset.digest,
        fold=None if fold is None else fold.number,
        folds=None if fold is None else fold.count,
        validation_cases=Provenance.of(dataset, fold=fold).validation_cases(),
    )
    manifest.write(folder)
    return folder


def predict(folder, *runs, output, **flags):
    names = runs or ("run",)
    PredictCommand(tuple(folder / name for name in names), output=output, **flags).run()


def masks_in(folder: Path) -> list[str]:
    return sorted(path.name.removesuffix(".nii.gz") for path in folder.glob("*.nii.gz"))


@pytest.fixture(scope="module")
def predicted(made):
    """The same, with masks of the test cases and of one other, and of each fold in its run."""
    predict(made, output=made / "masks", data=made / "out", split="test")
    predict(made, output=made / "masks", images=made / "in/images/case_00.nii.gz", resume=True)
    for number in range(FOLDS):
        of_fold = {"data": made / "out", "fold": number, "folds": FOLDS}
        predict(made, f"fold_{number}", output=made / f"fold_{number}/masks", **of_fold)
    return made


# -- prediction


def test_the_cases_of_a_split_are_predicted_on_their_grids(predicted):
    assert masks_in(predicted / "masks") == ["case_00", "case_10", "case_11"]
    for case_id in ("case_10", "case_11"):
        image = nib.load(predicted / f"in/images/{case_id}.nii.gz")
        assert nib.load(predicted / f"masks/{case_id}.nii.gz").shape == image.shape


@pytest.mark.parametrize("number", range(FOLDS))
def test_the_cases_of_a_fold_are_those_that_its_run_left_out(predicted, number):
    run = predicted / f"fold_{number}"
    assert tuple(masks_in(run / "masks")) == read_run(run).validation_cases


def test_runs_that_have_seen_cases_are_named(made, caplog):
    dataset = Dataset.open(made / "out")
    runs = [Run.open(made / name) for name in ("run", "fold_0", "fold_1")]
    of_fold_1 = runs[2].manifest.validation_cases
    warn_of_seen_cases(runs[2:], dataset, of_fold_1)
    warn_of_seen_cases(runs, dataset, dataset.info.splits["test"].case_ids)
    other = dataclasses.replace(runs[1].manifest, data_digest="")
    warn_of_seen_cases([dataclasses.replace(runs[1], manifest=other)], dataset, of_fold_1)
    assert caplog.text == ""
    warn_of_seen_cases(runs[1:], dataset, of_fold_1)
    count = len(of_fold_1)
    assert f"fold_0 has trained on {count} of the {count} cases: case_" in caplog.text
    assert len(caplog.records) == 1


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_images_of_each_layout_are_those_of_the_conversion(tmp_path, layout):
    flags = LAYOUTS[layout](tmp_path / "in", make_scans(2), ("liver", "spleen"))
    convert = ConvertCt(output="", **flags)
    expected = convert.list_cases(convert.preprocessing().label_map)
    given = {name: path for name, path in flags.items() if name not in ("labels", "label_map")}
    source = ImageSource(**given)
    assert source.open_dataset() is None
    found = source.list_cases(None)
    assert [(case.case_id, case.image, case.series_uid) for case in found.cases] == [
        (case.case_id, case.image, case.series_uid) for case in expected.cases
    ]
    assert len(found.cases) == 2


def test_the_series_that_the_list_names_is_predicted(made, tmp_path):
    """Not the one with the most slices; on resume, another series is another image."""
    folder = tmp_path / "in/study"
    scans = make_scans(2)
    for number, (name, count) in enumerate((("a", 12), ("b", 9))):
        hu = scans[f"scan_{number}"][0].array[:count]
        slices = dicom_series.make_slices(hu, spacing=(10, 7.5, 5), series_uid=f"1.2.3.{number}")
        dicom_series.write(slices, folder / name)
    row = "case_id,image,series_uid\nstudy,study,1.2.3."
    (tmp_path / "in/cases.csv").write_text(f"{row}1")
    job = {"cases": tmp_path / "in/cases.csv", "output": tmp_path / "masks", "accept": CROP}
    predict(made, **job, dicom_seg=True)
    assert nib.load(tmp_path / "masks/study.nii.gz").shape[2] == 9
    predict(made, **job, dicom_seg=True, resume=True)
    (tmp_path / "in/cases.csv").write_text(f"{row}0")
    with pytest.raises(InputError, match=r"series_uid was 1\.2\.3\.1, got 1\.2\.3\.0"):
        predict(made, **job, dicom_seg=True, resume=True)


def test_a_wrong_entry_of_a_list_is_a_failure_and_the_others_are_predicted(made, tmp_path):
    images = made / "in/images"
    rows = [f"one,{images}/case_00.nii.gz"] * 2 + [f"two,{images}/case_01.nii.gz"]
    (tmp_path / "cases.csv").write_text("\n".join(["case_id,image", *rows]))
    message = r"2 of 3 volumes failed: one: case_id must be unique.*\[duplicate_case\]"
    with pytest.raises(InputError, match=message):
        predict(made, cases=tmp_path / "cases.csv", output=tmp_path / "masks")
    assert masks_in(tmp_path / "masks") == ["two"]


@pytest.mark.parametrize("case_id", ["../one", "a/b", ".one", "a\\b"])
def test_a_case_id_that_leads_elsewhere_is_refused(made, tmp_path, case_id):
    text = f"case_id,image\n{case_id},{made}/in/images/case_00.nii.gz\n"
    (tmp_path / "cases.csv").write_text(text)
    with pytest.raises(InputError, match="case_id must be a file name, by which masks are named"):
        predict(made, cases=tmp_path / "cases.csv", output=tmp_path / "out/masks")
    assert [path.name for path in tmp_path.iterdir()] == ["cases.csv"]


MISTAKES = {
    "": "images come from one of --images, --data, --cases, --dataset, --totalsegm.*, got none",
    "--images IN --data OUT": "images come from one of .*, got --images and --data",
    "--images IN --split test": "--split goes with --data, got --images",
    "--images IN --fold 0": "--fold goes with --data, got --images",
    "--data OUT": "--data needs --split train, validation, test, or --fold and --folds, got none",
    "--data OUT --fold 0": "fold and folds belong together",
    "--data OUT --fold 3 --folds 3": "fold must be 0 to 2 for 3 folds, got 3",
    "--data IN --split test": "in is not a finished dataset",
    "--data OUT --split test --output TAKEN": "case_10.nii.gz is there already: give --overwrite",
}


@pytest.mark.parametrize("flags", MISTAKES)
def test_mistakes_of_prediction_are_one_line(made, tmp_path, flags):
    for name in ("case_10.nii.gz", "case_10.json"):
        (tmp_path / name).touch()
    places = {"IN": f"{made}/in", "OUT": f"{made}/out", "TAKEN": f"{tmp_path}"}
    argv = ["--run_dir", f"{made}/run", *(places.get(word, word) for word in flags.split())]
    argv += [] if "--output" in argv else ["--output", f"{tmp_path}/new"]
    with pytest.raises(FcnsegError, match=MISTAKES[flags]) as caught:
        parse(PredictCommand, argv).run()
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "new").exists()


# -- masks of several predictions in one folder


def test_a_folder_of_masks_may_grow_and_its_table_has_all(predicted):
    rows = csv.DictReader((predicted / "masks/volumes.csv").read_text().splitlines())
    assert [row["case_id"] for row in rows] == ["case_00", "case_10", "case_11"]


@pytest.mark.parametrize("how", ["resume", "overwrite"])
@pytest.mark.parametrize(
    ("run", "flags", "finding"),
    [
        ("fold_1", {}, "networks_sha256 was"),
        ("run", {"flips": ("x",)}, r"flips was \[\], got \['x'\]"),
    ],
)
def test_masks_of_other_cases_and_another_job_are_not_mixed_with(
    predicted, tmp_path, how, run, flags, finding
):
    masks = shutil.copytree(predicted / "masks", tmp_path / "masks")
    before = {path.name: path.read_bytes() for path in masks.iterdir()}
    message = f"output holds masks of another job: .*case_00.nii.gz: {finding}.*name another folder"
    job = {"output": masks, "data": predicted / "out", "split": "test", how: True, **flags}
    if how == "resume":
        (masks / "case_10.nii.gz").unlink()
        (masks / "case_11.nii.gz").unlink()
    with pytest.raises(InputError, match=message):
        predict(predicted, run, **job)
    left = {path.name: path.read_bytes() for path in masks.iterdir()}
    assert left == {name: before[name] for name in left}


# -- evaluation


def evaluate(output: Path, **flags) -> Evaluation:
    EvaluateCommand(output=output, workers=1, **flags).run()
    return Evaluation.read(output)


def test_just_the_cases_of_a_split_are_scored_against_their_files(predicted, tmp_path):
    found = evaluate(
        tmp_path / "split", masks=predicted / "masks", data=predicted / "out", split="test"
    )
    assert list(found.cases) == ["case_10", "case_11"]  # the mask of case_00 is left out
    folders = {"labels": predicted / "in/labels", "images": predicted / "in/images"}
    label_map = predicted / "in/label_map.yaml"
    by_folders = evaluate(
        tmp_path / "all", masks=predicted / "masks", label_map=label_map, **folders
    )
    assert {name: by_folders.cases[name] for name in found.cases} == found.cases
    assert found.organs == by_folders.organs == ("liver", "spleen")
    assert (found.selection, by_folders.selection) == ("test split", "")
    assert "cases, test split" in (tmp_path / "split/evaluation.html").read_text()


def test_a_case_without_a_mask_is_a_reject(predicted, tmp_path):
    flags = {"data": predicted / "out", "fold": 0, "folds": FOLDS}
    masks = shutil.copytree(predicted / "fold_0/masks", tmp_path / "masks")
    lost, *others = read_run(predicted / "fold_0").validation_cases
    (masks / f"{lost}.nii.gz").unlink()
    count = len(others) + 1
    message = rf"rejected 1 of {count} cases; first: no mask in .* of case {lost} \[file_missing\]"
    with pytest.raises(InputError, match=message):
        evaluate(tmp_path / "out", masks=masks, **flags)
    assert list(Evaluation.read(tmp_path / "out").cases) == others


def test_a_cross_validation_is_one_evaluation_of_all_patients(predicted, tmp_path):
    runs = tuple(predicted / f"fold_{number}" for number in (1, 2, 0))
    found = evaluate(tmp_path / "pooled", run_dirs=runs)
    assert list(found.cases) == [f"case_{number:02d}" for number in range(10)]  # none of the test
    assert found.selection == "cross-validation of 3 folds"
    for number in range(FOLDS):
        of_fold = {"data": predicted / "out", "fold": number, "folds": FOLDS}
        masks = predicted / f"fold_{number}/masks"
        alone = evaluate(tmp_path / str(number), masks=masks, **of_fold)
        assert {name: found.cases[name] for name in alone.cases} == alone.cases
        assert alone.selection == f"validation split of fold {number} of 3"
    rows = list(csv.DictReader((tmp_path / "pooled/evaluation.csv").read_text().splitlines()))
    assert len(rows) == 10 * 2


def test_records_of_a_cross_validation_may_have_been_moved(predicted, tmp_path):
    moved = shutil.copytree(predicted / "out", tmp_path / "moved")
    runs = []
    for number in range(FOLDS):
        run = shutil.copytree(predicted / f"fold_{number}", tmp_path / f"fold_{number}")
        dataclasses.replace(read_run(run), data="/gone/records").write(run)
        runs.append(run)
    with pytest.raises(InputError, match="data must name the records of .*/fold_0 now: no such"):
        evaluate(tmp_path / "out", run_dirs=tuple(runs))
    assert len(evaluate(tmp_path / "out", run_dirs=tuple(runs), data=moved).cases) == 10


def other_records(run: Path) -> None:
    dataclasses.replace(read_run(run), data="others", data_digest="0" * 64).write(run)


def other_network(run: Path) -> None:
    shutil.copy(run.parent / "fold_0/best.keras", run / "best.keras")


def no_provenance(run: Path) -> None:
    for path in (run / "masks").glob("*.json"):
        content = json.loads(path.read_text())
        del content["made_with"]
        path.write_text(json.dumps(content))


def no_masks(run: Path) -> None:
    shutil.rmtree(run / "masks")


FOLDS_REFUSED = {
    "two the same": (
        (0, 1, 1),
        None,
        r"folds must not overlap, got .*fold_1 \(fold 1 of 3\) and .*fold_1 \(fold 1 of 3\), which"
        " both leave out case case_",
    ),
    "one missing": (
        (0, 1),
        None,
        r"must be all folds of a cross-validation, got .*fold_0 \(fold 0 of 3\), .*fold_1 \(fold 1"
        r" of 3\), of which none leaves out case_",
    ),
    "other records": (
        (0, 1, 2),
        other_records,
        "run_dirs must be of the same records, got .*fold_0 of .*out and .*fold_1 of others, which",
    ),
    "another network": (
        (0, 1, 2),
        other_network,
        "masks must be by the network of .*fold_1, which has not seen their cases, got another:"
        " predict with --run_dir .*fold_1 --data .* --fold 1 --folds 3",
    ),
    "no provenance": ((0, 1, 2), no_provenance, "masks must be by the network of .*fold_1"),
    "no masks": ((0, 1, 2), no_masks, "no such folder: .*fold_1/masks"),
}


@pytest.mark.parametrize("name", FOLDS_REFUSED)
def test_runs_that_are_no_cross_validation_are_refused(predicted, tmp_path, name):
    numbers, spoil, message = FOLDS_REFUSED[name]
    for number in range(FOLDS):
        shutil.copytree(predicted / f"fold_{number}", tmp_path / f"fold_{number}")
    if spoil is not None:
        spoil(tmp_path / "fold_1")
    runs = tuple(tmp_path / f"fold_{number}" for number in numbers)
    with pytest.raises(InputError, match=message):
        evaluate(tmp_path / "out", run_dirs=runs)
    assert not (tmp_path / "out").exists()


EVALUATION_MISTAKES = {
    "": "--masks must be given, or --data or --run_dirs instead",
    "--masks M --labels L": "--label_map must be given, or --data or --run_dirs instead",
    "--masks M --label_map A --labels L --split test": "--split goes with --data, which is not",
    "--data OUT --split test": "--masks must be given beside --data",
    "--masks M --data OUT --split test --labels L": "--labels does not go with --data",
    "--masks M --run_dirs F0 F1 F2": "--masks does not go with --run_dirs",
    "--split test --run_dirs F0 F1 F2": "--split does not go with --run_dirs",
    "--masks M --data OUT": "--data needs --split",
    "--run_dirs F0 F1 F2 --data IN": "in is not a finished dataset",
    "--run_dirs RUN": r"must be all folds .*, got .*run \(no fold\), of which none leaves out",
    "--run_dirs M": "masks is not a finished run",
}


@pytest.mark.parametrize("flags", EVALUATION_MISTAKES)
def test_mistakes_of_evaluation_are_one_line(predicted, tmp_path, flags):
    places = {f"F{number}": f"{predicted}/fold_{number}" for number in range(FOLDS)}
    places |= {"M": "masks", "L": "in/labels", "A": "in/label_map.yaml", "OUT": "out", "IN": "in"}
    places |= {"RUN": "run"}
    words = [str(predicted / places[word]) if word in places else word for word in flags.split()]
    with pytest.raises(FcnsegError, match=EVALUATION_MISTAKES[flags]) as caught:
        parse(EvaluateCommand, [*words, "--output", f"{tmp_path}/new"]).run()
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "new").exists()


def test_other_records_than_those_of_the_runs_are_refused(predicted, tmp_path):
    cases = write_cases(tmp_path / "in", 4)
    convert(tmp_path / "other", cases=str(cases), label_map=f"{tmp_path}/in/label_map.yaml")
    runs = tuple(predicted / f"fold_{number}" for number in range(FOLDS))
    message = "must be of the records in .*other, but .*fold_0 was trained on other ones"
    with pytest.raises(InputError, match=message):
        evaluate(tmp_path / "out", run_dirs=runs, data=tmp_path / "other")


def test_records_without_labels_cannot_be_scored(made, tmp_path):
    job = {"images": f"{made}/in/images", "label_map": f"{made}/in/label_map.yaml"}
    convert(tmp_path / "out", **job, images_only=True)
    with pytest.raises(InputError, match="needs labels, and the cases of .*out have none"):
        evaluate(
            tmp_path / "scores", masks=made / "in/labels", data=tmp_path / "out", split="train"
        )
