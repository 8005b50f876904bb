import csv
import io
import json

import nibabel as nib
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb

from fcnseg.codes import ACCEPTABLE
from fcnseg.conversion.cases import Case
from fcnseg.conversion.check_options import CheckOptions
from fcnseg.conversion.rejects import CaseError
from fcnseg.errors import InputError
from fcnseg.evaluation import (
    METRICS,
    CaseVolumes,
    Evaluation,
    OrganScores,
    draw_case,
    pair_files,
    pair_masks,
    read_case,
    score_organs,
    write_picture,
)
from fcnseg.evaluation.class_names import workbench_table
from fcnseg.figures.overlay import worst_place
from fcnseg.figures.palette import organ_colour
from fcnseg.figures.slices import VIEWS, middle_of
from fcnseg.volumes import (
    LabelMap,
    Volume,
    from_canonical,
    read_label,
    to_canonical,
    turn_like,
    write_mask,
    write_volume,
)

NAMES = ("background", "liver", "spleen", "pancreas")
TOLERANCES_MM = dict.fromkeys(NAMES[1:], 2.0)
AFFINE = np.diag([1.0, 2.0, 3.0, 1.0])  # spacing (z, y, x) = (3, 2, 1) mm


def drawn(*rows):
    """A mask of one slice from rows of digits."""
    return np.array([[[int(digit) for digit in row] for row in rows]], dtype=np.uint8)


# reference, mask, Dice of classes 1 and 2
DRAWN = {
    "equal": (drawn("110", "022"), drawn("110", "022"), (1.0, 1.0)),
    # class 1: 2 and 2 voxels, 1 in common: 2*1/(2+2). Class 2: 2 and 3, 2 in common: 2*2/5.
    "partial": (drawn("110", "022"), drawn("011", "222"), (0.5, 0.8)),
    "apart": (drawn("100", "200"), drawn("001", "002"), (0.0, 0.0)),
    "exchanged": (drawn("12", "12"), drawn("21", "21"), (0.0, 0.0)),
    # only the reference has class 1, only the mask has class 2: both are wholly wrong
    "false negative and false positive": (drawn("110", "000"), drawn("000", "022"), (0.0, 0.0)),
    # nobody has class 2: there is nothing to be right or wrong about
    "absent": (drawn("110", "000"), drawn("010", "000"), (pytest.approx(2 / 3), None)),
    "empty": (drawn("000"), drawn("000"), (None, None)),
    # one slice agrees, the other does not: 1 of 1 + 2 voxels
    "two slices": (
        np.concatenate([drawn("10"), drawn("00")]),
        np.concatenate([drawn("10"), drawn("01")]),
        (pytest.approx(2 / 3), None),
    ),
}


@pytest.mark.parametrize("name", DRAWN)
def test_dice_of_drawn_masks(name):
    reference, mask, expected = DRAWN[name]
    scores = score_organs(reference, mask, num_classes=3)
    assert tuple(score.dice for score in scores) == expected


def test_dice_is_that_of_its_definition():
    rng = np.random.default_rng(0)
    reference, mask = rng.integers(0, 300, (2, 6, 40, 50), dtype=np.uint16)
    scores = score_organs(reference, mask, num_classes=300)
    for index in (1, 150, 299):
        a, b = reference == index, mask == index
        assert scores[index - 1].dice == pytest.approx(2 * (a & b).sum() / (a.sum() + b.sum()))


def dice(*values):
    return dict(zip(NAMES[1:], map(OrganScores, values), strict=True))


@pytest.fixture
def evaluation():
    cases = {"a": dice(1.0, 0.5, None), "b": dice(0.5, None, None)}
    return Evaluation(NAMES[1:], cases, TOLERANCES_MM)


def test_means_leave_out_what_has_no_score(evaluation):
    # liver (1 + .5) / 2, spleen .5 of the one case that has it, no pancreas anywhere
    assert evaluation.classes == dice(0.75, 0.5, None)
    assert evaluation.mean_dice == (0.75 + 0.5) / 2


def test_json_has_its_form(evaluation):
    content = json.loads(evaluation.to_json())
    facts = ["tolerances_mm", "labels_sha256", "rejected"]
    assert list(content) == ["mean_dice", "selection", *facts, "classes", "cases"]
    assert content["mean_dice"] == 0.625
    assert content["tolerances_mm"] == TOLERANCES_MM
    assert content["cases"]["b"]["liver"] == {**dict.fromkeys(METRICS), "dice": 0.5}
    assert {organ: scores["dice"] for organ, scores in content["classes"].items()} == {
        "liver": 0.75,
        "spleen": 0.5,
        "pancreas": None,
    }


def test_an_evaluation_of_dice_alone_can_be_read():
    liver = {"liver": {"dice": 0.5}}
    text = json.dumps({"mean_dice": 0.5, "classes": liver, "cases": {"a": liver}})
    evaluation = Evaluation.from_json(text)
    assert evaluation.cases["a"]["liver"] == OrganScores(dice=0.5)
    assert evaluation.tolerances_mm == {}


def test_json_comes_back(evaluation):
    assert Evaluation.from_json(evaluation.to_json()) == evaluation


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"classes": {}, "cases": {"a": {"b": {"c": 1}}}}']
)
def test_other_json_is_refused(text):
    with pytest.raises(InputError, match="not an evaluation"):
        Evaluation.from_json(text)


def test_csv_has_a_row_for_each_case_and_organ(evaluation):
    rows = list(csv.DictReader(io.StringIO(evaluation.to_csv())))
    assert [(row["case_id"], row["organ"], row["dice"]) for row in rows] == [
        ("a", "liver", "1.0"),
        ("a", "spleen", "0.5"),
        ("a", "pancreas", ""),
        ("b", "liver", "0.5"),
        ("b", "spleen", ""),
        ("b", "pancreas", ""),
    ]


def test_no_score_at_all_is_null():
    nothing = Evaluation(NAMES[1:], {"a": dice(None, None, None)})
    assert json.loads(nothing.to_json())["mean_dice"] is None


def write_label(folder, name, array, affine=AFFINE):
    folder.mkdir(exist_ok=True)
    write_volume(Volume(array, affine), folder / f"{name}.nii.gz")


@pytest.fixture
def folders(tmp_path):
    """Masks of class indices, and labels whose ids are ten times as large."""
    label = drawn("110", "022")
    for case in ("a", "b"):
        write_label(tmp_path / "masks", case, label)
        write_label(tmp_path / "labels", case, label * 10)
    return tmp_path


LABEL_MAP = LabelMap({"background": (0,), "liver": (10,), "spleen": (20,), "pancreas": (30,)})


def test_files_are_paired_by_name(folders, caplog):
    write_label(folders / "labels", "c", drawn("000"))  # a label that nobody predicted
    write_label(folders / "images", "a_0000", drawn("000").astype(np.int16))
    write_label(folders / "images", "b", drawn("000").astype(np.int16))
    cases = pair_files(folders / "masks", folders / "labels", folders / "images")
    assert [case.case_id for case in cases] == ["a", "b"]
    assert [case.image.rpartition("/")[2] for case in cases] == ["a_0000.nii.gz", "b.nii.gz"]
    assert caplog.messages == ["1 of 3 labels have no mask and are not scored: c"]


@pytest.mark.parametrize("link", [False, True])
def test_a_label_is_not_scored_against_itself(folders, link):
    masks = folders / "labels"
    if link:
        masks = folders / "linked"
        masks.mkdir()
        (masks / "a.nii.gz").symlink_to(folders / "labels" / "a.nii.gz")
    with pytest.raises(InputError, match=r"must be two files, got .*a.nii.gz for both .case a"):
        pair_files(masks, folders / "labels")
    case = Case("a", "image.nii", f"{folders}/labels/a.nii.gz", "p")
    with pytest.raises(InputError, match=r"must be two files, got .*a.nii.gz for both .case a"):
        pair_masks(masks, [case])


@pytest.mark.parametrize("folder", ["labels", "images"])
def test_a_mask_without_partner_is_refused(folders, folder):
    write_label(folders / "images", "a", drawn("000"))
    write_label(folders / "images", "b", drawn("000"))
    (folders / folder / "b.nii.gz").unlink()
    cases = pair_files(folders / "masks", folders / "labels", folders / "images")
    assert [case.wrong is None for case in cases] == [True, False]
    with pytest.raises(CaseError, match=rf"no {folder[:-1]} in .*{folder} for mask .*b.nii") as got:
        read_case(cases[1], LABEL_MAP)
    assert got.value.code == "file_missing"


def test_a_mask_with_two_labels_is_refused(folders):
    (folders / "labels/a.nii").write_bytes(b"")
    with pytest.raises(CaseError, match=r"one label, got .*a.nii, .*a.nii.gz") as caught:
        read_case(pair_files(folders / "masks", folders / "labels")[0], LABEL_MAP)
    assert caught.value.code == "duplicate_case"


def test_ids_of_the_label_become_class_indices(folders):
    case = read_case(pair_files(folders / "masks", folders / "labels")[0], LABEL_MAP)
    np.testing.assert_array_equal(case.reference.array, case.mask.array)
    scores = case.scores(TOLERANCES_MM)
    assert {organ: score.dice for organ, score in scores.items()} == {
        "liver": 1.0,
        "spleen": 1.0,
        "pancreas": None,
    }
    assert scores["liver"].reference_ml == 2 * 6 / 1000  # two voxels of 6 mm³


MOVED = AFFINE + np.array([[0, 0, 0, 1.0], *[[0, 0, 0, 0]] * 3])


@pytest.mark.parametrize(
    ("array", "affine", "code", "message"),
    [
        (
            drawn("1100", "0220"),
            AFFINE,
            "shape_mismatch",
            "mask and label must have the same shape",
        ),
        (drawn("110", "022"), MOVED, "grid_mismatch", "mask and label must lie on.*origin"),
    ],
)
def test_another_grid_is_refused(folders, array, affine, code, message):
    write_label(folders / "masks", "a", array, affine)
    files = pair_files(folders / "masks", folders / "labels")[0]
    with pytest.raises(CaseError, match=message) as caught:
        read_case(files, LABEL_MAP)
    assert (caught.value.code, caught.value.file) == (code, str(folders / "labels/a.nii.gz"))


@pytest.mark.parametrize("axes", ["RAS", "LPS", "LAS", "SPR"])
def test_the_order_of_axes_does_not_matter(folders, axes):
    """Of mask, label and image the same voxels may be stored in any order."""
    straight = read_case(pair_files(folders / "masks", folders / "labels")[0], LABEL_MAP)
    for folder, array in (("masks", drawn("110", "022")), ("images", drawn("123", "456"))):
        volume = nib.Nifti1Image(array.T, AFFINE)
        now = nib.orientations.io_orientation(AFFINE)
        turn = nib.orientations.ornt_transform(now, nib.orientations.axcodes2ornt(axes))
        turned = volume.as_reoriented(turn)
        write_label(folders / folder, "a", np.asarray(turned.dataobj).T, turned.affine)
        write_label(folders / folder, "b", array)
    files = pair_files(folders / "masks", folders / "labels", folders / "images")[0]
    case = read_case(files, LABEL_MAP, CheckOptions(accept=ACCEPTABLE))
    assert case.mask.orientation == axes
    for part, array in (
        (case.mask, straight.mask.array),
        (case.reference, straight.reference.array),
        (case.image, drawn("123", "456")),
    ):
        np.testing.assert_array_equal(turn_like(part, straight.mask).array, array)
    assert case.scores(TOLERANCES_MM) == straight.scores(TOLERANCES_MM)


@pytest.mark.parametrize(
    "checks", [CheckOptions(geometry_tolerance_mm=1.5), CheckOptions(on_mismatch="trust_image")]
)
def test_another_grid_is_taken_as_the_conversion_takes_it(folders, checks):
    write_label(folders / "masks", "a", drawn("110", "022"), MOVED)
    case = read_case(pair_files(folders / "masks", folders / "labels")[0], LABEL_MAP, checks)
    np.testing.assert_array_equal(case.reference.array, case.mask.array)
    codes = [warning.code for warning in case.warnings]
    assert codes == ["label_moved"] * (checks.on_mismatch == "trust_image")


def test_an_image_that_is_no_ct_or_on_another_grid_is_refused(folders):
    for case in "ab":
        write_label(folders / "images", case, drawn("110", "022").astype(np.int16), MOVED)
    files = pair_files(folders / "masks", folders / "labels", folders / "images")
    with pytest.raises(CaseError, match=r"mm wide.*") as caught:
        read_case(files[0], LABEL_MAP)
    assert caught.value.code == "field_of_view_implausible"
    checks = CheckOptions(accept=ACCEPTABLE)
    with pytest.raises(CaseError, match="mask and image must lie on the same grid") as caught:
        read_case(files[0], LABEL_MAP, checks)
    assert caught.value.code == "grid_mismatch"


@pytest.mark.parametrize(
    ("folder", "digit", "message"),
    [("masks", 4, r"4 \(1 voxels\)"), ("labels", 7, r"7 \(1 voxels\)")],
)
def test_an_unknown_id_is_refused(folders, folder, digit, message):
    scale = 10 if folder == "labels" else 1
    array = drawn("110", "022") * scale
    array[0, 0, 2] = digit
    write_label(folders / folder, "a", array)
    with pytest.raises(CaseError, match=message) as caught:
        read_case(pair_files(folders / "masks", folders / "labels")[0], LABEL_MAP)
    assert caught.value.code == "label_ids_unknown"


def test_a_label_without_organs_is_refused_unless_accepted(folders):
    write_label(folders / "labels", "a", drawn("000", "000"))
    files = pair_files(folders / "masks", folders / "labels")[0]
    with pytest.raises(CaseError, match="must show an organ") as caught:
        read_case(files, LABEL_MAP)
    assert caught.value.code == "label_empty"
    read_case(files, LABEL_MAP, CheckOptions(accept=("label_empty",)))


# -- references: which labels are the same


def test_labels_are_told_apart_by_their_classes_not_by_their_files(folders):
    (folders / "labels/b.nii.gz").unlink()
    for name, digit in (("liver", 1), ("spleen", 2), ("pancreas", 3)):
        write_label(folders / "labels/b", name, np.uint8(drawn("110", "022") == digit))
    a, b = (read_case(f, LABEL_MAP) for f in pair_files(folders / "masks", folders / "labels"))
    np.testing.assert_array_equal(a.reference.array, b.reference.array)
    assert a.label_sha256 == b.label_sha256
    write_label(folders / "labels", "a", drawn("110", "002") * 10)
    changed = read_case(pair_files(folders / "masks", folders / "labels")[0], LABEL_MAP)
    assert changed.label_sha256 != a.label_sha256


# -- names of classes

TABLE = workbench_table(("background", "spleen", "liver", "pancreas"))  # not the label map's order


def name_inside(folder):
    mask = read_label(folder / "masks/a.nii.gz")
    write_mask(mask.array, folder / "masks/a.nii.gz", like=mask, label_table=TABLE)


def name_in_json(folder):
    volumes_ml = {"spleen": 1.0, "liver": 2.0, "pancreas": 0.0}
    (folder / "masks/a.json").write_text(json.dumps({"volumes_ml": volumes_ml}))


def name_in_snap(folder):
    lines = ["# IDX -R- -G- -B- -A-- VIS MSH LABEL", '    0 0 0 0 0 0 0 "Clear Label"']
    names = ("spleen", "liver", "pancreas")
    lines += [f'    {index} 9 9 9 1 1 1 "{name}"' for index, name in enumerate(names, start=1)]
    (folder / "masks/organs.label").write_text("\n".join(lines) + "\n")


def name_differently_beside(folder):
    """What is inside counts, whatever lies beside the mask."""
    (folder / "masks/a.json").write_text(json.dumps({"volumes_ml": {"lung": 1.0}}))
    name_inside(folder)


@pytest.mark.parametrize("name", [name_inside, name_in_json, name_in_snap, name_differently_beside])
def test_ids_of_a_mask_mean_the_classes_that_it_names(folders, name):
    write_label(folders / "masks", "a", drawn("220", "011"))
    name(folders)
    case = read_case(pair_files(folders / "masks", folders / "labels")[0], LABEL_MAP)
    np.testing.assert_array_equal(case.mask.array, drawn("110", "022"))


@pytest.mark.parametrize("name", [name_in_json, name_in_snap])
def test_names_beside_a_mask_in_an_object_store_count_too(folders, objects, name):
    write_label(folders / "masks", "a", drawn("220", "011"))
    name(folders)
    for path in folders.rglob("*.*"):
        objects[f"memory://hospital/{path.relative_to(folders)}"] = path.read_bytes()
    files = pair_files("memory://hospital/masks", "memory://hospital/labels")[0]
    np.testing.assert_array_equal(read_case(files, LABEL_MAP).mask.array, drawn("110", "022"))
    objects["memory://hospital/labels/a.nii.gz"] = b"junk"
    with pytest.raises(CaseError, match="memory://hospital/labels/a.nii.gz") as caught:
        read_case(files, LABEL_MAP)
    assert caught.value.file == "memory://hospital/labels/a.nii.gz"


@pytest.mark.parametrize("names", [("liver", "lung", "pancreas"), ("liver", "spleen")])
def test_a_mask_of_other_organs_is_refused(folders, names):
    (folders / "masks/a.json").write_text(json.dumps({"volumes_ml": dict.fromkeys(names, 1.0)}))
    message = f"got {', '.join(names)} in the mask and liver, spleen, pancreas in the label map"
    with pytest.raises(CaseError, match=message) as caught:
        read_case(pair_files(folders / "masks", folders / "labels")[0], LABEL_MAP)
    assert caught.value.code == "class_names_differ"


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"volumes_ml": {}}', "\xff"])
def test_other_files_beside_a_mask_name_nothing(folders, content):
    (folders / "masks/a.json").write_bytes(content.encode("latin1"))
    (folders / "masks/organs.label").write_bytes(b"\x00 # not 'a label")
    case = read_case(pair_files(folders / "masks", folders / "labels")[0], LABEL_MAP)
    np.testing.assert_array_equal(case.mask.array, drawn("110", "022"))


# Pictures. A marker at the patient's right, anterior, superior corner must come out at the top left
# of each plane, except that the sagittal plane has anterior on the left.
@pytest.mark.parametrize("view", VIEWS, ids=lambda view: view.name)
def test_slices_are_the_right_way_up(view):
    array = np.zeros((3, 4, 5), dtype=np.uint8)
    array[-1, -1, -1] = 1
    cut = view.cut(Volume(array, np.eye(4)), np.array([2, 3, 4]))
    assert cut[0, 0] == 1
    assert cut.sum() == 1


def test_views_have_their_size_in_mm():
    volume = Volume(np.zeros((10, 20, 40), dtype=np.uint8), AFFINE)  # 30 x 40 x 40 mm
    assert {view.name: view.size_mm(volume) for view in VIEWS} == {
        "axial": (40.0, 40.0),
        "coronal": (30.0, 40.0),
        "sagittal": (30.0, 40.0),
    }


def test_middle_is_the_centre_of_the_labels():
    reference = np.zeros((9, 9, 9), dtype=np.uint8)
    assert middle_of(Volume(reference, np.eye(4))).tolist() == [4, 4, 4]
    reference[1:4, 5:8, 7] = 1
    assert middle_of(Volume(reference, np.eye(4))).tolist() == [2, 6, 7]


def test_pictures_show_the_slices_with_most_wrong_voxels():
    reference = np.zeros((5, 6, 7), dtype=np.uint8)
    reference[1:3, 1:3, 1:3] = 1
    mask = reference.copy()
    mask[4, 5, 2:6] = 1
    volumes = [Volume(part, np.eye(4)) for part in (reference, mask)]
    assert worst_place(*volumes).tolist() == [4, 5, 2]
    assert worst_place(volumes[0], volumes[0]).tolist() == middle_of(volumes[0]).tolist()


def case_with_liver_on_the_right(orientation_affine=None, *, image=True):
    reference = np.zeros((24, 30, 40), dtype=np.uint8)
    reference[4:20, 8:22, 24:34] = 1  # x grows to the right
    reference[8:16, 10:20, 6:12] = 2
    canonical = Volume(reference, AFFINE)
    if orientation_affine is not None:
        like = Volume(reference, orientation_affine)
        canonical = Volume(from_canonical(reference, like), orientation_affine)
    hu = canonical.with_array(np.where(canonical.array > 0, 100, -100).astype(np.int16))
    return CaseVolumes("case_1", reference=canonical, mask=canonical, image=hu if image else None)


def pixels(case):
    figure = draw_case(case, case.scores(TOLERANCES_MM))
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    axial = figure.axes[0].get_window_extent()
    rgb = np.asarray(canvas.buffer_rgba())[..., :3] / 255
    height = rgb.shape[0]
    panel = rgb[height - int(axial.y1) : height - int(axial.y0), int(axial.x0) : int(axial.x1)]
    return figure, panel


def columns_of_colour(panel, colour):
    return np.flatnonzero((np.abs(panel - to_rgb(colour)).max(axis=-1) < 0.05).any(axis=0))


@pytest.mark.parametrize("image", [True, False])
def test_the_patients_right_is_on_the_left_of_the_picture(image):
    figure, panel = pixels(case_with_liver_on_the_right(image=image))
    width = panel.shape[1]
    liver, spleen = (columns_of_colour(panel, organ_colour(index)) for index in (1, 2))
    # x = 24..33 of 40 is seen from the other side: 6..15 of 40; the outline is wide.
    assert abs(liver.min() / width - 6 / 40) < 0.03
    assert abs(liver.max() / width - 16 / 40) < 0.03
    assert abs(spleen.max() / width - 34 / 40) < 0.03
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts == ["reference", "mask", "liver 1.00", "spleen 1.00", "pancreas"]


def test_orientation_of_the_file_does_not_show():
    lps = np.diag([-1.0, -2.0, 3.0, 1.0])
    _, straight = pixels(case_with_liver_on_the_right())
    turned_case = case_with_liver_on_the_right(lps)
    assert turned_case.reference.orientation == "LPS"
    np.testing.assert_array_equal(
        to_canonical(turned_case.reference).array, case_with_liver_on_the_right().reference.array
    )
    _, turned = pixels(turned_case)
    np.testing.assert_array_equal(straight, turned)


def test_picture_of_an_empty_case_is_drawn(tmp_path):
    nothing = Volume(np.zeros((3, 4, 5), dtype=np.uint8), AFFINE)
    case = CaseVolumes("none", reference=nothing, mask=nothing)
    write_picture(case, tmp_path / "none.png", case.scores(TOLERANCES_MM))
    assert (tmp_path / "none.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("shape", [(1, 20, 30), (10, 1, 30), (10, 20, 1), (2, 20, 30)])
def test_picture_of_a_thin_volume_is_drawn(tmp_path, shape):
    organ = Volume(np.zeros(shape, dtype=np.uint8), AFFINE)
    organ.array[: shape[0] // 2 + 1, : shape[1] // 2 + 1, : shape[2] // 2 + 1] = 1
    case = CaseVolumes("thin", reference=organ, mask=organ)
    write_picture(case, tmp_path / "thin.png", case.scores(TOLERANCES_MM))
    assert (tmp_path / "thin.png").read_bytes().startswith(b"\x89PNG")


def test_organs_of_the_paper_have_colours_of_their_own():
    assert len({organ_colour(index) for index in range(1, 8)}) == 7
    assert organ_colour(1) == organ_colour(15)  # the palette has 14
