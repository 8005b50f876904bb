import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from small_cases import write_cases
from small_records import make_record
from without_tensorflow import run_without_tensorflow

from fcnseg.errors import DatasetError, InputError, MissingExtraError
from fcnseg.figures.slices import VIEWS, draw_slices
from fcnseg.records import read_cases
from fcnseg.volumes import Volume
from pipelines.convert_ct import ConvertCt
from pipelines.dataset_page import dataset_html, draw_record
from pipelines.inspect import Inspect
from pipelines.inspected_dataset import InspectedDataset

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Six cases, one of them cut short."""
    cases = write_cases(tmp_path_factory.mktemp("inspect") / "in")
    image = cases.parent / "images" / "case_02.nii.gz"
    image.write_bytes(image.read_bytes()[:3000])
    return cases


def convert(cases: Path, output: Path, **flags) -> Path:
    flags = {
        "label_map": str(cases.with_name("label_map.yaml")),
        "spacing_mm": (1.0, 1.0, 1.0),
        "test_fraction": 0.3,
        "max_reject_fraction": 0.5,
        **flags,
    }
    ConvertCt(cases=str(cases), output=str(output), **flags).run()
    return output


@pytest.fixture(scope="module")
def records(source):
    return convert(source, source.parent / "records")


class Page(HTMLParser):
    """Pictures, text and references of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.pictures, self.words, self.references = [], "", []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        if tag == "img":
            self.pictures.append(attributes["alt"])
        self.references += [v for k, v in attrs if k in ("src", "href", "xlink:href")]

    def handle_data(self, data):
        self.words += data


def test_the_command_runs_without_tensorflow_and_tells_all(records, tmp_path):
    done = run_without_tensorflow(
        "pipelines.inspect",
        *(str(records), "--output", str(tmp_path / "page.html")),
        env={"COLUMNS": "140", "PATH": "", "MPLCONFIGDIR": str(tmp_path / "mpl")},
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1] == f"page with pictures: {tmp_path / 'page.html'}"
    for words in ("Splits", "spacing z (mm)", "std. dev.", "liver", "unreadable", "case_02"):
        assert words in done.stdout

    page = Page((tmp_path / "page.html").read_text())
    assert len(page.pictures) == 5
    assert all(f"case_0{n}" in "".join(page.pictures) for n in (0, 1, 3, 4, 5))
    assert all(r.startswith(("data:", "#")) for r in page.references)  # it needs no other file
    assert "the file is incomplete, corrupt, or not of its format" in page.words


def test_numbers_are_those_of_the_records(records):
    dataset = InspectedDataset.open(records)
    cases = list(dataset.read_spread(100))
    liver = [int((case.label == 1).sum()) for case in cases]
    page = Page(dataset_html(dataset, []))
    assert f"{sum(liver):,}" in page.words
    assert f"{max(liver) / 1000:,.1f}" in page.words  # a voxel is a cubic millimetre
    everywhere = np.concatenate([case.image.ravel() for case in cases])
    assert f"{everywhere.mean():,.0f}" in page.words
    assert f"{np.median(everywhere):,.0f}" in page.words


@pytest.mark.parametrize(("count", "read"), [(1, 1), (3, 3), (5, 5), (100, 5)])
def test_cases_come_from_all_over_the_dataset(records, count, read):
    dataset = InspectedDataset.open(records)
    ids = [case.case_id for case in dataset.read_spread(count)]
    assert len(ids) == len(set(ids)) == read
    if count == 3:
        assert len({case.split for case in dataset.fingerprint.cases if case.case_id in ids}) > 1


def test_cases_in_several_records_are_whole(source, tmp_path):
    fine = {"spacing_mm": (0.3, 0.3, 0.3), "max_record_mib": 1}
    dataset = InspectedDataset.open(convert(source, tmp_path / "divided", **fine))
    assert any(split.divided for split in dataset.info.splits.values())
    shapes = {case.case_id: case.shape for case in dataset.fingerprint.cases}
    read = list(dataset.read_spread(100))
    assert {case.case_id: case.label.shape for case in read} == shapes
    for case in read:
        found = np.bincount(case.label.ravel(), minlength=3)
        np.testing.assert_array_equal(found, case.class_histogram)


def test_chosen_cases_are_drawn(records, tmp_path, capsys):
    Inspect(records, tmp_path / "page.html", cases=("case_05", "case_01")).run()
    capsys.readouterr()
    pictures = " ".join(Page((tmp_path / "page.html").read_text()).pictures)
    assert sorted(re.findall(r"case_\d+", pictures)) == ["case_01", "case_05"]


@pytest.mark.parametrize(
    ("flags", "error", "message"),
    [
        ({"cases": ("case_02",)}, InputError, "cases must be in .*, got case_02"),
        ({"output": Path("/nowhere/page.html")}, InputError, "output must be in a folder that is"),
        ({"directory": ROOT}, DatasetError, "COMPLETED is missing"),
    ],
)
def test_a_wrong_flag_says_what_is_wrong(records, tmp_path, flags, error, message, capsys):
    flags = {"directory": records, "output": tmp_path / "page.html", **flags}
    with pytest.raises(error, match=message):
        Inspect(**flags).run()
    assert not (tmp_path / "page.html").exists()


def test_what_is_missing_is_asked_for_by_its_extra(records, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtraError, match="fcnseg's extra evaluation, pip install "):
        Inspect(records, tmp_path / "page.html").run()


def test_a_dataset_without_labels_is_drawn_without_organs(source, tmp_path):
    folder = convert(source, tmp_path / "unlabelled", images_only=True, labels=None)
    dataset = InspectedDataset.open(folder)
    page = Page(dataset_html(dataset, dataset.read_spread(2)))
    assert len(page.pictures) == 2
    assert "liver (ml)" not in page.words


# -- the right way up


AXES = {"R": 0, "L": 0, "A": 1, "P": 1, "S": 2, "I": 2}  # of RAS: x, y, z
POSITIVE = "RAS"


@pytest.mark.parametrize("view", VIEWS, ids=lambda view: view.name)
def test_letters_lie_where_the_patient_does(view):
    """Pixels are coloured by where they are in the patient, along the axis that a letter names."""
    millimetres = np.meshgrid(*(np.arange(n) for n in (5, 6, 7)), indexing="ij")[::-1]  # x, y, z
    left, right, top, bottom = view.edges

    def seen(letter):
        volume = Volume(millimetres[AXES[letter]], np.eye(4))
        pixels = view.cut(volume, np.array([2, 3, 4])).astype(float)
        return pixels if letter in POSITIVE else -pixels

    for letter, near, far in ((left, 0, -1), (right, -1, 0)):
        assert (seen(letter)[:, near] > seen(letter)[:, far]).all()
    for letter, near, far in ((top, 0, -1), (bottom, -1, 0)):
        assert (seen(letter)[near] > seen(letter)[far]).all()


def test_millimetres_are_square_on_the_page():
    image = Volume(np.zeros((10, 40, 20), np.int16), np.diag([2.0, 1.0, 5.0, 1.0]))
    figure = draw_slices(image, [], np.array([5, 20, 10]), title="anisotropic")
    aspects = {view.name: axes.get_aspect() for view, axes in zip(VIEWS, figure.axes, strict=True)}
    # Height over width of a pixel: y/x, z/x, z/y.
    assert aspects == pytest.approx({"axial": 0.5, "coronal": 2.5, "sagittal": 5.0})


def test_a_picture_has_a_colour_for_each_organ_that_is_there():
    png = draw_record(make_record("one", seed=0, organs=(1,)), ("background", "liver", "spleen"))
    assert png.startswith(b"\x89PNG")
    again = draw_record(make_record("one", seed=0, organs=(1,)), ("background", "liver", "spleen"))
    assert png == again


@pytest.mark.real_data
def test_the_liver_of_a_real_scan_is_on_the_left_and_its_spine_below(real_data, tmp_path):
    scan = real_data / "abdomen_ct_sm"
    (tmp_path / "cases.csv").write_text(
        f"case_id,image,label\nabdomen,{scan}/ct.nii.gz,{scan}/label.nii.gz\n"
    )
    folder = convert(
        tmp_path / "cases.csv",
        tmp_path / "records",
        label_map=f"{real_data}/organs7.yaml",
        spacing_mm=(3.0, 3.0, 3.0),
        validation_fraction=0.0,
        test_fraction=0.0,
    )
    (shard,) = folder.glob("*.tfrecord")
    (case,) = read_cases(shard)
    axial, _, _ = VIEWS
    liver = axial.cut(Volume(case.label == 3, case.affine), np.array([15, 0, 0]))
    bone = axial.cut(Volume(case.image > 250, case.affine), np.array([15, 0, 0]))
    height, width = liver.shape
    assert np.argwhere(liver)[:, 1].mean() < width / 2
    assert np.argwhere(bone)[:, 0].mean() > height / 2
