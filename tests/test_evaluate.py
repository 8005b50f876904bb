import gzip
import json
import re
import struct
import subprocess
import sys
from xml.etree import ElementTree

import numpy as np
import pytest

from fcnseg.cli.command import USER_ERROR_STATUS, parse
from fcnseg.cli.evaluate import EvaluateCommand
from fcnseg.errors import InputError
from fcnseg.evaluation import Evaluation, OrganScores
from fcnseg.testing.phantom import LABEL_MAP, ORGANS, make_phantom
from fcnseg.volumes import LabelMap, Volume, read_label, write_mask, write_volume

LABEL_MAP_TEXT = "classes: " + json.dumps(LABEL_MAP.to_mapping()["classes"])


@pytest.fixture
def data(tmp_path):
    """Two phantoms with masks: the first right, the second without a pancreas and moved in x."""
    for folder in ("images", "labels", "masks"):
        (tmp_path / folder).mkdir()
    (tmp_path / "map.yaml").write_text(LABEL_MAP_TEXT)
    for seed, orientation in enumerate(("RAS", "LPS")):
        image, label = make_phantom(seed, spacing=(10.0, 6.0, 6.0), orientation=orientation)
        mask = label.array.copy()
        if seed == 1:
            mask[mask == LABEL_MAP.class_names.index("pancreas")] = 0
            mask = np.roll(mask, 1, axis=2)
        write_volume(image, tmp_path / f"images/case_{seed}.nii.gz")
        write_volume(label, tmp_path / f"labels/case_{seed}.nii.gz")
        write_mask(mask, tmp_path / f"masks/case_{seed}.nii.gz", like=label)
    return tmp_path


def command(data, **changes):
    return EvaluateCommand(
        **{
            "masks": data / "masks",
            "labels": data / "labels",
            "label_map": data / "map.yaml",
            "output": data / "out",
            "workers": 1,
            **changes,
        }
    )


def test_the_noise_of_rounding_changes_no_score(data):
    """In labels and in masks: both are read as in the conversion."""
    command(data, output=data / "exact").run()
    for path in (data / "labels/case_0.nii.gz", data / "masks/case_1.nii.gz"):
        volume = read_label(path)
        write_volume(volume.with_array(np.float32(volume.array * 0.99999994)), path)
    command(data, output=data / "rounded").run()
    texts = [(data / of / "evaluation.json").read_text() for of in ("exact", "rounded")]
    assert texts[0] == texts[1]


def test_the_command_scores_and_draws(data, capsys, caplog):
    with caplog.at_level("INFO"):
        command(data, images=data / "images").run()
    assert caplog.messages[-1] == f"wrote {data / 'out/evaluation.html'}"
    result = json.loads((data / "out/evaluation.json").read_text())
    assert list(result["cases"]) == ["case_0", "case_1"]
    assert {scores["dice"] for scores in result["cases"]["case_0"].values()} == {1.0}
    moved = {organ: scores["dice"] for organ, scores in result["cases"]["case_1"].items()}
    assert moved["pancreas"] == 0
    assert 1 > moved["liver"] > 0.9 > moved["artery"] > 0  # a voxel is more of a vessel
    assert result["classes"]["pancreas"]["dice"] == 0.5
    # Moved by one voxel of 6 mm: no surface element is farther away, and none of the pancreas left.
    assert result["cases"]["case_1"]["liver"]["hausdorff_distance_mm"] == pytest.approx(6.0)
    assert result["cases"]["case_1"]["pancreas"]["hausdorff_distance_mm"] is None
    assert result["tolerances_mm"] == dict.fromkeys(ORGANS, 2.0)
    assert result["mean_dice"] == pytest.approx(
        np.mean([scores["dice"] for scores in result["classes"].values()])
    )
    table, progress = capsys.readouterr()
    assert not progress  # no bar in the log of a job
    for word in ("Dice", "HD95", "case_1", *ORGANS, "mean", f"{result['mean_dice']:.3f}"):
        assert word in table
    assert (data / "out/evaluation.csv").read_text().count("\n") == 1 + 2 * len(ORGANS)
    for case in ("case_0", "case_1"):
        assert (data / f"out/pictures/{case}.png").read_bytes().startswith(b"\x89PNG")
    assert not list((data / "out").rglob("*.tmp"))


def test_the_page_needs_no_other_file_and_has_the_worst_case_first(data):
    command(data, images=data / "images", workers=1).run()
    page = (data / "out/evaluation.html").read_text()
    tree = ElementTree.fromstring(page[page.index("<main>") : page.index("</main>") + 7])
    headings = [heading.text or "" for heading in tree.iter("h2")]
    cases = [heading.split(":")[0] for heading in headings if heading.startswith("case_")]
    assert cases == ["case_1", "case_0"]
    pictures = [image.get("src") for image in tree.iter("img")]
    assert len(pictures) == 2
    assert all(source.startswith("data:image/png;base64,") for source in pictures)
    anchors = {part.get("id") for part in tree.iter("section")}
    links = {link.get("href") for link in tree.iter("a")}
    assert links == {"#case-case_0", "#case-case_1"}
    assert {link[1:] for link in links} <= anchors
    assert not re.search(r'(?:src|href)="(?!data:|#)', page)
    assert "0.500" in {bold.text for bold in tree.iter("b")}  # Dice of the pancreas, in one of two


def test_an_organ_that_no_mask_has_is_called_lost(data, caplog):
    for case in ("case_0", "case_1"):
        mask = read_label(data / f"masks/{case}.nii.gz")
        pancreas = LABEL_MAP.class_names.index("pancreas")
        array = np.where(mask.array == pancreas, 0, mask.array).astype(np.uint8)
        write_mask(array, data / f"masks/{case}.nii.gz", like=mask)
    command(data).run()
    assert Evaluation.read(data / "out").lost_organs == ("pancreas",)
    assert "lost organs, of a mean Dice below 0.05: pancreas" in caplog.messages
    page = (data / "out/evaluation.html").read_text()
    assert "<b>lost organ: pancreas</b>" in page
    assert "nothing of it in 2 of the 2 cases that have it" in page


def test_an_organ_found_in_one_case_or_in_none_of_the_labels_is_not_lost(data, caplog):
    command(data).run()  # the second mask has no pancreas, the first has
    assert Evaluation.read(data / "out").lost_organs == ()
    assert not [message for message in caplog.messages if message.startswith("lost")]
    absent, invented = OrganScores(), OrganScores(dice=0.0, precision=0.0)
    evaluation = Evaluation(("liver", "spleen"), {"a": {"liver": absent, "spleen": invented}})
    assert evaluation.lost_organs == ()
    found = {"a": {"liver": OrganScores(dice=1.0, precision=1.0, recall=1.0)}}
    others = {str(number): {"liver": invented} for number in range(24)}
    evaluation = Evaluation(("liver",), found | others)
    assert evaluation.mean_dice == pytest.approx(0.04)  # of false positives
    assert evaluation.lost_organs == ()


def test_workers_change_nothing(data):
    outputs = []
    for workers in (1, 2):
        command(data, workers=workers, overwrite=True).run()
        outputs.append((data / "out/evaluation.json").read_bytes())
    assert outputs[0] == outputs[1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"organ_tolerance_mm": {"lung": 2.0}}, "organ_tolerance_mm must name organs.*got lung"),
        ({"tolerance_mm": -1.0}, "tolerance_mm of artery must be 0 or more, got -1.0"),
        ({"tolerance_mm": float("nan")}, "tolerance_mm of artery must be 0 or more, got nan"),
        ({"workers": -1}, "workers must be 0 or more, got -1"),
    ],
)
def test_flags_out_of_range_are_refused(data, changes, message):
    with pytest.raises(InputError, match=message):
        command(data, **changes).run()
    assert not (data / "out").exists()


def test_each_organ_has_its_tolerance(data):
    argv = [
        *("--masks", data / "masks", "--labels", data / "labels", "--label_map", data / "map.yaml"),
        *("--output", data / "out", "--organ_tolerance_mm", "liver", "6.5", "--workers", "1"),
    ]
    parse(EvaluateCommand, [str(part) for part in argv]).run()
    result = json.loads((data / "out/evaluation.json").read_text())
    assert result["tolerances_mm"] == {**dict.fromkeys(ORGANS, 2.0), "liver": 6.5}
    moved = result["cases"]["case_1"]  # by 6 mm
    assert moved["liver"]["surface_dice"] == 1
    assert moved["stomach"]["surface_dice"] < 1


def test_running_again_gives_the_same_where_it_may(data):
    command(data).run()
    before = contents(data / "out")
    with pytest.raises(InputError, match=r"evaluation.json is there already: give --overwrite"):
        command(data, label_map=data / "map.yaml").run()
    assert contents(data / "out") == before
    command(data, overwrite=True).run()
    assert contents(data / "out") == before


def contents(folder):
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder): path.read_bytes() for path in files}


def cut_mask(data):
    label = read_label(data / "labels/case_1.nii.gz")
    write_volume(Volume(label.array[:-1], label.affine), data / "masks/case_1.nii.gz")


def cut_label_file(data):
    path = data / "labels/case_1.nii.gz"
    path.write_bytes(path.read_bytes()[:-100])


def remove_label(data):
    (data / "labels/case_1.nii.gz").unlink()


def name_other_organs(data):
    (data / "masks/case_1.json").write_text('{"volumes_ml": {"lung": 1.0}}')


SPOILS = {
    "shape_mismatch": cut_mask,
    "unreadable": cut_label_file,
    "file_missing": remove_label,
    "class_names_differ": name_other_organs,
}


@pytest.mark.parametrize("code", SPOILS)
def test_a_bad_case_does_not_keep_the_others_back(data, caplog, code):
    SPOILS[code](data)
    with pytest.raises(InputError, match=rf"rejected 1 of 2 cases; first: .*\[{code}\].*case_1"):
        command(data).run()
    result = json.loads((data / "out/evaluation.json").read_text())
    assert list(result["cases"]) == list(result["labels_sha256"]) == ["case_0"]
    assert list(result["rejected"]) == ["case_1"]
    assert f"[{code}] (case case_1)" in caplog.text
    assert f"[{code}]" in (data / "out/evaluation.html").read_text()
    assert [path.name for path in (data / "out/pictures").iterdir()] == ["case_0.png"]


def test_bad_cases_alone_leave_no_result_of_this_or_an_earlier_run(data):
    command(data).run()
    cut_mask(data)
    (data / "masks/case_0.nii.gz").write_bytes(b"")
    with pytest.raises(InputError, match="rejected 2 of 2 cases"):
        command(data, overwrite=True).run()
    assert not list((data / "out").glob("evaluation.*"))
    with pytest.raises(InputError, match="rejected 2 of 2 cases"):
        command(data, output=data / "new").run()
    assert not (data / "new").exists()


def test_labels_are_what_the_conversion_takes(data):
    """A folder of masks here; of a DICOM segmentation without empty slices tells test_dicom.py."""
    label = read_label(data / "labels/case_0.nii.gz")
    (data / "labels/case_0.nii.gz").unlink()
    (data / "labels/case_0").mkdir()
    for index, organ in enumerate(ORGANS, start=1):
        part = label.with_array(np.uint8(label.array == index))
        write_volume(part, data / f"labels/case_0/{organ}.nii.gz")
    command(data).run()
    result = json.loads((data / "out/evaluation.json").read_text())
    assert {scores["dice"] for scores in result["cases"]["case_0"].values()} == {1.0}


def test_an_image_that_is_no_ct_is_refused_unless_accepted(data, caplog):
    image = read_label(data / "images/case_1.nii.gz")
    offset = np.maximum(image.array, -1024) + 1024
    write_volume(image.with_array(offset.astype(np.int16)), data / "images/case_1.nii.gz")
    message = r"rejected 1 of 2 cases; first: .*\[missing_rescale\] \(case case_1\)"
    with pytest.raises(InputError, match=message):
        command(data, images=data / "images").run()
    assert "--accept missing_rescale lets such cases pass" in caplog.text
    accepted = {"accept": ("missing_rescale",), "overwrite": True}
    command(data, images=data / "images", **accepted).run()
    assert "case_1: values are" in caplog.text


@pytest.mark.parametrize("on_mismatch", ["reject", "trust_image", "resample_label"])
def test_a_mask_whose_header_leaves_its_grid_open_is_refused_unless_accepted(
    data, caplog, on_mismatch
):
    """Distances are in the mask's mm, and no label on its grid makes them so."""
    path = data / "masks/case_1.nii.gz"
    content = bytearray(gzip.decompress(path.read_bytes()))
    struct.pack_into("<2h", content, 252, 0, 0)  # qform_code and sform_code
    path.write_bytes(gzip.compress(content))
    message = r"rejected 1 of 2 cases; first: .*\[orientation_unknown\] \(case case_1\)"
    with pytest.raises(InputError, match=message):
        command(data, on_mismatch=on_mismatch).run()
    (data / "labels/case_1.nii.gz").write_bytes(path.read_bytes())
    command(data, accept=("orientation_unknown",), overwrite=True).run()
    assert caplog.text.count("[orientation_unknown]") >= 3  # the reject, label and mask


def test_ctrl_c_leaves_nothing_half_written(data, monkeypatch):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("fcnseg.cli.evaluate.report_html", interrupt)
    with pytest.raises(KeyboardInterrupt):
        command(data).run()
    assert not (data / "out").exists()


@pytest.mark.parametrize("folder", ["masks", "labels", "images"])
def test_an_empty_folder_is_refused(data, folder):
    (data / "empty").mkdir()
    with pytest.raises(InputError, match="no volume.*empty"):
        command(data, **{folder: data / "empty"}).run()
    assert not (data / "out").exists()


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ({"masks": "nowhere"}, "no such folder: .*nowhere"),
        ({"label_map": "nowhere.yaml"}, "nowhere.yaml cannot be read"),
    ],
)
def test_bad_input_ends_in_one_line(data, broken, message):
    flags = {"masks": "masks", "labels": "labels", "label_map": "map.yaml", "output": "out"}
    flags |= broken
    argv = [part for name, value in flags.items() for part in (f"--{name}", str(data / value))]
    job = subprocess.run(
        [sys.executable, "-m", "fcnseg", "evaluate", *argv], capture_output=True, text=True
    )
    assert job.returncode == USER_ERROR_STATUS
    assert job.stderr.count("\n") == 1
    assert re.match(f"error: .*{message}", job.stderr)
    assert not (data / "out").exists()


@pytest.mark.real_data
def test_two_models_labels_of_a_real_scan(real_data, tmp_path):
    """Labels by a 1.5 mm and a 3 mm model: the liver agrees to .98, the pancreas to .81."""
    scan = real_data / "abdomen_ct_sm"
    label_map = LabelMap.read(real_data / "organs7.yaml")
    fast = read_label(scan / "label_fast.nii.gz")
    for folder in ("masks", "labels", "images"):
        (tmp_path / folder).mkdir()
    write_mask(label_map.apply(fast.array), tmp_path / "masks/scan.nii.gz", like=fast)
    (tmp_path / "labels/scan.nii.gz").symlink_to(scan / "label.nii.gz")
    (tmp_path / "images/scan.nii.gz").symlink_to(scan / "ct.nii.gz")
    output = tmp_path / "out"
    EvaluateCommand(
        masks=tmp_path / "masks",
        labels=tmp_path / "labels",
        label_map=real_data / "organs7.yaml",
        output=output,
        images=tmp_path / "images",
    ).run()
    result = json.loads((output / "evaluation.json").read_text())
    dice = {organ: scores["dice"] for organ, scores in result["classes"].items()}
    assert set(dice) == set(ORGANS)
    assert dice["liver"] == pytest.approx(0.98, abs=0.005)
    assert dice["pancreas"] == pytest.approx(0.81, abs=0.005)
