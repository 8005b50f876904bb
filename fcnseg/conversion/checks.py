"""What a case must be to become a record, and how much the user lets through."""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

from fcnseg.codes import ACCEPTABLE
from fcnseg.errors import InputError

OnMismatch = Literal["reject", "resample_label", "trust_image"]


@dataclasses.dataclass(frozen=True)
class CheckOptions:
    """What is let through.

    Attributes:
        geometry_tolerance_mm: How far a corner of the label may lie from the image's; the default
            is more than the float noise of headers moves the corner of any scan.
        on_mismatch: What becomes of a label that lies on another grid: `reject` the case;
            `resample_label`, which brings it to the image's grid by where both lie in the patient;
            or `trust_image`, a label of the same shape and direction takes the image's place.
        max_case_voxels: The most voxels an image may have: of more the header tells, and nothing
            is read. The default is 2 GiB of HU, above any scan of 512 x 512 x 4000.
        accept: Codes, of `ACCEPTABLE`, that are recorded as warnings and reject no case.
    """

    geometry_tolerance_mm: float = 0.01
    on_mismatch: OnMismatch = "reject"
    max_case_voxels: int = 2**30
    accept: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.geometry_tolerance_mm < math.inf:
            raise InputError(
                f"geometry_tolerance_mm must be 0 or more, got {self.geometry_tolerance_mm}"
            )
        if self.max_case_voxels < 1:
            raise InputError(f"max_case_voxels must be positive, got {self.max_case_voxels}")
        unknown = sorted(set(self.accept).difference(ACCEPTABLE))
        if unknown:
            raise InputError(f"accept must be of {', '.join(ACCEPTABLE)}, got {', '.join(unknown)}")
