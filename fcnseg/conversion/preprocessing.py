"""Conversion of one case from its files to its record."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from fcnseg.conversion.cases import Case
from fcnseg.conversion.check_options import CheckOptions
from fcnseg.conversion.foreground import count_classes, draw_coordinates
from fcnseg.conversion.gate import Gate
from fcnseg.conversion.labels import LabelReader, find_in_counts
from fcnseg.conversion.plausibility import SPACING_MM
from fcnseg.conversion.rejects import CaseWarning
from fcnseg.errors import GeometryError
from fcnseg.records import Record
from fcnseg.volumes import (
    Geometry,
    LabelMap,
    resample_image,
    resample_label,
    to_canonical,
)

# Below that of any CT, as if in cm or m; above, a few voxels, as if in micrometres.
_SPACING_MM = (SPACING_MM[0], 100.0)


@dataclasses.dataclass(frozen=True, eq=False)
class Converted:
    """Result of converting a case.

    Attributes:
        record: The case as training reads it.
        warnings: Oddities of the case.
    """

    record: Record
    warnings: tuple[CaseWarning, ...] = ()


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """Preprocessing, the same for every case.

    Attributes:
        label_map: Maps the ids in label files to classes.
        spacing_mm: Spacing (z, y, x) of the records, in canonical orientation.
        checks: Accepted implausible inputs, and tolerances.
    """

    label_map: LabelMap
    spacing_mm: tuple[float, float, float]
    checks: CheckOptions = CheckOptions()

    def __post_init__(self) -> None:
        low, high = _SPACING_MM
        if not all(low <= step <= high for step in self.spacing_mm):
            raise GeometryError(
                f"spacing_mm must be three positive numbers in mm, {low:g} to {high:g}, got"
                f" {self.spacing_mm}"
            )

    def record_bytes(self, geometry: Geometry) -> int:
        """Approximate size of a record, from its volume in mm3, whatever the order of its axes."""
        resampled = math.prod(geometry.spacing) / math.prod(self.spacing_mm)
        bytes_per_voxel = np.dtype(np.int16).itemsize + self.label_map.dtype.itemsize
        return math.ceil(math.prod(geometry.shape) * resampled * bytes_per_voxel)

    def inspect(self, case: Case) -> Geometry:
        """Reads the headers of a case and checks them.

        Returns:
            The grid of the image.

        Raises:
            CaseError: If a file is missing or its header unreadable or implausible, or image and
                label do not match.
        """
        image = self._gate.inspect(case.image, case_id=case.case_id, series_uid=case.series_uid)
        if case.label is not None:
            self._labels.inspect(case.label, image)
        return image

    def convert(self, case: Case) -> Converted:
        """Reads a case, checks it, reorients it to the canonical orientation and resamples it.

        Raises:
            CaseError: If a file is unreadable or implausible, or its label map does not fit.
        """
        source, warnings = self._gate.read(
            case.image, case_id=case.case_id, series_uid=case.series_uid
        )
        image = resample_image(to_canonical(source), self.spacing_mm)
        label = None
        counts = np.zeros((1, self.label_map.num_classes), dtype=np.int64)
        coordinates, drawn = np.empty((0, 3), dtype=np.int32), counts[0]
        if case.label is not None:
            classes, findings = self._labels.read(case.label, source.geometry)
            # The image's affine for both: float noise must not give the two different orientations.
            on_grid = to_canonical(source.with_array(classes))
            label = resample_label(on_grid, self.spacing_mm).array
            counts = count_classes(label, num_classes=self.label_map.num_classes)
            coordinates, drawn = draw_coordinates(label, counts, case_id=case.case_id)
            findings += find_in_counts(counts.sum(axis=0))
            warnings += self._gate.judge(findings, case_id=case.case_id, file=case.label)
        record = Record(
            case_id=case.case_id,
            patient_id=case.patient_id,
            image=image.array,
            label=label,
            affine=image.affine,
            spacing=image.spacing,
            source_shape=source.shape,
            source_affine=source.affine,
            class_histogram=counts.sum(axis=0),
            foreground_coordinates=coordinates,
            foreground_counts=drawn,
        )
        return Converted(record, tuple(warnings))

    @property
    def _gate(self) -> Gate:
        return Gate(self.checks)

    @property
    def _labels(self) -> LabelReader:
        return LabelReader(self.label_map, self.checks)
