import json
import shutil
from pathlib import Path

import pytest

from fcnseg.conversion.case_lists import (
    cases_of_dataset_json,
    cases_of_folders,
    cases_of_totalsegmentator,
    label_map_of_dataset_json,
    label_map_of_totalsegmentator,
    read_cases_csv,
)
from fcnseg.conversion.cases import Case, check_cases
from fcnseg.errors import InputError
from fcnseg.volumes import LabelMap


def write(root: Path, *names: str, text: str = "") -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


def format_names(cases) -> list[tuple[str, str, str | None]]:
    return [(case.case_id, Path(case.image).name, case.label) for case in cases.cases]


def rejected(cases) -> list[tuple[str, str]]:
    assert {reject.stage for reject in cases.rejects} <= {"list"}
    return [(reject.case_id, reject.code) for reject in cases.rejects]


# -- CSV


def write_csv(folder, text):
    path = folder / "cases.csv"
    path.write_text(text)
    return str(path)


def test_csv_paths_are_relative_to_the_folder_of_the_file(tmp_path):
    path = write_csv(
        tmp_path,
        "label,case_id,image,patient_id,split,series_uid\n"
        "l/b.nii.gz,b,/data/dicom,Müller,test,1.2.3\n"
        "gs://bucket/a.nii,a,images/a.nii,,,\n"
        "file:///d/c%201.nii,c,file:///d/c.nii,,,\n",
    )
    assert read_cases_csv(path).cases == (
        Case("a", f"{tmp_path}/images/a.nii", "gs://bucket/a.nii", "a", None),
        Case("b", "/data/dicom", f"{tmp_path}/l/b.nii.gz", "Müller", "test", "1.2.3"),
        Case("c", "/d/c.nii", "/d/c 1.nii", "c", None),
    )


@pytest.mark.parametrize("text", ["case_id,image\na,b\n", "case_id,image,label\na,b,\n"])
def test_csv_without_labels(tmp_path, text):
    (case,) = read_cases_csv(write_csv(tmp_path, text), labelled=False).cases
    assert case == Case("a", f"{tmp_path}/b", None, "a")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "columns of .*cases.csv must be case_id, image, label.*got none"),
        ("case_id,image\na,b\n", "got case_id, image"),
        ("case_id,image,label,mask\na,b,c,d\n", "got case_id, image, label, mask"),
        ("case_id,image,label\n", "no cases in .*cases.csv"),
        ("case_id,image,label\na,,c\n", "line 2 is not a case: image is empty"),
        ("case_id,image,label\na,b\n", "line 2 is not a case: label is empty"),
        ("case_id,image,label\na,b,c,d\n", "line 2 is not a case: it has not one value for each"),
        ("case_id,image,label,split\na,b,c,training\n", "train, validation, test, got 'training'"),
        ('case_id,image,label\na,b,"c\n', "is not CSV after line 1: unexpected end"),
    ],
)
def test_a_bad_csv_is_refused_by_line(tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        read_cases_csv(write_csv(tmp_path, text))


def test_a_missing_csv_is_named(tmp_path):
    with pytest.raises(InputError, match=f"no such file: {tmp_path}/none.csv"):
        read_cases_csv(f"{tmp_path}/none.csv")


def test_a_csv_that_is_not_text_is_named(tmp_path):
    (tmp_path / "cases.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="cannot read .*cases.csv"):
        read_cases_csv(f"{tmp_path}/cases.csv")


# -- what concerns several cases


def test_cases_of_one_id_are_rejected_and_the_rest_goes_on(tmp_path):
    text = "case_id,image,label\na,1,c\nb,2,e\na,3,f\n"
    found = read_cases_csv(write_csv(tmp_path, text))
    assert [case.case_id for case in found.cases] == ["b"]
    assert rejected(found) == [("a", "duplicate_case")] * 2
    assert {Path(reject.file).name for reject in found.rejects} == {"1", "3"}
    assert "got a 2 times in " in found.rejects[0].reason
    assert len(found) == 3


def test_an_image_of_two_patients_is_rejected_and_the_rest_goes_on():
    cases = [
        Case("a", "1", "", "p"),
        Case("b", "1", "", "q"),
        Case("c", "2", "", "p"),
        Case("d", "2", "", "p"),  # the label of another reader
        Case("e", "3", "", "r", series_uid="1.2"),
        Case("f", "3", "", "s", series_uid="1.3"),
    ]
    found = check_cases(cases, source="a list")
    assert [case.case_id for case in found.cases] == ["c", "d", "e", "f"]
    assert rejected(found) == [(name, "duplicate_case") for name in "ab"]
    assert "must be of one patient, got 1 of p, q in a list" in found.rejects[0].reason


def test_a_patient_in_two_splits_is_rejected_and_the_rest_goes_on():
    cases = [
        Case("a", "1", "", "p", "train"),
        Case("b", "2", "", "p", "test"),
        Case("c", "3", "", "p"),
        Case("d", "4", "", "q", "test"),
    ]
    found = check_cases(cases, source="a list")
    assert [case.case_id for case in found.cases] == ["d"]
    assert rejected(found) == [(name, "patient_in_two_splits") for name in "abc"]
    assert "got p in test and train in a list" in found.rejects[0].reason


def test_a_named_split_holds_for_all_cases_of_the_patient():
    cases = [Case("a", "1", "", "p"), Case("b", "2", "", "p", "test"), Case("c", "3", "", "q")]
    splits = {case.case_id: case.split for case in check_cases(cases, source="a list").cases}
    assert splits == {"a": "test", "b": "test", "c": None}


# -- folders


def test_folders_are_paired_by_name(tmp_path):
    write(
        tmp_path, "images/a_0000.nii.gz", "images/d/0001.dcm", "images/notes.txt", "images/.b.nii"
    )
    write(tmp_path, "labels/a.nii.gz", "labels/d.seg.nrrd")
    found = cases_of_folders(f"{tmp_path}/images", f"{tmp_path}/labels")
    assert found.cases == (
        Case("a", f"{tmp_path}/images/a_0000.nii.gz", f"{tmp_path}/labels/a.nii.gz", "a"),
        Case("d", f"{tmp_path}/images/d", f"{tmp_path}/labels/d.seg.nrrd", "d"),
    )
    assert not found.rejects


def test_what_has_no_partner_is_rejected(tmp_path):
    write(tmp_path, "images/a.nii.gz", "images/b.nii.gz", "labels/b.nii.gz", "labels/c.nii.gz")
    found = cases_of_folders(f"{tmp_path}/images", f"{tmp_path}/labels")
    assert format_names(found) == [("b", "b.nii.gz", f"{tmp_path}/labels/b.nii.gz")]
    assert rejected(found) == [("a", "file_missing"), ("c", "file_missing")]
    assert "no label in " in found.rejects[0].reason
    assert "no image in " in found.rejects[1].reason


def test_two_files_of_one_name_are_two_cases_of_one_id(tmp_path):
    write(tmp_path, "images/a.nii", "images/a.nii.gz", "labels/a.nii.gz")
    found = cases_of_folders(f"{tmp_path}/images", f"{tmp_path}/labels")
    assert rejected(found) == [("a", "duplicate_case")] * 2


def test_images_alone(tmp_path):
    write(tmp_path, "images/a.nii.gz")
    assert format_names(cases_of_folders(f"{tmp_path}/images", None)) == [("a", "a.nii.gz", None)]


def test_a_folder_without_volumes_is_named(tmp_path):
    write(tmp_path, "images/readme.txt", "labels/a.nii.gz")
    with pytest.raises(InputError, match=f"no volume in folder {tmp_path}/images"):
        cases_of_folders(f"{tmp_path}/images", f"{tmp_path}/labels")
    with pytest.raises(InputError, match=f"no such folder: {tmp_path}/nowhere"):
        cases_of_folders(f"{tmp_path}/nowhere", f"{tmp_path}/labels")


# -- dataset.json

LABELS = {"background": 0, "liver": 1, "spleen": 2}
LABEL_MAP = LabelMap({"background": (0,), "liver": (1,), "spleen": (2,)})
MSD = {
    "name": "Liver",
    "tensorImageSize": "3D",
    "modality": {"0": "CT"},
    "labels": {str(number): name for name, number in LABELS.items()},
    "numTraining": 2,
    "training": [
        {"image": f"./imagesTr/liver_{n}.nii.gz", "label": f"./labelsTr/liver_{n}.nii.gz"}
        for n in (0, 1)
    ],
    "test": ["./imagesTs/liver_9.nii.gz"],
}
V2 = {
    "channel_names": {"0": "CT"},
    "labels": LABELS,
    "numTraining": 2,
    "file_ending": ".nii.gz",
}
V2_ELSEWHERE = V2 | {
    "dataset": {
        f"liver_{n}": {"images": [f"ct/liver_{n}.nii.gz"], "label": f"./seg/liver_{n}.nii.gz"}
        for n in (0, 1)
    }
}
# Each: dataset.json, the suffix of its images and its folders of images and labels.
FORMS = {
    "decathlon": (MSD, "", "imagesTr", "labelsTr"),
    "nnU-Net v1": (MSD, "_0000", "imagesTr", "labelsTr"),
    "nnU-Net v2": (V2, "_0000", "imagesTr", "labelsTr"),
    "nnU-Net v2 elsewhere": (V2_ELSEWHERE, "", "ct", "seg"),
}


def write_dataset_json(root: Path, content: dict, suffix="", images="imagesTr", labels="labelsTr"):
    for n in (0, 1):
        write(root, f"{images}/liver_{n}{suffix}.nii.gz", f"{labels}/liver_{n}.nii.gz")
    write(root, f"imagesTs/liver_9{suffix}.nii.gz")
    write(root, "dataset.json", text=json.dumps(content))
    return f"{root}/dataset.json"


@pytest.mark.parametrize("form", FORMS)
def test_each_form_of_dataset_json_lists_its_training_cases(tmp_path, caplog, form):
    content, suffix, images, labels = FORMS[form]
    path = write_dataset_json(tmp_path, content, suffix, images, labels)
    found = cases_of_dataset_json(path, LABEL_MAP)
    assert found.cases == tuple(
        Case(
            f"liver_{n}",
            f"{tmp_path}/{images}/liver_{n}{suffix}.nii.gz",
            f"{tmp_path}/{labels}/liver_{n}.nii.gz",
            f"liver_{n}",
        )
        for n in (0, 1)
    )
    assert not found.rejects
    assert not caplog.text
    unlabelled = cases_of_dataset_json(path, LABEL_MAP, labelled=False)
    extra = ["liver_9"] * (content is MSD)
    assert [case.case_id for case in unlabelled.cases] == ["liver_0", "liver_1", *extra]
    assert {case.label for case in unlabelled.cases} == {None}


def test_an_image_that_is_not_there_stays_in_the_list(tmp_path):
    """Its header cannot be read later on: so it is rejected there as any other missing file."""
    path = write_dataset_json(tmp_path, MSD)
    (tmp_path / "imagesTr/liver_1.nii.gz").unlink()
    found = cases_of_dataset_json(path, LABEL_MAP)
    assert [Path(case.image).name for case in found.cases] == ["liver_0.nii.gz", "liver_1.nii.gz"]


def test_fewer_cases_than_promised_are_told(tmp_path, caplog):
    path = write_dataset_json(tmp_path, V2 | {"numTraining": 3}, "_0000")
    assert len(cases_of_dataset_json(path, LABEL_MAP)) == 2
    assert "declares 3 training cases, but has 2" in caplog.text


def renamed(**labels):
    return V2 | {"labels": labels}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"labels": {}}, "is no dataset.json: channel_names: Field required"),
        ({"modality": {"0": "CT"}}, "is no dataset.json: labels: Field required"),
        (MSD | {"training": ["a.nii.gz"]}, "is no dataset.json: training.0"),
        (MSD | {"modality": {"0": "CT", "1": "PET"}}, "one channel, CT, got CT, PET"),
        (V2 | {"channel_names": {"0": "T1"}}, "one channel, CT, got T1"),
        (renamed(background=0, liver="x"), "labels of .*dataset.json must be names and ids"),
        (renamed(background=0, liver=1, spleen=2, tumour=3), r"it lacks 3 \(tumour\)"),
        (renamed(background=0, all=[1, 2, 7]), r"it lacks 7 \(all\)"),
        (renamed(background=0, liver=1, ignore=2), r"under `ignored` what .* names ignore, .* 2$"),
        (MSD | {"labels": {"0": "background", "1": "liver", "255": "Ignore"}}, "it lacks 255$"),
        (V2 | {"dataset": {"a": {"images": [], "label": "a.nii"}}}, "dataset.a.images"),
        (V2 | {"dataset": {"a": {"images": ["a", "b"], "label": "c"}}}, "dataset.a.images"),
        (renamed(background=0, Spleen=1, Liver=2), r"by liver, got the ids \[1\] and \[2\]"),
    ],
)
def test_a_dataset_json_that_does_not_fit_is_refused(tmp_path, content, message):
    path = write_dataset_json(tmp_path, content, "_0000")
    with pytest.raises(InputError, match=message):
        cases_of_dataset_json(path, LABEL_MAP)


def test_ids_that_are_to_be_background_need_not_be_listed(tmp_path):
    path = write_dataset_json(tmp_path, renamed(background=0, liver=1, tumour=3), "_0000")
    label_map = LabelMap(LABEL_MAP.classes, unlisted="background")
    assert len(cases_of_dataset_json(path, label_map)) == 2


def test_nnunets_ignore_label_is_listed_where_it_is_ignored(tmp_path):
    path = write_dataset_json(tmp_path, renamed(background=0, liver=1, ignore=3), "_0000")
    label_map = LabelMap(LABEL_MAP.classes, ignored=(3,))
    assert len(cases_of_dataset_json(path, label_map)) == 2


# An id that nobody outlined, and how a label map may get it wrong.
@pytest.mark.parametrize(
    ("unlisted", "classes", "ignored"),
    [
        ("background", {"background": (0,), "liver": (1,)}, ()),
        ("background", {"background": (0, 3), "liver": (1,)}, ()),
        ("reject", {"background": (0, 3), "liver": (1,)}, ()),
        ("reject", {"background": (0,), "liver": (1,), "spleen": (3,)}, ()),
        ("reject", {"background": (0,), "liver": (1,), "ignore": (3,)}, ()),
        ("background", {"background": (0,), "liver": (1,)}, (4,)),
    ],
)
@pytest.mark.parametrize("form", ["decathlon", "nnU-Net v2", "regions"])
def test_nnunets_ignore_label_never_becomes_a_class(tmp_path, form, unlisted, classes, ignored):
    labels = {
        "decathlon": {"0": "background", "1": "liver", "3": "ignore"},
        "nnU-Net v2": {"background": 0, "liver": 1, "ignore": 3},
        "regions": {"background": 0, "all": [1, 2], "liver": 1, "ignore": 3},
    }[form]
    path = write_dataset_json(tmp_path, V2 | {"labels": labels}, "_0000")
    label_map = LabelMap(classes, unlisted, ignored)
    with pytest.raises(InputError, match=r"must list under `ignored` .* it lacks 3$"):
        cases_of_dataset_json(path, label_map)
    assert len(cases_of_dataset_json(path, label_map, labelled=False)) == 2


def test_the_keys_of_nnunets_dataset_are_the_case_ids(tmp_path):
    """File names may be the same in each folder."""
    write(tmp_path, *(f"{site}/{name}.nii.gz" for site in "ab" for name in ("ct", "seg")))
    dataset = {
        f"site_{site}": {"images": [f"{site}/ct.nii.gz"], "label": f"{site}/seg.nii.gz"}
        for site in "ab"
    }
    write(tmp_path, "dataset.json", text=json.dumps(V2 | {"dataset": dataset}))
    found = cases_of_dataset_json(f"{tmp_path}/dataset.json", LABEL_MAP)
    assert found.cases == tuple(
        Case(
            f"site_{site}",
            f"{tmp_path}/{site}/ct.nii.gz",
            f"{tmp_path}/{site}/seg.nii.gz",
            f"site_{site}",
        )
        for site in "ab"
    )


def test_a_listed_case_without_label_is_rejected_where_labels_are_wanted(tmp_path):
    write(tmp_path, "a.nii.gz", "b.nii.gz", "seg/a.nii.gz")
    dataset = {
        "a": {"images": ["a.nii.gz"], "label": "seg/a.nii.gz"},
        "b": {"images": ["b.nii.gz"]},
    }
    write(tmp_path, "dataset.json", text=json.dumps(V2 | {"dataset": dataset}))
    found = cases_of_dataset_json(f"{tmp_path}/dataset.json", LABEL_MAP)
    assert [case.case_id for case in found.cases] == ["a"]
    assert rejected(found) == [("b", "file_missing")]
    alone = cases_of_dataset_json(f"{tmp_path}/dataset.json", LABEL_MAP, labelled=False)
    assert [case.case_id for case in alone.cases] == ["a", "b"]


def test_equal_names_in_two_folders_of_the_decathlon_are_named(tmp_path):
    write(tmp_path, *(f"{site}/{name}.nii.gz" for site in "ab" for name in ("ct", "seg")))
    training = [{"image": f"{site}/ct.nii.gz", "label": f"{site}/seg.nii.gz"} for site in "ab"]
    write(tmp_path, "dataset.json", text=json.dumps(MSD | {"training": training}))
    found = cases_of_dataset_json(f"{tmp_path}/dataset.json", LABEL_MAP)
    assert rejected(found) == [("ct", "duplicate_case")] * 2
    assert {reject.file for reject in found.rejects} == {f"{tmp_path}/{s}/ct.nii.gz" for s in "ab"}


def test_regions_of_several_ids_may_be_classes_of_their_own(tmp_path):
    path = write_dataset_json(tmp_path, renamed(background=0, liver=[1, 2], tumour=2), "_0000")
    label_map = LabelMap({"background": (0,), "liver": (1,), "lesion": (2,)})
    assert len(cases_of_dataset_json(path, label_map)) == 2


# -- the label map of a dataset.json

BRATS = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": [3]}  # nnU-Net's docs
# Each: labels and regions_class_order of the file; classes and ignored ids of the map.
NAMED = {
    "decathlon": ({"0": "background", "1": "liver", "2": "spleen"}, None, LABEL_MAP.classes, ()),
    "nnU-Net v2": (LABELS, None, LABEL_MAP.classes, ()),
    "not in order of ids": (
        {"background": 0, "spleen": 10, "liver": 2},
        None,
        {"background": (0,), "liver": (2,), "spleen": (10,)},
        (),
    ),
    "keys sorted as text": (
        {"0": "Background", "10": "spleen", "2": "liver"},
        None,
        {"background": (0,), "liver": (2,), "spleen": (10,)},
        (),
    ),
    "one name of two ids": (
        {"0": "background", "1": "kidney", "2": "kidney", "3": "liver"},
        None,
        {"background": (0,), "kidney": (1, 2), "liver": (3,)},
        (),
    ),
    "no background": ({"1": "liver"}, None, {"background": (0,), "liver": (1,)}, ()),
    "ids as text": (
        {"background": "0", "liver": "1"},
        None,
        {"background": (0,), "liver": (1,)},
        (),
    ),
    "ignore": (
        LABELS | {"ignore": 3},
        None,
        {"background": (0,), "liver": (1,), "spleen": (2,)},
        (3,),
    ),
    "ignore of the decathlon": (
        {"0": "background", "1": "liver", "255": "Ignore"},
        None,
        {"background": (0,), "liver": (1,)},
        (255,),
    ),
    "regions apart": (
        {"background": 0, "kidney": [1, 2], "liver": 3},
        None,
        {"background": (0,), "kidney": (1, 2), "liver": (3,)},
        (),
    ),
    "regions in one another": (
        BRATS | {"ignore": 4},
        [1, 2, 3],
        {"background": (0,), "whole": (1,), "core": (2,), "enhancing": (3,)},
        (4,),
    ),
    "a part of a region": (
        {"background": 0, "liver": [1, 2], "tumour": 2},
        [1, 2],
        {"background": (0,), "liver": (1,), "tumour": (2,)},
        (),
    ),
    "two parts and a rest of two ids": (
        {"background": 0, "all": [1, 2, 3, 4], "cyst": 4, "tumour": 1},
        [3, 4, 1],
        {"background": (0,), "tumour": (1,), "all": (2, 3), "cyst": (4,)},
        (),
    ),
}


@pytest.mark.parametrize("name", NAMED)
def test_the_names_of_a_dataset_json_make_a_label_map(tmp_path, caplog, name):
    labels, order, classes, ignored = NAMED[name]
    content = V2 | {"labels": labels} | ({"regions_class_order": order} if order else {})
    path = write_dataset_json(tmp_path, content, "_0000")
    label_map = label_map_of_dataset_json(path)
    assert list(label_map.classes.items()) == list(classes.items())  # in this order
    assert (label_map.ignored, label_map.unlisted) == (ignored, "reject")
    assert ("overlap, and become classes" in caplog.text) == (order is not None)
    assert len(cases_of_dataset_json(path, label_map)) == 2  # it agrees with the file


@pytest.mark.parametrize(
    ("labels", "order", "message"),
    [
        ({"background": 0, "a": [1, 2], "b": [2, 3]}, [1, 2], "b must be a part of a, which"),
        ({"background": 0, "a": 1, "b": [1, 2]}, [1, 2], "b must be a part of a, which comes"),
        ({"background": 0, "a": 1, "b": 1}, None, "b must be a part of a"),
        ({"background": 0, "a": [1, 2], "b": 1, "c": 2}, [1, 1, 2], "a must have an id of its own"),
        ({"background": 0, "a": [], "b": 1}, None, "a must have an id of its own"),
        (BRATS, None, r"an id for each of whole, core, enhancing, got \[\]"),
        (BRATS, [1, 2], r"an id for each of whole, core, enhancing, got \[1, 2\]"),
        (BRATS, [1, 3, 2], r"an id of core that no later region has, \[2\], got 3"),
        ({"0": "air", "1": "liver"}, None, "id 0 must be background in .*dataset.json, got air"),
        ({"background": 0}, None, "classes must be 2 to 65535, got 1"),
        ({}, None, "classes must be 2 to 65535, got 1"),
        ({"background": 0, "liver": -1}, None, "ids must not be negative, got -1"),
    ],
)
def test_names_that_are_not_one_class_a_voxel_are_refused(tmp_path, labels, order, message):
    content = V2 | {"labels": labels, "regions_class_order": order}
    path = write_dataset_json(tmp_path, content, "_0000")
    with pytest.raises(InputError, match=message) as caught:
        label_map_of_dataset_json(path)
    assert path in str(caught.value)
    assert str(caught.value).endswith("give --label_map with one class for each id")


@pytest.mark.parametrize("number", [1.5, True, None, [[1]], "one"])
def test_an_id_that_is_no_integer_is_refused(tmp_path, number):
    path = write_dataset_json(tmp_path, renamed(background=0, liver=number), "_0000")
    with pytest.raises(InputError, match=r"labels of .*dataset\.json must be names and ids"):
        label_map_of_dataset_json(path)


# -- TotalSegmentator


def write_subjects(root: Path) -> str:
    for subject in ("s0000", "s0001", "s0002"):
        write(root, f"{subject}/ct.nii.gz", f"{subject}/segmentations/liver.nii.gz")
    write(root, ".cache/ct.nii.gz", "readme.txt")
    return str(root)


def test_a_folder_a_subject(tmp_path):
    root = write_subjects(tmp_path / "data")
    found = cases_of_totalsegmentator(root)
    assert found.cases == tuple(
        Case(name, f"{root}/{name}/ct.nii.gz", f"{root}/{name}/segmentations", name)
        for name in ("s0000", "s0001", "s0002")
    )
    alone = cases_of_totalsegmentator(root, labelled=False)
    assert [case.label for case in alone.cases] == [None] * 3


def test_suffixes_in_capitals_are_the_same_suffixes(tmp_path):
    write(tmp_path, "ts/s1/CT.NII.GZ", "ts/s1/segmentations/liver.NII.GZ", "ts/s2/ct.nii.gz")
    found = cases_of_totalsegmentator(f"{tmp_path}/ts")
    assert [Path(case.image).name for case in found.cases] == ["CT.NII.GZ", "ct.nii.gz"]
    write(tmp_path, "ts/s2/ct.NII.gz")
    found = cases_of_totalsegmentator(f"{tmp_path}/ts")
    assert rejected(found) == [("s2", "duplicate_case")] * 2

    write(tmp_path, "images/a_0000.NII.GZ", "images/b.Nii", "images/c.MHA", "images/d.Nrrd")
    write(tmp_path, "labels/a.nii.gz", "labels/b.NII.GZ", "labels/c.SEG.NRRD", "labels/d.mha")
    found = cases_of_folders(f"{tmp_path}/images", f"{tmp_path}/labels")
    assert [case.case_id for case in found.cases] == ["a", "b", "c", "d"]
    assert not found.rejects
    write(tmp_path, "images/a.nii.gz")
    found = cases_of_folders(f"{tmp_path}/images", f"{tmp_path}/labels")
    assert rejected(found) == [("a", "duplicate_case")] * 2
    assert {Path(reject.file).name for reject in found.rejects} == {"a.nii.gz", "a_0000.NII.GZ"}


def test_the_splits_of_its_meta_csv_hold(tmp_path):
    root = write_subjects(tmp_path)
    write(tmp_path, "meta.csv", text="\ufeffimage_id;age;split\ns0000;50;train\ns0001;60;val\n")
    splits = [case.split for case in cases_of_totalsegmentator(root).cases]
    assert splits == ["train", "validation", None]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image_id;split\ns0000;dev\n", "must be train, val or test, got 'dev'"),
        ("image_id,split\ns0000,val\n", "must have a column image_id, got image_id,split"),
        ("", "must have a column image_id, got none"),
    ],
)
def test_a_meta_csv_of_another_form_is_refused(tmp_path, text, message):
    root = write_subjects(tmp_path)
    write(tmp_path, "meta.csv", text=text)
    with pytest.raises(InputError, match=message):
        cases_of_totalsegmentator(root)


def write_masks(root: Path, **masks: str) -> str:
    """Writes subjects, each with the masks named."""
    for subject, names in masks.items():
        write(root, f"{subject}/ct.nii.gz")
        write(root, *(f"{subject}/segmentations/{name}" for name in names.split()))
    return str(root)


def test_all_masks_make_a_label_map_in_a_fixed_order(tmp_path, caplog):
    root = write_masks(
        tmp_path,
        s2="spleen.nii.gz Liver.NII.GZ",
        s1="Liver.nii.gz spleen.nii.gz notes.txt .hidden.nii.gz background.nii.gz scout.dcm",
    )
    write(tmp_path, "s1/segmentations/old/lung.nii.gz", "s1/lung.nii.gz", ".cache/x/a.nii.gz")
    label_map = label_map_of_totalsegmentator(root)
    assert list(label_map.classes.items()) == [
        ("background", (0,)),
        ("Liver", ("Liver",)),
        ("spleen", ("spleen",)),
    ]
    assert not caplog.text


def test_chosen_masks_are_the_classes_in_the_order_chosen(tmp_path):
    root = write_masks(tmp_path, s1="a.nii.gz b.nii.gz c.nii.gz")
    label_map = label_map_of_totalsegmentator(root, ["c", "a"])
    assert label_map.masks == (("c", 1), ("a", 2))


def test_a_mask_that_some_subjects_lack_is_named(tmp_path, caplog):
    root = write_masks(tmp_path, s1="a.nii.gz b.nii.gz", s2="a.nii.gz", s3="a.nii.gz")
    assert label_map_of_totalsegmentator(root).class_names == ("background", "a", "b")
    assert "each of the 3 subjects" in caplog.text
    assert "which is not so for b in 1: choose the others with --classes" in caplog.text
    caplog.clear()
    label_map_of_totalsegmentator(root, ["a"])
    assert not caplog.text


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (["livr"], "classes must be masks of .*, got livr; did you mean liver"),
        (["kidney"], "got kidney; did you mean kidney_left"),
        (["LIVER"], "got LIVER; did you mean liver"),
        (["heart"], "got heart; it has kidney_left, liver"),
        (["liver", "background"], "got background; it has kidney_left, liver"),
        (["liver", "liver"], "classes must be different masks, got liver twice"),
    ],
)
def test_classes_that_are_no_masks_are_refused(tmp_path, classes, message):
    root = write_masks(tmp_path, s1="liver.nii.gz kidney_left.nii.gz")
    with pytest.raises(InputError, match=message):
        label_map_of_totalsegmentator(root, classes)


def test_a_dataset_without_masks_has_no_label_map(tmp_path):
    root = write_masks(tmp_path, s1="")
    with pytest.raises(
        InputError, match=r"no SUBJECT/segmentations/NAME\.nii\.gz .*: give --label_map"
    ):
        label_map_of_totalsegmentator(root)


# -- in an object store


def test_each_layout_is_listed_in_an_object_store_too(tmp_path, objects):
    write_subjects(tmp_path / "ts")
    write_dataset_json(tmp_path / "v2", V2, "_0000")
    lists = {}
    objects.update(
        {
            f"memory://scans/{path.relative_to(tmp_path)}": path.read_bytes()
            for path in tmp_path.rglob("*")
            if path.is_file()
        }
    )
    for root in (str(tmp_path), "memory://scans"):
        found = [
            cases_of_totalsegmentator(f"{root}/ts"),
            cases_of_dataset_json(f"{root}/v2/dataset.json", LABEL_MAP),
            cases_of_folders(f"{root}/v2/imagesTr", f"{root}/v2/labelsTr"),
            label_map_of_totalsegmentator(f"{root}/ts"),
            label_map_of_dataset_json(f"{root}/v2/dataset.json"),
        ]
        lists[root] = repr(found).replace(root, "ROOT")
        shutil.rmtree(tmp_path, ignore_errors=True)  # nothing local is left
    assert lists[str(tmp_path)] == lists["memory://scans"]
