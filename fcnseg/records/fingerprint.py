"""What the data of a dataset are like: the part of the manifest that is for people."""

from __future__ import annotations

import dataclasses

from fcnseg.codes import Code, Finding


@dataclasses.dataclass(frozen=True)
class Quantiles:
    """How a number is spread: it is at most `p05` in 5 % of the cases or voxels, and so on."""

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
    """HU of many voxels of the records, exact.

    Attributes:
        voxels: How many.
        mean: In HU.
        deviation: Standard deviation in HU.
        quantiles: In HU.
        bin_hu: Width of a bin of the histogram.
        first_hu: Lowest HU of the first bin.
        histogram: Voxels of each bin, from the first that holds any to the last.
    """

    voxels: int
    mean: float
    deviation: float
    quantiles: Quantiles
    bin_hu: int
    first_hu: int
    histogram: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class ClassStatistics:
    """One class.

    Attributes:
        name: Of the class.
        cases: How many cases have a voxel of it.
        voxels: Of it in all records.
        volume_ml: In those cases that have it; None if none does.
    """

    name: str
    cases: int
    voxels: int
    volume_ml: Quantiles | None


@dataclasses.dataclass(frozen=True)
class CaseFacts:
    """One case.

    Attributes:
        case_id: Name of the case.
        split: One of `SPLITS`.
        orientation: Of the file, where i, j and k grow to, as in `LPS`.
        source_spacing_mm: (z, y, x) of the file, its axes turned to the canonical orientation.
        source_shape: Voxels (z, y, x) of the file, turned likewise.
        shape: Voxels (z, y, x) of the record.
        class_voxels: Voxels of each class in the record.
        warnings: What is odd about it.
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
    """What the data are like.

    Attributes:
        source_spacing_mm: Of the files, for z, y and x in canonical orientation.
        source_shape: Voxels of the files, likewise.
        hu: Of all voxels of the records.
        foreground_hu: Of the voxels of organs; None if there are none.
        classes: In order, background first.
        orientations: How many files have each orientation.
        warnings: How many cases have each warning, by code.
        cases: By case id.
    """

    source_spacing_mm: tuple[Quantiles, Quantiles, Quantiles]
    source_shape: tuple[Quantiles, Quantiles, Quantiles]
    hu: HuStatistics
    foreground_hu: HuStatistics | None
    classes: tuple[ClassStatistics, ...]
    orientations: dict[str, int]
    warnings: dict[Code, int]
    cases: tuple[CaseFacts, ...]
