"""The checks of `fcnseg.conversion.plausibility` in the graph: that an image can be a CT."""

from __future__ import annotations

import math
from collections.abc import Collection

import tensorflow as tf

from fcnseg.conversion import plausibility as rules
from fcnseg.inference.checks import checked

_LOWEST = -(2**15)  # of int16


def checked_geometry(affine: tf.Tensor, shape: tf.Tensor, *, accept: Collection[str]) -> tf.Tensor:
    """Returns the affine after checking the size of voxels and volume, and the angles of axes.

    Args:
        affine: float64 (4, 4).
        shape: int32 (3,), voxels (z, y, x).
        accept: Codes of `fcnseg.codes.ACCEPTABLE` that are not refused.

    Raises:
        tf.errors.InvalidArgumentError: If a CT cannot have this grid.
    """
    steps = tf.norm(affine[:3, :3], axis=0)
    spacing = tf.reverse(steps, [0])
    extents = tf.cast(shape, tf.float64) * spacing
    low, high = rules.FIELD_OF_VIEW_MM
    least, most = rules.SPACING_MM
    ordered = tf.sort(extents)
    skew = _skew_degrees(affine[:3, :3] / steps)
    judged = {
        "spacing_implausible": (
            tf.reduce_all(spacing >= least * (1 - rules.ROUNDING))
            & tf.reduce_all(spacing <= most * (1 + rules.ROUNDING)),
            f"spacing must be {least} to {most} mm for a CT, got {{}} (z, y, x)",
            spacing,
        ),
        "field_of_view_implausible": (
            (ordered[1] >= low) & (ordered[1] <= high) & (ordered[2] <= rules.LONGEST_MM),
            f"a CT must be {low:g} to {high:g} mm wide and at most {rules.LONGEST_MM:g} mm long,"
            " got {} mm (z, y, x)",
            extents,
        ),
        "sheared_grid": (
            skew <= rules.SKEW_DEGREES,
            "axes must stand at right angles, but miss them by {} degrees",
            skew,
        ),
    }
    for code, (holds, rule, shown) in judged.items():
        if code not in accept:
            affine = checked(affine, holds, rule, shown)
    return affine


def checked_hu(hu: tf.Tensor, *, accept: Collection[str]) -> tf.Tensor:
    """Returns HU after checking, in a sample of the voxels, that they can be those of a CT.

    Args:
        hu: int16 (z, y, x).
        accept: Codes of `fcnseg.codes.ACCEPTABLE` that are not refused.

    Raises:
        tf.errors.InvalidArgumentError: If they cannot.
    """
    counts = _histogram(_sampled(hu))
    number = tf.reduce_sum(counts)
    dark, tissue = (_quantile(counts, q) for q in (rules.DARK_QUANTILE, rules.TISSUE_QUANTILE))
    is_constant = number == tf.reduce_max(counts)
    if "constant_image" not in accept:
        hu = checked(
            hu, ~is_constant, "voxels must differ, but all are {} HU or padding", hu[0, 0, 0]
        )
    is_hu = (
        (dark < rules.DARKEST_HU) & (tissue > rules.TISSUE_HU) & (tissue - dark > rules.NARROW_HU)
    )
    is_fine = is_hu | is_constant
    inside = tf.where(hu >= rules.PADDING_HU, hu, tf.int16.max)
    low, high = (tf.cast(each, tf.int32) for each in (tf.reduce_min(inside), tf.reduce_max(hu)))
    for code, is_kind, reason in _kinds(low, high, dark):
        if code not in accept:
            hu = checked(hu, is_fine | ~is_kind, f"values are {{}} to {{}}: {reason}", low, high)
        is_fine = is_fine | is_kind
    return hu


def _skew_degrees(directions: tf.Tensor) -> tf.Tensor:
    """The largest angle by which axes, the columns of (3, 3), miss right angles."""
    products = tf.matmul(directions, directions, transpose_a=True)
    skew = tf.reduce_max(tf.abs(products - tf.eye(3, dtype=tf.float64)))
    return tf.asin(tf.minimum(skew, 1.0)) * (180 / math.pi)


def _kinds(low: tf.Tensor, high: tf.Tensor, dark: tf.Tensor) -> list[tuple[str, tf.Tensor, str]]:
    """Codes of values that are no HU, in the order in which they are judged."""
    return [
        (
            "scaled_image",
            high - low <= rules.NARROW_HU,
            f"HU of a CT span more than {rules.NARROW_HU}; was it scaled?",
        ),
        (
            "windowed_image",
            (low >= 0) & (high <= 255),
            "an image of 8 bit, made for the eye, has no HU",
        ),
        (
            "missing_rescale",
            dark >= rules.DARKEST_HU,
            "air and fat lie below -50 HU: was the rescale intercept, such as -1024, left out?",
        ),
        ("no_tissue", tf.constant(True), "nearly all lie below 0 HU: no tissue"),
    ]


def _sampled(hu: tf.Tensor) -> tf.Tensor:
    """A sample of voxels, evenly spaced, int16 (count,)."""
    size = tf.cast(tf.size(hu), tf.float64)
    step = tf.math.ceil((size / rules.SAMPLE) ** (1 / 3))
    step = tf.maximum(tf.cast(step, tf.int32), 1)
    return tf.reshape(hu[::step, ::step, ::step], [-1])


def _histogram(sample: tf.Tensor) -> tf.Tensor:
    """Voxels of each HU that is no padding, int64 (65536,), the lowest HU of int16 first."""
    bins = tf.cast(sample, tf.int32) - _LOWEST
    counts = tf.math.bincount(bins, minlength=2**16, maxlength=2**16, dtype=tf.int64)
    is_inside = tf.range(2**16) >= rules.PADDING_HU - _LOWEST
    return tf.where(is_inside, counts, tf.zeros_like(counts))


def _quantile(counts: tf.Tensor, share: float) -> tf.Tensor:
    """The quantile of HU by their counts, float64, as numpy interpolates it."""
    so_far = tf.cumsum(counts)
    place = tf.cast(tf.maximum(so_far[-1] - 1, 0), tf.float64) * share
    below = tf.cast(tf.math.floor(place), tf.int64)
    around = tf.stack([below, tf.minimum(below + 1, tf.maximum(so_far[-1] - 1, 0))])
    bins = tf.searchsorted(so_far, around, side="right")
    low, high = tf.unstack(tf.cast(bins + _LOWEST, tf.float64))
    return low + (high - low) * (place - tf.math.floor(place))
