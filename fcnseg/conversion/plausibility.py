"""Plausibility of a volume as a CT: a finding rejects the case, unless the user accepts it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt

from fcnseg.codes import Finding
from fcnseg.volumes import AIR_HU, Geometry, Volume

# Diagnostic CT has voxels of 0.2 to 5 mm in the plane and slices of 0.4 to 10 mm; values outside
# mean a header in another unit, or no spacing at all.
SPACING_MM = (0.2, 10.0)
ROUNDING = 1e-4  # headers contain 9.9999 and 10.0001 for 10
# A child's abdomen is imaged in 150 mm, a gantry's bore is 700 to 900 mm wide, a bed moves 2000 mm.
# A slab may be one slice thin, so the smallest extent has no bound.
FIELD_OF_VIEW_MM = (80.0, 1000.0)
LONGEST_MM = 2500.0
# A grid that was sheared to correct a tilted gantry is off by 5 degrees and more; rounded direction
# cosines are off by 0.1.
SKEW_DEGREES = 1.0
_THICK_SLICES_MM = 5.0  # the paper's scans have 0.5 to 5 mm; gallbladder and vessels fit into more
_OBLIQUE_DEGREES = 15.0  # patients on the table rotate by less; augmentation by as much

# Scanners write air as -1000 with noise of some 100 HU, and cut off at -1024. Lower values stand
# for "outside of the field of view": -2000, -2048 and -3024 are in use.
PADDING_HU = -1500
_PADDING_SHARE = 0.01
# One percent of any scan is air or fat: below -50 HU, whatever the field of view.
DARK_QUANTILE, DARKEST_HU = 0.01, -20
# Half a percent of any scan is tissue: above 0 HU but for fat, lungs and air.
TISSUE_QUANTILE, TISSUE_HU = 0.995, -200
# A quarter of no scan is compact bone and metal: above 700 HU.
BRIGHT_QUANTILE, BRIGHTEST_HU = 0.75, 700
# So few values, none below 0, are those of a label: 117 classes, with their ids, are usual.
_MOST_CLASSES = 150
NARROW_HU = 100  # noise alone spans more; images scaled to 0..1 or unit standard deviation less
SAMPLE = 2**18  # voxels in the sample: a thousand times what a quantile of 0.5 % needs


def find_in_geometry(geometry: Geometry) -> Iterator[Finding]:
    """Finds oddities in the grid of a CT.

    Args:
        geometry: The grid according to the file.
    """
    low, high = SPACING_MM
    if not all(low * (1 - ROUNDING) <= step <= high * (1 + ROUNDING) for step in geometry.spacing):
        yield Finding(
            "spacing_implausible",
            f"spacing must be {low} to {high} mm for a CT, got {_rounded(geometry.spacing)}"
            " (z, y, x)",
        )
    yield from _find_in_extent(geometry)
    yield from _find_in_directions(geometry)
    thickness = max(geometry.spacing)
    if thickness > _THICK_SLICES_MM * (1 + ROUNDING):
        yield Finding(
            "thick_slices",
            f"slices are {thickness:.4g} mm apart, more than {_THICK_SLICES_MM:g} mm",
        )


def find_in_hu(hu: npt.NDArray[np.int16]) -> Iterator[Finding]:
    """Finds signs, in a sample of the voxels, that values are not HU.

    Args:
        hu: Values (z, y, x).
    """
    sample = _sampled(hu)
    inside = sample[sample >= PADDING_HU]
    padding = 1 - inside.size / sample.size
    if inside.size == 0 or inside.min() == inside.max():
        value = int(sample.min())
        yield Finding("constant_image", f"voxels must differ, but all are {value} HU or padding")
        return
    finding = _find_no_hu(hu, inside)
    if finding:
        yield finding
    if padding >= _PADDING_SHARE:
        yield Finding(
            "padding",
            f"{padding:.0%} of the voxels are padding of {int(sample.min())} HU: set to {AIR_HU},"
            " air",
        )


def without_padding(volume: Volume) -> Volume:
    """Sets voxels outside the field of view to air, in place if possible."""
    array = volume.array
    target = array if array.flags.writeable else None
    return volume.with_array(np.maximum(array, np.int16(AIR_HU), out=target))


def _find_in_extent(geometry: Geometry) -> Iterator[Finding]:
    extents = [count * step for count, step in zip(geometry.shape, geometry.spacing, strict=True)]
    _, middle, longest = sorted(extents)
    low, high = FIELD_OF_VIEW_MM
    if not low <= middle <= high or longest > LONGEST_MM:
        yield Finding(
            "field_of_view_implausible",
            f"a CT must be {low:g} to {high:g} mm wide and at most {LONGEST_MM:g} mm long, got"
            f" {_rounded(extents)} mm (z, y, x)",
        )


def _find_in_directions(geometry: Geometry) -> Iterator[Finding]:
    directions = geometry.directions
    skew = _degrees(np.abs(directions.T @ directions - np.eye(3)).max(), np.arcsin)
    if skew > SKEW_DEGREES:
        yield Finding(
            "sheared_grid",
            f"axes must stand at right angles, but miss them by {skew:.3g} degrees",
        )
    turn = nib.orientations.io_orientation(geometry.affine)
    axes = turn[:, 0].astype(int)
    tilt = _degrees(np.abs(directions[axes, range(3)]).min(), np.arccos)
    if tilt > _OBLIQUE_DEGREES:
        yield Finding("oblique", f"the grid lies {tilt:.3g} degrees askew in the patient")
    steps = np.array(geometry.spacing[::-1])[np.argsort(axes)]  # to the right, anterior, superior
    if steps[2] * 1.5 < steps.max():
        yield Finding(
            "not_axial",
            f"slices are not axial: voxels are {_rounded(steps[::-1])} mm long (superior, anterior,"
            " right)",
        )


def _find_no_hu(hu: npt.NDArray[np.int16], inside: npt.NDArray[np.int16]) -> Finding | None:
    """The finding if values are not HU; `inside` is a sample of them, without padding."""
    shares = (DARK_QUANTILE, BRIGHT_QUANTILE, TISSUE_QUANTILE)
    dark, bright, tissue = np.quantile(inside, shares)
    spans = tissue - dark > NARROW_HU
    if spans and dark < DARKEST_HU and bright <= BRIGHTEST_HU and tissue > TISSUE_HU:
        return None
    low, high = int(hu[hu >= PADDING_HU].min()), int(hu.max())
    got = f"values are {low} to {high}"
    swapped = _as_a_label(inside)
    if high - low <= NARROW_HU:
        reason = f"{got}: HU of a CT span more than {NARROW_HU}; was it scaled{swapped}?"
        return Finding("scaled_image", reason)
    if low >= 0 and swapped:
        return Finding("windowed_image", f"{got}, too few for HU: is it windowed{swapped}?")
    if low >= 0 and high <= 255:
        return Finding("windowed_image", f"{got}: an image of 8 bit, made for the eye, has no HU")
    if dark >= DARKEST_HU:
        return Finding(
            "missing_rescale",
            f"{got} and 99 % are above {dark:.0f}, but air and fat lie below -50 HU: was the"
            " rescale intercept, such as -1024, left out?",
        )
    if bright > BRIGHTEST_HU:
        return Finding(
            "missing_rescale",
            f"{got} and {1 - BRIGHT_QUANTILE:.0%} are above {bright:.0f}, as bone and metal alone"
            " are: was the rescale intercept, such as -1024, left out, or its slope negative?",
        )
    reason = f"{got}, but {TISSUE_QUANTILE:.1%} lie below {tissue:.0f} HU: no tissue"
    return Finding("no_tissue", reason)


def _as_a_label(inside: npt.NDArray[np.int16]) -> str:
    """The question to ask of values that a label may have; empty for those of an image."""
    few = int(inside.min()) == 0 and np.unique(inside).size <= _MOST_CLASSES
    return " or swapped with its label" * few


def _sampled(hu: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """A sample of voxels, evenly spaced."""
    step = max(1, math.ceil((hu.size / SAMPLE) ** (1 / 3)))
    return hu[::step, ::step, ::step].ravel()


def _degrees(value: float, inverse: np.ufunc) -> float:
    return math.degrees(inverse(np.clip(value, -1, 1)))


def _rounded(values: Any) -> tuple[float, ...]:
    return tuple(float(f"{value:.4g}") for value in values)
