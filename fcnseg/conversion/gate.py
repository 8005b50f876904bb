"""The input checks that every scan passes, in the conversion and in each command that reads scans.

This module needs neither Beam nor TensorFlow if paths are local.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence

from fcnseg.codes import ACCEPTABLE, CODES, Finding, how_to_accept
from fcnseg.conversion.check_options import CheckOptions
from fcnseg.conversion.plausibility import find_in_geometry, find_in_hu, without_padding
from fcnseg.conversion.rejects import CaseError, CaseWarning, opened
from fcnseg.volumes import Geometry, Volume, read_ct, read_geometry


@dataclasses.dataclass(frozen=True)
class Gate:
    """Reads scans, and refuses those that cannot be a CT.

    Attributes:
        checks: Accepted implausible inputs, and tolerances.
    """

    checks: CheckOptions = CheckOptions()

    def inspect(self, image: str, *, case_id: str, series_uid: str | None = None) -> Geometry:
        """Reads the headers of a scan and checks them.

        Args:
            image: Path of a file or folder.
            case_id: Named in warnings.
            series_uid: The series to read; see `read_ct`.

        Returns:
            The grid.

        Raises:
            CaseError: If the scan is missing, unreadable, too large, or implausible.
        """
        with opened(image, header_only=True) as path:
            geometry = read_geometry(path, series_uid=series_uid)
        self._check_size(geometry, image)
        self.judge([*geometry.findings, *find_in_geometry(geometry)], case_id=case_id, file=image)
        return geometry

    def read(
        self, image: str, *, case_id: str, series_uid: str | None = None
    ) -> tuple[Volume, list[CaseWarning]]:
        """Reads a scan and checks it.

        Args:
            image: Path of a file or folder.
            case_id: Named in warnings.
            series_uid: The series to read; see `read_ct`.

        Returns:
            HU (z, y, x) without padding, and the oddities found in them.

        Raises:
            CaseError: If the scan is missing, unreadable, or implausible.
        """
        with opened(image) as path:
            volume = read_ct(path, series_uid=series_uid)
        return self.check(volume, case_id=case_id, file=image)

    def check(
        self, volume: Volume, *, case_id: str, file: str = ""
    ) -> tuple[Volume, list[CaseWarning]]:
        """Checks a scan that is in memory already; see `read`."""
        findings = [
            *volume.findings,
            *find_in_geometry(volume.geometry),
            *find_in_hu(volume.array),
        ]
        warnings = self.judge(findings, case_id=case_id, file=file)
        if any(finding.code == "padding" for finding in findings):
            volume = without_padding(volume)
        return volume, warnings

    def judge(self, findings: Iterable[Finding], *, case_id: str, file: str) -> list[CaseWarning]:
        """Refuses a case for the first finding that is not accepted, or warns of all.

        Args:
            findings: Findings in an image or a label.
            case_id: Named in warnings.
            file: The file to blame.

        Raises:
            CaseError: If a finding is a reject that is not accepted.
        """
        found = list(dict.fromkeys(findings))
        rejecting = [
            finding
            for finding in found
            if finding.code in CODES and finding.code not in self.checks.accept
        ]
        if rejecting:
            raise _refusal(rejecting, file)
        return [CaseWarning(case_id, finding.code, finding.reason, file) for finding in found]

    def _check_size(self, geometry: Geometry, file: str) -> None:
        if math.prod(geometry.shape) > self.checks.max_case_voxels:
            raise CaseError(
                "too_large",
                f"a case may have {self.checks.max_case_voxels} voxels, max_case_voxels, got"
                f" {math.prod(geometry.shape)}: {geometry.shape} (z, y, x)",
                file=file,
            )


def _refusal(rejecting: Sequence[Finding], file: str) -> CaseError:
    """The error for the first finding; its detail says how to accept it, and lists the others."""
    first, *others = rejecting
    details = [f"also: {other.reason} [{other.code}]" for other in others]
    if first.code in ACCEPTABLE:
        details.insert(0, how_to_accept(first.code))
    return CaseError(first.code, first.reason, file=file, detail="; ".join(details))
