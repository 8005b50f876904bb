"""The spacing that suits the files of a dataset, compared with the records' own.

The rule is nnU-Net's (Isensee et al. 2021, arXiv 1904.08128, and its released planner),
reimplemented: the median of each axis; but if slices are much thicker than the other axes, the
thinner ones among them decide, so that the resolution of thin-sliced scans is not lost. One thing
is our own: voxels are counted after a resampling to the medians, where nnU-Net counts those of the
files, in which thin-sliced scans mask that the others have few slices.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence

import numpy as np

from fcnseg.records.fingerprint import CaseFacts
from fcnseg.volumes import Shape, Triple, Zyx

_ANISOTROPIC = 3.0  # ratio of its spacing to the other axes', and of their voxels to its; nnU-Net's
_THIN = 10  # percentile of an anisotropic axis's spacings; nnU-Net
_NEAR = 1.25  # records whose spacing differs by less along each axis suffice; our own choice
_AXES = ("z", "y", "x")


def target_spacing(cases: Sequence[CaseFacts]) -> Triple:
    """Computes the spacing (z, y, x) in mm to convert to, rounded to three digits.

    Args:
        cases: The training cases, at least one.
    """
    spacings = np.array([case.source_spacing_mm for case in cases])  # (cases, 3)
    lengths = spacings * np.array([case.source_shape for case in cases])  # mm
    target = np.median(spacings, axis=0)
    voxels = np.median(lengths / target, axis=0)
    coarsest = int(np.argmax(target))
    others = [axis for axis in range(3) if axis != coarsest]
    thickest_other = target[others].max()
    is_thick = target[coarsest] > _ANISOTROPIC * thickest_other
    if is_thick and _ANISOTROPIC * voxels[coarsest] < voxels[others].min():
        thin = np.percentile(spacings[:, coarsest], _THIN)
        target[coarsest] = max(thin, thickest_other)
    return Zyx(float(f"{mm:.3g}") for mm in target)


def median_shape(shapes: Iterable[Shape]) -> Shape:
    """Computes the median of shapes (z, y, x), axis by axis, halves rounded up."""
    return Zyx(math.floor(statistics.median(axis) + 0.5) for axis in zip(*shapes, strict=True))


def median_spacing(spacings: Iterable[Triple]) -> Triple:
    """Computes the median of spacings (z, y, x), axis by axis, in mm."""
    return Zyx(statistics.median(axis) for axis in zip(*spacings, strict=True))


def spacing_advice(records: Triple, target: Triple) -> str:
    """Advises whether to convert again, if the spacing of the records does not suit the files.

    >>> spacing_advice((1.5, 1.5, 1.5), (1.0, 1.5, 1.5))
    'records are too coarse along z: convert again with --spacing_mm 1 1.5 1.5, then plan again'
    """
    ratios = dict(zip(_AXES, (r / t for r, t in zip(records, target, strict=True)), strict=True))
    coarse = [axis for axis, ratio in ratios.items() if ratio > _NEAR]
    fine = [axis for axis, ratio in ratios.items() if ratio < 1 / _NEAR]
    if not coarse and not fine:
        return f"the records' spacing fits, each axis within {_NEAR - 1:.0%}"
    found = (("too coarse", coarse), ("finer than needed", fine))
    findings = " and ".join(f"{word} along {', '.join(axes)}" for word, axes in found if axes)
    flag = " ".join(f"{mm:g}" for mm in target)
    return f"records are {findings}: convert again with --spacing_mm {flag}, then plan again"


def coarse_spacing(spacing: Triple, covered: float, *, wanted: float) -> Triple:
    """Finds the spacing at which a patch of as many voxels covers the wanted share of a case.

    Args:
        spacing: Spacing (z, y, x) in mm at which it covers `covered`.
        covered: Share of the voxels of a case.
        wanted: A larger share.
    """
    factor = (wanted / covered) ** (1 / 3)
    return Zyx(float(f"{mm * factor:.2g}") for mm in spacing)
