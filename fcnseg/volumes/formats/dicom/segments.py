"""Segments of DICOM objects made from a mask, and the algorithm that made them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from fcnseg import __version__
from fcnseg.extras import require_extra
from fcnseg.volumes.formats.dicom.organ_codes import SCHEME, OrganCode, SnomedCode, organ_code

ALGORITHM = "fcnseg"
"""Name of the algorithm, and of the manufacturer of the objects."""

CHARACTER_SET = "ISO_IR 192"
"""UTF-8, which has the characters of all patients' and organs' names."""

_MOST_LABEL = 64  # characters of a label, by its value representation LO


@dataclasses.dataclass(frozen=True)
class Segment:
    """A class of a mask.

    Attributes:
        number: Its class index, from 1.
        name: Its class name.
        rgb: Colour for display: red, green and blue from 0 to 255.
    """

    number: int
    name: str
    rgb: tuple[int, int, int]

    @property
    def label(self) -> str:
        """The name as DICOM may have it: on one line, without backslash, of 64 characters."""
        return " ".join(self.name.replace("\\", "/").split())[:_MOST_LABEL]

    @property
    def code(self) -> OrganCode:
        """Its codes by its name."""
        return organ_code(self.name)


def algorithm_identification(made_with: Mapping[str, Any]) -> Any:
    """Makes highdicom's description of the algorithm.

    Args:
        made_with: Provenance of the mask, stored as JSON in AlgorithmParameters.
    """
    highdicom = require_extra("highdicom")
    codes = require_extra("pydicom.sr.codedict").codes
    return highdicom.AlgorithmIdentificationSequence(
        name=ALGORITHM,
        version=__version__,
        family=codes.DCM.ArtificialIntelligence,
        source=ALGORITHM,
        parameters={"made_with": json.dumps(made_with, separators=(",", ":"))},
    )


def coded(code: SnomedCode) -> Any:
    """Makes highdicom's item of a code."""
    return require_extra("highdicom.sr").CodedConcept(code.value, SCHEME, code.meaning)
