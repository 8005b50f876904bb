"""Label maps: ids of a file to classes, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import yaml

from fcnseg.errors import LabelError
from fcnseg.volumes import LabelMap

FORM = r'"classes: \{background: \[0\], liver: \[1\]\}"'
CLASSES = {"background": [0], "artery": [52], "vein": [63, 64], "liver": [5]}


def write(path, content):
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def test_ids_become_consecutive_classes(tmp_path):
    label_map = LabelMap.read(write(tmp_path / "map.yaml", {"classes": CLASSES}))
    assert label_map.class_names == ("background", "artery", "vein", "liver")
    ids = np.array([[[0, 52, 63], [64, 5, 0]]], np.int16)
    classes = label_map.apply(ids)
    assert classes.dtype == np.uint8
    assert classes.tolist() == [[[0, 1, 2], [2, 3, 0]]]


def test_unlisted_ids_are_rejected_with_their_counts():
    label_map = LabelMap.from_mapping({"classes": CLASSES})
    ids = np.array([[[0, 7, 7], [300, 5, 0]]])
    with pytest.raises(LabelError, match=r"7 \(2 voxels\), 300 \(1 voxels\) \(case c1\)"):
        label_map.apply(ids, case_id="c1")


def test_many_unlisted_ids_are_counted_not_listed():
    label_map = LabelMap.from_mapping({"classes": CLASSES})
    with pytest.raises(LabelError, match=r"1000 \(1 voxels\), .* 490 more; is it the image[?]$"):
        label_map.apply(np.arange(1000, 1500).reshape(5, 10, 10))


def test_unlisted_ids_become_background_if_the_map_says_so():
    label_map = LabelMap.from_mapping({"classes": CLASSES, "unlisted": "background"})
    assert label_map.apply(np.array([[[7, 5, 70000]]])).tolist() == [[[0, 3, 0]]]
    with pytest.raises(LabelError, match=r"not be negative, got -1 \(1 voxels\)") as caught:
        label_map.apply(np.array([[[-1, 5, 0]]]))
    assert caught.value.code == "label_negative"


def test_more_classes_than_uint8_holds():
    names = ["background", *(f"class{number}" for number in range(1, 300))]
    classes = LabelMap.consecutive(names).apply(np.array([[[0, 299]]]))
    assert classes.dtype == np.uint16
    assert classes.tolist() == [[[0, 299]]]


@pytest.mark.parametrize(("organs", "dtype"), [(3, np.uint8), (253, np.uint8), (254, np.uint16)])
def test_ignored_ids_become_the_largest_number(organs, dtype):
    classes = {"background": (0,)} | {f"organ{n}": (n,) for n in range(1, organs + 1)}
    label_map = LabelMap(classes, ignored=(7000, 9000))
    label = label_map.apply(np.array([[[0, 7000, organs], [9000, 1, 0]]]))
    assert label.dtype == label_map.dtype == dtype
    most = np.iinfo(dtype).max
    assert label_map.ignore_label == most
    assert label.tolist() == [[[0, most, organs], [most, 1, 0]]]
    assert LabelMap(classes).ignore_label is None
    with pytest.raises(LabelError, match=r"8000 \(1 voxels\)$"):
        label_map.apply(np.array([[[7000, 8000]]]))


def test_mapping_round_trip():
    classes = CLASSES | {"kidney": [2, "kidney_left", "kidney_right"], "colon": []}
    content = {"classes": classes, "unlisted": "background", "ignored": [255]}
    label_map = LabelMap.from_mapping(content)
    assert LabelMap.from_mapping(label_map.to_mapping()) == label_map


@pytest.mark.parametrize("name", ["liver", "1", "yes", "Leber größer", "a: b", "x" * 100])
def test_file_round_trip(tmp_path, name):
    label_map = LabelMap({"background": (0,), name: (7, "mask 1")}, "background", ignored=(255,))
    path = tmp_path / "map.yaml"
    path.write_text(label_map.to_yaml(), encoding="utf-8")
    assert LabelMap.read(path) == label_map
    assert len(path.read_text(encoding="utf-8").splitlines()) == 5


def test_ids_and_masks_may_make_a_class(tmp_path):
    classes = CLASSES | {"kidney": [2, "kidney_left", "kidney_right"], "colon": []}
    label_map = LabelMap.read(write(tmp_path / "map.yaml", {"classes": classes}))
    assert label_map.apply(np.array([[[2, 5, 0]]])).tolist() == [[[4, 3, 0]]]
    # A class for which no mask is named is made of the mask with its own name.
    assert label_map.masks == (
        ("artery", 1),
        ("vein", 2),
        ("liver", 3),
        ("kidney_left", 4),
        ("kidney_right", 4),
        ("colon", 5),
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "keys classes, unlisted, ignored"),
        ({"clases": CLASSES}, "keys classes, unlisted, ignored"),
        ({"classes": CLASSES, "ignored": [5]}, r"an id .* one class, got \[5\]"),
        ({"classes": CLASSES, "ignored": [-1]}, "not be negative, got -1"),
        ({"classes": CLASSES | {"": [7]}}, "names without blanks around them, got ''"),
        ({"classes": CLASSES | {" colon": [7]}}, "names without blanks around them, got ' colon'"),
        ({"classes": CLASSES | {"co\nlon": [7]}}, r"without blanks around them, got 'co\\nlon'"),
        ({"classes": CLASSES | {"colon": ["7"]}}, "got '7': write each id as a number, without qu"),
        ({"classes": CLASSES | {"colon": ["08"]}}, "got '08': write each id as a number"),
        ({"classes": CLASSES | {"colon": ["7-9"]}}, "got '7-9': write each id as a number"),
        ({"classes": CLASSES | {"colon": [True]}}, "got True: write each id as a number"),
        ({"classes": CLASSES, "ignored": ["9"]}, "got '9': write each id as a number"),
        ({"classes": CLASSES, "ignored": ["unsure"]}, r"ignored\.0"),
        ({"classes": {"liver": [1], "background": [0]}}, "begin with background"),
        ({"classes": {"background": [0]}}, "2 to 65535"),
        ({"classes": {"background": [0], "a": [1], "b": [1]}}, r"one class, got \[1\]"),
        ({"classes": {"background": [0], "a": [[1]]}}, r"classes\.a\.0"),
        (
            {"classes": {"background": [0], "a": ["x"], "b": ["x"]}},
            r"mask .* one class, got \['x'\]",
        ),
        ({"classes": {"background": [0], "a": ["b"], "b": [1]}}, r"mask .* one class, got \['b'\]"),
        ({"classes": {"background": ["air"], "a": [1]}}, r"no mask holds, got \['air'\]"),
        ({"classes": {"background": [0], "a": [-4]}}, "not be negative, got -4"),
        ({"classes": CLASSES, "unlisted": "ignore"}, "unlisted"),
        # The mistakes of a first label map: the error shows the right form.
        ({"classes": CLASSES | {"liver": 3}}, r'list of ids .*, got 3: write "liver: \[3\]"$'),
        ({"classes": CLASSES | {"liver": "ts_liver"}}, r'write "liver: \[ts_liver\]"$'),
        ({"classes": CLASSES | {"liver": None}}, r'got None: write "liver: \[\]"$'),
        ({"classes": CLASSES, "ignored": 255}, r'got 255: write "ignored: \[255\]"$'),
        ({"classes": {0: "background", 1: "liver"}}, rf"got 0: 'background': write {FORM}$"),
        ({"classes": ["background", "liver"]}, rf"got \['background', 'liver'\]: write {FORM}$"),
        ({"background": 0, "liver": 1}, rf"got \['background', 'liver'\]: write {FORM}$"),
        ({"unlisted": "reject"}, rf"got None: write {FORM}$"),
    ],
)
def test_bad_map_is_refused(tmp_path, content, message):
    with pytest.raises(LabelError, match=message) as caught:
        LabelMap.read(write(tmp_path / "map.yaml", content))
    assert "map.yaml" in str(caught.value)


def test_missing_or_broken_file_is_named(tmp_path):
    with pytest.raises(LabelError, match=r"nowhere\.yaml cannot be read"):
        LabelMap.read(tmp_path / "nowhere.yaml")
    (tmp_path / "broken.yaml").write_text("classes: [")
    with pytest.raises(LabelError, match=r"broken\.yaml cannot be read"):
        LabelMap.read(tmp_path / "broken.yaml")
