"""The fingerprint of a dataset, from facts of its cases that can be summed in any order."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import nibabel.orientations as orientations
import numpy as np
import numpy.typing as npt

from fcnseg.codes import Finding
from fcnseg.records import Record
from fcnseg.records.fingerprint import (
    CaseFacts,
    ClassStatistics,
    Fingerprint,
    HuStatistics,
    Quantiles,
)
from fcnseg.volumes import Geometry, Zyx, voxel_ml

Counts = npt.NDArray[np.int64]

SHARES = (0, 0.005, 0.05, 0.25, 0.5, 0.75, 0.95, 0.995, 1)
"""Probabilities of `Quantiles`, in its order."""

BIN_HU = 10
"""Bin width of the stored histograms, narrower than the noise of a scan."""

_LOWEST = np.iinfo(np.int16).min
_VALUES = 2**16
_SLAB = 4  # slices counted at once: they stay in the processor's cache


@dataclasses.dataclass(frozen=True, eq=False)
class HuCounts:
    """Histogram of HU, one bin for each int16 value from the lowest.

    Attributes:
        everywhere: Counts (65536,) of all voxels.
        foreground: Counts (65536,) of the voxels of organs.
    """

    everywhere: Counts
    foreground: Counts

    @classmethod
    def none(cls) -> HuCounts:
        """An empty histogram."""
        return cls(np.zeros(_VALUES, np.int64), np.zeros(_VALUES, np.int64))

    @classmethod
    def of(cls, record: Record) -> HuCounts:
        """Counts the voxels of one case."""
        everywhere, foreground = np.zeros((2, _VALUES), np.int64)
        num_classes = len(record.class_histogram)
        for start in range(0, len(record.image), _SLAB):
            slab = slice(start, start + _SLAB)
            place = record.image[slab].ravel().view(np.uint16)  # negative HU come after the others
            everywhere += np.bincount(place, minlength=_VALUES)
            if record.label is not None and record.label[slab].any():
                classes = record.label[slab].ravel()
                inside = (classes > 0) & (classes < num_classes)  # the others are ignored
                foreground += np.bincount(place[inside], minlength=_VALUES)
        return cls(np.roll(everywhere, -_LOWEST), np.roll(foreground, -_LOWEST))

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Sequence[int]]) -> HuCounts:
        """Makes counts from the result of `to_mapping`."""
        counts = np.zeros((2, _VALUES), np.int64)
        places = np.array(mapping["hu"], np.int64) - _LOWEST  # all cases of a shard may be rejected
        counts[:, places] = mapping["everywhere"], mapping["foreground"]
        return cls(*counts)

    def to_mapping(self) -> dict[str, list[int]]:
        """Plain values, as JSON holds them: three columns, for the HU that occur."""
        places = np.flatnonzero(self.everywhere)
        return {
            "hu": (places + _LOWEST).tolist(),
            "everywhere": self.everywhere[places].tolist(),
            "foreground": self.foreground[places].tolist(),
        }

    def __add__(self, other: HuCounts) -> HuCounts:
        return HuCounts(self.everywhere + other.everywhere, self.foreground + other.foreground)


def case_facts(record: Record, split: str, warnings: Iterable[Finding] = ()) -> CaseFacts:
    """Facts of a case that enter the fingerprint."""
    source = Geometry(record.source_shape, record.source_affine)
    axes = orientations.io_orientation(record.source_affine)[:, 0].astype(int)
    # axes[n] is the canonical axis (x, y, z) of the file's axis n (i, j, k): the one at 2 - n.
    order = (2 - np.argsort(axes)[::-1]).tolist()
    return CaseFacts(
        case_id=record.case_id,
        split=split,
        orientation=source.orientation,
        source_spacing_mm=Zyx(round(source.spacing[axis], 5) for axis in order),
        source_shape=Zyx(source.shape[axis] for axis in order),
        shape=record.image.shape,
        class_voxels=tuple(record.class_histogram.tolist()),
        warnings=tuple(sorted(warnings)),
    )


def fingerprint_of(
    cases: Iterable[CaseFacts],
    hu: HuCounts,
    *,
    class_names: Sequence[str],
    spacing_mm: Sequence[float],
) -> Fingerprint:
    """Computes the fingerprint of a dataset.

    Args:
        cases: Its cases, at least one, in any order.
        hu: HU counts over all their voxels.
        class_names: In order, background first.
        spacing_mm: Spacing of the records.
    """
    cases = sorted(cases, key=lambda case: case.case_id)
    voxels = np.array([case.class_voxels for case in cases])  # (cases, K)
    ml_per_voxel = voxel_ml(spacing_mm)
    codes = Counter(code for case in cases for code in {item.code for item in case.warnings})
    return Fingerprint(
        source_spacing_mm=_of_axes([case.source_spacing_mm for case in cases]),
        source_shape=_of_axes([case.source_shape for case in cases]),
        hu=_hu_statistics(hu.everywhere),
        foreground_hu=_hu_statistics(hu.foreground) if hu.foreground.any() else None,
        classes=tuple(
            _class_statistics(name, voxels[:, index], ml_per_voxel)
            for index, name in enumerate(class_names)
        ),
        orientations=dict(sorted(Counter(case.orientation for case in cases).items())),
        warnings=dict(sorted(codes.items())),
        cases=tuple(cases),
    )


def _of_axes(rows: Sequence[Sequence[float]]) -> tuple[Quantiles, Quantiles, Quantiles]:
    return Zyx(map(_quantiles, zip(*rows, strict=True)))


def _class_statistics(name: str, voxels: Counts, ml_per_voxel: float) -> ClassStatistics:
    """Statistics of one class, given its voxels in each case."""
    present = voxels[voxels > 0]
    volumes = [float(f"{count * ml_per_voxel:.6g}") for count in present.tolist()]
    return ClassStatistics(
        name=name,
        cases=len(present),
        voxels=int(voxels.sum()),
        volume_ml=_quantiles(volumes) if volumes else None,
    )


def _quantiles(values: Sequence[float]) -> Quantiles:
    """Quantiles of a few numbers; each is one of the numbers."""
    ordered = sorted(values)
    return Quantiles(*(float(ordered[_rank(share, len(ordered))]) for share in SHARES))


def _hu_statistics(counts: Counts) -> HuStatistics:
    """Exact statistics of counts (65536,): Python's integers do not overflow."""
    values = range(_LOWEST, _LOWEST + _VALUES)
    present = [(hu, count) for hu, count in zip(values, counts.tolist(), strict=True) if count]
    voxels = sum(count for _, count in present)
    total = sum(hu * count for hu, count in present)
    squares = sum(hu * hu * count for hu, count in present)
    ends = np.cumsum(counts)
    ranks = [_rank(share, voxels) for share in SHARES]
    quantiles = np.searchsorted(ends, ranks, side="right") + _LOWEST
    first, histogram = _binned(counts)
    return HuStatistics(
        voxels=voxels,
        mean=total / voxels,
        std=math.sqrt((voxels * squares - total**2) / voxels**2),
        quantiles=Quantiles(*map(float, quantiles.tolist())),
        bin_hu=BIN_HU,
        first_hu=first,
        histogram=histogram,
    )


def _rank(share: float, count: int) -> int:
    """Index of a quantile among sorted values: the nearest rank."""
    return round(share * (count - 1))


def _binned(counts: Counts) -> tuple[int, tuple[int, ...]]:
    """The lowest HU of the first nonempty bin, and the bins up to the last nonempty one."""
    places = np.flatnonzero(counts) + _LOWEST
    bins = places // BIN_HU
    first = int(bins[0])
    binned = np.zeros(int(bins[-1]) - first + 1, np.int64)
    np.add.at(binned, bins - first, counts[places - _LOWEST])
    return first * BIN_HU, tuple(binned.tolist())
