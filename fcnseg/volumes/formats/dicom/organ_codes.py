"""SNOMED CT codes of organs by name, for segments and regions of interest in DICOM."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence

SCHEME = "SCT"
"""Designator of SNOMED CT in DICOM."""


@dataclasses.dataclass(frozen=True)
class SnomedCode:
    """A concept of SNOMED CT.

    Attributes:
        value: Its code.
        meaning: Its name in DICOM, 64 characters at most.
    """

    value: str
    meaning: str


@dataclasses.dataclass(frozen=True)
class OrganCode:
    """The codes that describe an organ.

    Attributes:
        category: Category of the segmented property, of CID 7150.
        kind: The segmented property: the organ, or the finding in it.
        side: Left or right, if the name says which.
        region: Organ in which a finding lies, if the name says which.
    """

    category: SnomedCode
    kind: SnomedCode
    side: SnomedCode | None = None
    region: SnomedCode | None = None

    @property
    def is_organ(self) -> bool:
        """True if the name is one of normal anatomy, False for findings and unknown names."""
        return self.category is ANATOMY


# The codes and meanings are those of DICOM's context groups, as pydicom.sr.codedict has them: a
# test compares each.
ANATOMY = SnomedCode("91723000", "Anatomical Structure")
ABNORMAL = SnomedCode("49755003", "Morphologically Abnormal Structure")
TISSUE = SnomedCode("85756007", "Tissue")
"""Category and kind of an unknown name: true of all that is segmented in a patient."""

_SIDES = {
    **dict.fromkeys(("left", "l"), SnomedCode("7771000", "Left")),
    **dict.fromkeys(("right", "r"), SnomedCode("24028007", "Right")),
}
_ORGANS = {
    "abdominal aorta": SnomedCode("7832008", "Abdominal aorta"),
    "adrenal gland": SnomedCode("23451007", "Adrenal gland"),
    "aorta": SnomedCode("15825003", "Aorta"),
    "artery": SnomedCode("51114001", "Artery"),
    "bone": SnomedCode("272673000", "Bone"),
    "celiac artery": SnomedCode("57850000", "Celiac Axis"),
    "colon": SnomedCode("71854001", "Colon"),
    "common bile duct": SnomedCode("79741001", "Common bile duct"),
    "duodenum": SnomedCode("38848004", "Duodenum"),
    "esophagus": SnomedCode("32849002", "Esophagus"),
    "femur": SnomedCode("71341001", "Femur"),
    "gallbladder": SnomedCode("28231008", "Gallbladder"),
    "heart": SnomedCode("80891009", "Heart"),
    "hepatic artery": SnomedCode("76015000", "Hepatic artery"),
    "hepatic vein": SnomedCode("8993003", "Hepatic vein"),
    "inferior vena cava": SnomedCode("64131007", "Inferior vena cava"),
    "kidney": SnomedCode("64033007", "Kidney"),
    "large intestine": SnomedCode("14742008", "Large intestine"),
    "liver": SnomedCode("10200004", "Liver"),
    "lung": SnomedCode("39607008", "Lung"),
    "lymph node": SnomedCode("59441001", "Lymph Node"),
    "pancreas": SnomedCode("15776009", "Pancreas"),
    "portal vein": SnomedCode("32764006", "Portal vein"),
    "prostate": SnomedCode("41216001", "Prostate"),
    "rectum": SnomedCode("34402009", "Rectum"),
    "renal artery": SnomedCode("2841007", "Renal artery"),
    "renal vein": SnomedCode("56400007", "Renal vein"),
    "small intestine": SnomedCode("30315005", "Small intestine"),
    "spinal cord": SnomedCode("2748008", "Spinal cord"),
    "spleen": SnomedCode("78961009", "Spleen"),
    "splenic artery": SnomedCode("22083002", "Splenic artery"),
    "splenic vein": SnomedCode("35819009", "Splenic vein"),
    "stomach": SnomedCode("69695003", "Stomach"),
    "superior mesenteric artery": SnomedCode("42258001", "Superior mesenteric artery"),
    "superior mesenteric vein": SnomedCode("90771006", "Superior Mesenteric Vein"),
    "trachea": SnomedCode("44567001", "Trachea"),
    "ureter": SnomedCode("87953007", "Ureter"),
    "urinary bladder": SnomedCode("89837001", "Bladder"),
    "uterus": SnomedCode("35039007", "Uterus"),
    "vein": SnomedCode("29092000", "Vein"),
    "vertebra": SnomedCode("51282000", "Vertebra"),
}
# Names in public datasets: AMOS, BTCV, FLARE, Medical Segmentation Decathlon, TotalSegmentator.
_SYNONYMS = {
    "adrenal": "adrenal gland",
    "arteries": "artery",
    "bile duct": "common bile duct",
    "bladder": "urinary bladder",
    "celiac trunk": "celiac artery",
    "gall bladder": "gallbladder",
    "hepatic vessel": "hepatic vein",
    "ivc": "inferior vena cava",
    "large bowel": "large intestine",
    "oesophagus": "esophagus",
    "portal splenic vein": "vein",  # two vessels in one class
    "portal vein and splenic vein": "vein",
    "postcava": "inferior vena cava",
    "small bowel": "small intestine",
    "vertebrae": "vertebra",
}
_FINDINGS = {
    "cyst": SnomedCode("367643001", "Cyst"),
    "lesion": SnomedCode("52988006", "Lesion"),
    "mass": SnomedCode("4147007", "Mass"),
    "neoplasm": SnomedCode("108369006", "Neoplasm"),
    "tumor": SnomedCode("108369006", "Neoplasm"),
    "tumour": SnomedCode("108369006", "Neoplasm"),
}


def organ_code(name: str) -> OrganCode:
    """Gives the codes of an organ by its name, in any case and with any separators.

    Args:
        name: English name such as `left kidney`, `kidney_left` or `liver tumor`.

    Returns:
        Its codes; those of tissue for an unknown name.

    >>> organ_code("Kidney_left").kind.meaning, organ_code("Kidney_left").side.meaning
    ('Kidney', 'Left')
    >>> organ_code("class 7").kind.meaning
    'Tissue'
    """
    words = re.findall(r"[^\W_]+", name.lower())
    side = next((_SIDES[word] for word in words if word in _SIDES), None)
    words = [word for word in words if word not in _SIDES]
    for index, word in enumerate(words):
        finding = _find(_FINDINGS, [word])
        if finding is not None:
            region = _find(_ORGANS, [*words[:index], *words[index + 1 :]])
            return OrganCode(ABNORMAL, finding, side, region)
    organ = _find(_ORGANS, words)
    if organ is None:
        return OrganCode(TISSUE, TISSUE)
    return OrganCode(ANATOMY, organ, side)


def _find(table: dict[str, SnomedCode], words: Sequence[str]) -> SnomedCode | None:
    """Finds the code of a name, in the singular or with an s at its end."""
    phrase = " ".join(words)
    for one in (phrase, phrase.removesuffix("s")):
        code = table.get(_SYNONYMS.get(one, one))
        if code is not None:
            return code
    return None
