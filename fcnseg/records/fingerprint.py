"""Statistics of the data of a dataset: the part of the manifest that is for people."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import pydantic

from fcnseg.codes import Code, Finding

_STD = pydantic.AliasChoices("std", "deviation")  # the second in manifests of earlier versions


@dataclasses.dataclass(frozen=True)
class Quantiles:
    """Quantiles of a number: at most `p05` in 5 % of the cases or voxels, and so on."""

    minimum: float
    p00_5: float
    p05: float
    p25: float
    median: float
    p75: float
    p95: float
    p99_5: float
    maximum: float


@dataclasses.dataclass(frozen=True)
class HuStatistics:
    """Exact statistics of the HU of many voxels of the records.

    Attributes:
        voxels: Number of voxels.
        mean: Mean in HU.
        std: Standard deviation in HU.
        quantiles: Quantiles in HU.
        bin_hu: Width of a bin of the histogram.
        first_hu: Lowest HU of the first bin.
        histogram: Voxels of each bin, from the first nonempty one to the last.
    """

    voxels: int
    mean: float
    std: Annotated[float, pydantic.Field(validation_alias=_STD)]
    quantiles: Quantiles
    bin_hu: int
    first_hu: int
    histogram: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class ClassStatistics:
    """Statistics of one class.

    Attributes:
        name: Name of the class.
        cases: Number of cases with a voxel of it.
        voxels: Its voxels in all records.
        volume_ml: Volume in the cases that have it; None if none does.
    """

    name: str
    cases: int
    voxels: int
    volume_ml: Quantiles | None


@dataclasses.dataclass(frozen=True)
class CaseFacts:
    """Facts of one case.

    Attributes:
        case_id: Name of the case.
        split: One of `SPLITS`.
        orientation: Orientation of the file, the directions of increasing i, j and k, as in `LPS`.
        source_spacing_mm: Spacing (z, y, x) of the file, in canonical orientation.
        source_shape: Voxels (z, y, x) of the file, in canonical orientation.
        shape: Voxels (z, y, x) of the record.
        class_voxels: Voxels of each class in the record.
        warnings: Oddities of the case.
    """

    case_id: str
    split: str
    orientation: str
    source_spacing_mm: tuple[float, float, float]
    source_shape: tuple[int, int, int]
    shape: tuple[int, int, int]
    class_voxels: tuple[int, ...]
    warnings: tuple[Finding, ...] = ()


@dataclasses.dataclass(frozen=True)
class Fingerprint:
    """Statistics of a dataset.

    Attributes:
        source_spacing_mm: Quantiles of the files' spacing along z, y and x in canonical
            orientation.
        source_shape: Quantiles of the files' voxels, likewise.
        hu: HU statistics over all voxels of the records.
        foreground_hu: HU statistics over the voxels of organs; None if there are none.
        classes: Statistics of the classes in order, background first.
        orientations: Number of files by orientation.
        warnings: Number of cases by warning code.
        cases: Facts of the cases by case id.
    """

    source_spacing_mm: tuple[Quantiles, Quantiles, Quantiles]
    source_shape: tuple[Quantiles, Quantiles, Quantiles]
    hu: HuStatistics
    foreground_hu: HuStatistics | None
    classes: tuple[ClassStatistics, ...]
    orientations: dict[str, int]
    warnings: dict[Code, int]
    cases: tuple[CaseFacts, ...]
