"""What is told about a volume that may be no CT."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import get_args

import nibabel as nib
import numpy as np
import pytest
from dicom_series import make_slices
from dicom_series import write as write_series
from malformed import CT
from small_cases import AFFINE, SPACING_MM

from fcnseg.codes import (
    ACCEPTABLE,
    CODES,
    COMMANDS,
    WARNINGS,
    RejectCode,
    WarningCode,
    commands_of,
)
from fcnseg.conversion.cases import Case
from fcnseg.conversion.check_options import CheckOptions
from fcnseg.conversion.plausibility import find_in_geometry, find_in_hu, without_padding
from fcnseg.conversion.preprocessing import Preprocessing
from fcnseg.volumes import AIR_HU, Geometry, LabelMap, Volume, read_ct, write_volume

ROOT = Path(__file__).parent.parent
LABEL_MAP = LabelMap({"background": (0,), "liver": (1,)})


def codes_of(findings) -> set[str]:
    return {finding.code for finding in findings}


# -- the grid: (z, y, x) voxels, spacing in mm, what is found

GRIDS = {
    "an abdomen": ((200, 512, 512), (2.0, 0.8, 0.8), set()),
    "a slab of three slices": ((3, 512, 512), (1.0, 0.81, 0.81), set()),
    "one slice": ((1, 512, 512), (5.0, 0.81, 0.81), set()),
    "a whole body": ((1900, 512, 512), (1.0, 0.98, 0.98), set()),
    "a child": ((90, 512, 512), (1.0, 0.25, 0.25), set()),
    "the finest voxels": ((500, 512, 512), (0.2, 0.2, 0.2), set()),
    "slices of 10 mm": ((34, 128, 128), (10.0 + 1e-9, 3.05, 3.05), {"thick_slices"}),
    "slices of 5 mm": ((34, 512, 512), (5.0, 0.8, 0.8), set()),
    "slices along y": ((400, 60, 400), (1.0, 5.0, 1.0), {"not_axial"}),
    "micrometres": ((200, 512, 512), (2000, 800, 800), {"spacing_implausible", "thick_slices"}),
    "centimetres": ((200, 512, 512), (0.2, 0.08, 0.08), {"spacing_implausible"}),
    "voxels without unit": ((30, 60, 60), (1.0, 1.0, 1.0), {"field_of_view_implausible"}),
}


@pytest.mark.parametrize("name", GRIDS)
def test_grids_that_no_scanner_makes_are_told(name):
    shape, spacing, wanted = GRIDS[name]
    found = codes_of(find_in_geometry(Geometry(shape, np.diag([*spacing[::-1], 1.0]))))
    size = {"field_of_view_implausible"} if "spacing_implausible" in wanted else set()
    assert wanted <= found <= wanted | size  # another unit makes another size


@pytest.mark.parametrize(
    ("degrees", "wanted"), [(0, set()), (14, set()), (16, {"oblique"}), (44, {"oblique"})]
)
def test_a_grid_askew_in_the_patient_is_told(degrees, wanted):
    turned = nib.affines.from_matvec(nib.eulerangles.euler2mat(x=np.radians(degrees)))
    geometry = Geometry((200, 512, 512), turned @ np.diag([0.8, 0.8, 2.0, 1]))
    assert codes_of(find_in_geometry(geometry)) == wanted


@pytest.mark.parametrize(("degrees", "wanted"), [(0.1, set()), (5, {"sheared_grid"})])
def test_a_sheared_grid_is_told_and_rounding_is_not(degrees, wanted):
    affine = np.diag([0.8, 0.8, 2.0, 1])
    affine[1, 2] = 2 * np.tan(np.radians(degrees))
    assert codes_of(find_in_geometry(Geometry((200, 512, 512), affine))) == wanted


# -- HU


def body(*, air=-1000, fat=-90, tissue=50, noise=20, shape=(40, 80, 80)) -> np.ndarray:
    """An ellipse of tissue in fat in air, with noise."""
    _, y, x = np.indices(shape)
    radius = np.hypot((y - 40) / 38, (x - 40) / 38)
    hu = np.select([radius < 0.7, radius < 0.9], [tissue, fat], air)
    noisy = hu + np.random.default_rng(0).normal(0, noise, shape)
    return np.rint(noisy).astype(np.int16)


def circle(hu: np.ndarray, value: int) -> np.ndarray:
    """What lies outside of the field of view has a value of its own."""
    _, y, x = np.indices(hu.shape)
    return np.where(np.hypot(y - 40, x - 40) < 40, hu, np.int16(value))


IMAGES = {
    "a body": (body(), set()),
    "much noise": (body(noise=150), set()),
    "cut off at -1024": (np.maximum(body(noise=60), -1024), set()),
    "a crop without air": (body()[:, 15:65, 15:65], set()),
    "padded": (circle(body(), -3024), {"padding"}),
    "padded by little": (circle(body(), -1050), set()),
    "constant": (np.full((9, 9, 9), -1024, np.int16), {"constant_image"}),
    "0 and 1": (np.uint8(body() > 0).astype(np.int16), {"scaled_image"}),
    "percent": (np.int16((body() + 1000) / 20), {"scaled_image"}),
    "8 bit": (np.clip(body() + 130, 0, 255).astype(np.int16), {"windowed_image"}),
    "stored as unsigned": (np.maximum(body() + np.int16(1024), 0), {"missing_rescale"}),
    "stored beside padding": (
        circle(np.maximum(body() + np.int16(1024), 0), -2000),
        {"missing_rescale", "padding"},
    ),
    "stored beside air": (
        circle(np.maximum(body() + np.int16(1024), 0), -1000),
        {"missing_rescale"},
    ),
    "a negative slope": (-body(), {"missing_rescale"}),
    "much metal": (np.where(np.indices((40, 80, 80))[2] < 16, np.int16(3071), body()), set()),
    "rescaled twice": (np.maximum(body() - np.int16(1024), -1400), {"no_tissue"}),
    "air alone": (body(fat=-1000, tissue=-1000), {"no_tissue"}),
}


@pytest.mark.parametrize("name", IMAGES)
def test_values_that_are_no_hu_are_told(name):
    hu, wanted = IMAGES[name]
    assert codes_of(find_in_hu(hu)) == wanted


LABELS = {  # what a label as image is asked
    "organs": (np.uint8(body() > 0) * np.int16(7), "values are 0 to 7: .* scaled or swapped with"),
    "ids above 100": (np.uint8(body() > 0) * np.int16(117), "0 to 117, .* swapped with its label"),
    "ids above 255": (np.uint8(body() > 0) * np.int16(1024), "0 to 1024, .* swapped with its lab"),
    "8 bit": (IMAGES["8 bit"][0], "0 to 255: an image of 8 bit, made for the eye, has no HU$"),
    "percent": (IMAGES["percent"][0], "was it scaled[?]$"),
    "standardised": (np.int16(body() / 300), "was it scaled[?]$"),
}


@pytest.mark.parametrize("name", LABELS)
def test_a_label_in_the_place_of_an_image_is_asked_for(name):
    hu, wanted = LABELS[name]
    (finding,) = find_in_hu(hu)
    assert re.search(wanted, finding.reason)


def test_a_large_volume_is_judged_like_a_small_one():
    large = np.tile(circle(body(), -3024), (4, 4, 4))  # sixteen times what is looked at
    assert codes_of(find_in_hu(large)) == {"padding"}
    assert codes_of(find_in_hu(np.maximum(large + np.int16(1024), 0))) == {"missing_rescale"}


@pytest.mark.parametrize("writeable", [True, False])
def test_padding_becomes_air(writeable):
    hu = circle(body(), -3024)
    wanted = np.maximum(hu, AIR_HU)
    hu.flags.writeable = writeable
    clipped = without_padding(Volume(hu, np.eye(4))).array
    np.testing.assert_array_equal(clipped, wanted)
    assert clipped.dtype == np.int16
    assert np.shares_memory(clipped, hu) == writeable  # no second copy of a volume


# -- the case


def test_the_detail_tells_how_to_accept_and_what_else_is_odd(tmp_path):
    write_volume(Volume(np.zeros((12, 14, 16), np.int16), AFFINE / 1000), tmp_path / "ct.nii")
    case = Case("a", f"{tmp_path}/ct.nii", None, "a")
    checks = CheckOptions(accept=("spacing_implausible",))
    with pytest.raises(Exception, match="80 to 1000 mm wide") as caught:
        Preprocessing(LABEL_MAP, SPACING_MM, checks).convert(case)
    assert caught.value.code == "field_of_view_implausible"
    assert caught.value.detail == (
        "--accept field_of_view_implausible lets such cases pass; "
        "also: voxels must differ, but all are 0 HU or padding [constant_image]"
    )


def test_the_series_that_is_asked_for_is_converted(tmp_path):
    for uid, hu in (("1.2.3.5", CT), ("1.2.3.8", CT[2:])):
        write_series(make_slices(hu, series_uid=uid, spacing=SPACING_MM), tmp_path / "series")
    case = Case("a", f"{tmp_path}/series", None, "a")
    preprocessing = Preprocessing(LABEL_MAP, SPACING_MM)
    largest = preprocessing.convert(case)
    assert largest.record.shape == (12, 14, 16)
    assert "dicom_series_chosen" in {warning.code for warning in largest.warnings}
    asked = dataclasses.replace(case, series_uid="1.2.3.8")
    assert preprocessing.inspect(asked).shape == preprocessing.convert(asked).record.shape
    assert preprocessing.inspect(asked).shape == (10, 14, 16)


# -- real scans


REAL = {
    "abdomen_ct_sm/ct.nii.gz": set(),
    "ct_3slice_dicom/ct": set(),
    "lung_ct_mha/3DCT_lung_baseline_small.mha": set(),
    "chest_ct_nrrd/CTChest4.nrrd": {"padding", "thick_slices"},
    # Blanked to the values 0 and 1, and as wide as a thumb: no CT, which may be accepted.
    "enhanced_multiframe_ct/image": {"field_of_view_implausible", "scaled_image"},
    "enhanced_multiframe_ct/multiframe/mf.dcm": {"field_of_view_implausible", "scaled_image"},
}


@pytest.mark.real_data
@pytest.mark.parametrize("name", REAL)
def test_real_scans_pass(real_data, name):
    volume = read_ct(real_data / name)
    found = [*find_in_geometry(volume.geometry), *find_in_hu(volume.array)]
    assert codes_of(found) == REAL[name]


# -- the page


def test_the_types_list_each_code():
    assert get_args(RejectCode) == tuple(CODES)
    assert get_args(WarningCode) == tuple(WARNINGS)
    assert not CODES.keys() & WARNINGS.keys()


def test_the_page_tells_of_each_code_what_the_tables_tell():
    page = (ROOT / "docs/checks.md").read_text()
    rows = re.findall(r"^\| `(\w+)`(\*?) \| (.+) \| (.+) \| (.+) \|$", page, re.MULTILINE)
    assert {code: meaning for code, _, _, meaning, _ in rows} == CODES | WARNINGS
    assert len(rows) == len(CODES) + len(WARNINGS)
    assert {code for code, star, _, _, _ in rows if star} == set(ACCEPTABLE)
    by_code = {
        code: COMMANDS if by == "all" else tuple(by.split(", ")) for code, _, by, _, _ in rows
    }
    assert by_code == {code: commands_of(code) for code in by_code}
