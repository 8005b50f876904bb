"""Codes of organs are DICOM's own, and names are recognised however they are spelt."""

from __future__ import annotations

import pytest
from pydicom.sr._concepts_dict import concepts

from fcnseg.testing.phantom.anatomy import ORGANS
from fcnseg.volumes.formats.dicom.organ_codes import (
    _FINDINGS,
    _ORGANS,
    _SIDES,
    _SYNONYMS,
    ABNORMAL,
    ANATOMY,
    TISSUE,
    organ_code,
)

# Code values by meaning in the context groups of the standard, as pydicom has them.
STANDARD = {
    (value, meaning.lower())
    for by_value in concepts["SCT"].values()
    for value, (meaning, _) in by_value.items()
}


@pytest.mark.parametrize(
    "code",
    dict.fromkeys(
        [*_ORGANS.values(), *_FINDINGS.values(), *_SIDES.values(), ANATOMY, ABNORMAL, TISSUE]
    ),
    ids=lambda code: code.meaning,
)
def test_each_code_is_in_a_context_group_of_the_standard(code):
    assert (code.value, code.meaning.lower()) in STANDARD
    assert len(code.meaning) <= 64


def test_synonyms_are_of_organs():
    assert set(_SYNONYMS.values()) <= set(_ORGANS)
    assert not set(_SYNONYMS) & set(_ORGANS)


@pytest.mark.parametrize(
    ("name", "category", "kind", "side", "region"),
    [
        ("liver", "Anatomical Structure", "Liver", None, None),
        ("LIVER", "Anatomical Structure", "Liver", None, None),
        ("left kidney", "Anatomical Structure", "Kidney", "Left", None),
        ("kidney_right", "Anatomical Structure", "Kidney", "Right", None),
        ("Kidney (L)", "Anatomical Structure", "Kidney", "Left", None),
        ("kidneys", "Anatomical Structure", "Kidney", None, None),
        ("adrenal_gland_left", "Anatomical Structure", "Adrenal gland", "Left", None),
        ("pancreas", "Anatomical Structure", "Pancreas", None, None),
        ("oesophagus", "Anatomical Structure", "Esophagus", None, None),
        ("postcava", "Anatomical Structure", "Inferior vena cava", None, None),
        ("portal vein and splenic vein", "Anatomical Structure", "Vein", None, None),
        ("liver tumour", "Morphologically Abnormal Structure", "Neoplasm", None, "Liver"),
        ("cyst", "Morphologically Abnormal Structure", "Cyst", None, None),
        ("left kidney cyst", "Morphologically Abnormal Structure", "Cyst", "Left", "Kidney"),
        ("prostate/uterus", "Tissue", "Tissue", None, None),
        ("left gizmo", "Tissue", "Tissue", None, None),
        ("Größe", "Tissue", "Tissue", None, None),
        ("", "Tissue", "Tissue", None, None),
    ],
)
def test_names_of_public_datasets_have_codes(name, category, kind, side, region):
    code = organ_code(name)
    assert (code.category.meaning, code.kind.meaning) == (category, kind)
    assert (code.side and code.side.meaning) == side
    assert (code.region and code.region.meaning) == region
    assert code.is_organ == (category == "Anatomical Structure")


def test_organs_of_the_phantom_have_codes():
    assert all(organ_code(name).is_organ for name in ORGANS)
