"""The files in formats of DICOM that a mask of DICOM images is written to."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fcnseg.extras import require_extra
from fcnseg.volumes.formats.dicom.rtstruct import check_rtstruct_source, write_rtstruct
from fcnseg.volumes.formats.dicom.seg_writing import check_seg_source, write_dicom_seg
from fcnseg.volumes.formats.dicom.segments import Segment
from fcnseg.volumes.formats.dicom.source import DicomSource, read_dicom_source


@dataclasses.dataclass(frozen=True)
class DicomOutputs:
    """The files in formats of DICOM that a mask is written to, on any file system.

    Attributes:
        seg: The DICOM Segmentation; None if there is none.
        rtstruct: The RT Structure Set; None if there is none.
    """

    seg: str | os.PathLike[str] | None = None
    rtstruct: str | os.PathLike[str] | None = None

    @property
    def paths(self) -> list[str | os.PathLike[str]]:
        """The files."""
        return [path for path in (self.seg, self.rtstruct) if path is not None]

    def check_packages(self) -> None:
        """Checks that the packages that write the files are installed.

        Raises:
            MissingExtraError: If one is not.
        """
        for package in ["highdicom"] * bool(self.paths) + ["contourpy"] * bool(self.rtstruct):
            require_extra(package)

    def read_source(
        self, image: str | Path, *, series_uid: str | None = None
    ) -> DicomSource | None:
        """Reads the headers of the images to which the files refer; None if there are no files.

        Args:
            image: A folder of DICOM slices, or a multi-frame DICOM file, on this machine.
            series_uid: The series of the folder; by default that with the most slices.

        Raises:
            InputError: If it is no DICOM series, or such that the files cannot refer to it.
            GeometryError: If its slices are not one stack.
        """
        if not self.paths:
            return None
        source = read_dicom_source(image, series_uid=series_uid)
        if self.seg is not None:
            check_seg_source(source)
        if self.rtstruct is not None:
            check_rtstruct_source(source)
        return source

    def write(
        self,
        mask: npt.NDArray[np.integer],
        *,
        source: DicomSource,
        segments: Sequence[Segment],
        made_with: Mapping[str, Any],
    ) -> None:
        """Writes the files; see `write_dicom_seg` and `write_rtstruct`."""
        if self.seg is not None:
            write_dicom_seg(mask, self.seg, source=source, segments=segments, made_with=made_with)
        if self.rtstruct is not None:
            write_rtstruct(
                mask, self.rtstruct, source=source, segments=segments, made_with=made_with
            )
