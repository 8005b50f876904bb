"""Facts of a dataset for planning, from its manifest and fingerprint."""

from __future__ import annotations

import dataclasses
import math

from fcnseg.errors import DatasetError
from fcnseg.planning.spacing import median_shape, median_spacing, target_spacing
from fcnseg.records import DatasetInfo
from fcnseg.records.small_splits import find_small_splits
from fcnseg.volumes import Shape, Triple


@dataclasses.dataclass(frozen=True)
class PlanningFacts:
    """Facts of the training cases; the HU are of all cases, as in the fingerprint.

    Attributes:
        spacing_mm: Spacing (z, y, x) of the records.
        target_spacing_mm: Spacing (z, y, x) that suits the files.
        shape: Voxels (z, y, x) of the median record.
        source_spacing_mm: Median spacing (z, y, x) of the files.
        source_shape: Voxels (z, y, x) of the median file.
        cases: Number of training cases.
        voxels: Voxels of the training cases.
        hu_window: HU of the organs, all but 0.5 % at each end.
        organ_voxels: Number of voxels behind `hu_window`.
        small_splits: Remarks on splits with too few cases, and the ways out.
    """

    spacing_mm: Triple
    target_spacing_mm: Triple
    shape: Shape
    source_spacing_mm: Triple
    source_shape: Shape
    cases: int
    voxels: int
    hu_window: tuple[float, float]
    organ_voxels: int
    small_splits: tuple[str, ...]

    @classmethod
    def of(cls, info: DatasetInfo) -> PlanningFacts:
        """Gathers the facts.

        Raises:
            DatasetError: If the dataset has no labels, no fingerprint, or nothing to train on.
        """
        if not info.labelled:
            raise DatasetError("a plan needs labels, and the cases of the dataset have none")
        fingerprint = info.fingerprint
        if fingerprint is None:
            raise DatasetError("a plan needs the fingerprint of the dataset: convert it again")
        foreground = fingerprint.foreground_hu
        if foreground is None:
            raise DatasetError("a plan needs organs, and no case of the dataset has a voxel of one")
        cases = [case for case in fingerprint.cases if case.split == "train"]
        if not cases:
            raise DatasetError("a plan needs cases to train on, and the train split has none")
        low, high = foreground.quantiles.p00_5, foreground.quantiles.p99_5
        if low == high:
            raise DatasetError(f"the organs' HU must differ, and nearly all are {low:g}")
        return cls(
            spacing_mm=info.spacing_mm,
            target_spacing_mm=target_spacing(cases),
            shape=median_shape(case.shape for case in cases),
            source_spacing_mm=median_spacing(case.source_spacing_mm for case in cases),
            source_shape=median_shape(case.source_shape for case in cases),
            cases=len(cases),
            voxels=sum(math.prod(case.shape) for case in cases),
            hu_window=(low, high),
            organ_voxels=foreground.voxels,
            small_splits=tuple(find_small_splits(info).values()),
        )
