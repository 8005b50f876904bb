"""The checks that a case must pass to become a record, and the tolerances that the user sets."""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

from fcnseg.codes import ACCEPTABLE
from fcnseg.errors import InputError

OnMismatch = Literal["reject", "resample_label", "trust_image"]


@dataclasses.dataclass(frozen=True)
class CheckOptions:
    """Implausible inputs that are accepted, and tolerances.

    Attributes:
        geometry_tolerance_mm: Largest distance of a corner of the label from the image's; the
            default exceeds the displacement by the float noise of headers in any scan.
        on_mismatch: Handling of a label that lies on another grid: `reject` the case;
            `resample_label` to the image's grid by the patient coordinates of both; or
            `trust_image`, which gives a label of the same shape and direction the position of the
            image.
        max_case_voxels: Maximum number of voxels of an image; a larger one is rejected by its
            header, unread. The default is 2 GiB of HU, above any scan of 512 x 512 x 4000.
        accept: Codes, of `ACCEPTABLE`, that become warnings and reject no case.
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
