"""The grid of a NIfTI file in the graph: its affine, and the turn to canonical orientation."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection

import numpy as np
import tensorflow as tf

from fcnseg.inference.checks import checked
from fcnseg.saved_model.nifti.header import KINDS, HeaderFields
from fcnseg.volumes.formats.nifti_header import LAST_CODE, TOLERANCE_MM

_CORNERS = np.array(list(np.ndindex(2, 2, 2)), np.float64)  # in units of the longest index


@dataclasses.dataclass(frozen=True, eq=False)
class Grid:
    """The grid of an image.

    Attributes:
        affine: float64 (4, 4), from the index (i, j, k) to RAS millimetres.
        axes: int32 (3,), the axis i, j or k nearest to each of the canonical axes x, y and z.
        is_flipped: bool (3,), True for each axis i, j or k that points to left, posterior or
            inferior.
    """

    affine: tf.Tensor
    axes: tf.Tensor
    is_flipped: tf.Tensor

    @property
    def steps(self) -> tf.Tensor:
        """Millimetres between voxels along i, j and k, float64 (3,)."""
        return tf.norm(self.affine[:3, :3], axis=0)

    @property
    def spacing(self) -> tf.Tensor:
        """Millimetres (z, y, x) between voxels in canonical orientation, float32 (3,)."""
        return tf.cast(tf.reverse(tf.gather(self.steps, self.axes), [0]), tf.float32)

    def to_canonical(self, array: tf.Tensor) -> tf.Tensor:
        """Turns an array (k, j, i) to (z, y, x) of increasing right, anterior and superior."""
        array = tf.reverse(array, self._flips())
        return tf.transpose(array, 2 - tf.reverse(self.axes, [0]))

    def from_canonical(self, array: tf.Tensor) -> tf.Tensor:
        """Turns an array (z, y, x) back to (k, j, i)."""
        back = tf.math.invert_permutation(2 - tf.reverse(self.axes, [0]))
        return tf.reverse(tf.transpose(array, back), self._flips())

    def _flips(self) -> tf.Tensor:
        """Axes of an array (k, j, i) to reverse, int32 (count,)."""
        return 2 - tf.cast(tf.where(self.is_flipped)[:, 0], tf.int32)


def read_grid(header: HeaderFields, shape: tf.Tensor, *, accept: Collection[str]) -> Grid:
    """Computes the grid of a file, as `fcnseg.volumes.formats.nifti_header` does.

    Args:
        header: The header.
        shape: int32 (3,), voxels (z, y, x).
        accept: Codes of missing information to accept, of `fcnseg.codes.ACCEPTABLE`.

    Raises:
        tf.errors.InvalidArgumentError: If the header defines no grid, or two, or leaves the
            orientation or the spacing open and that is not accepted.
    """
    is_known, steps = _steps(header, accept)
    is_told = _is_orientation_told(header, accept)
    has_qform, has_sform = (_is_set(header.read_one(code)) for code in ("qform_code", "sform_code"))
    sform = tf.stack([*(header.read(f"srow_{axis}") for axis in "xyz"), [0.0, 0.0, 0.0, 1.0]])
    plain = tf.linalg.diag(tf.concat([steps, [1.0]], axis=0))
    qform = tf.cond(has_qform, lambda: _qform(header, steps), lambda: plain)
    affine = _invertible(tf.where(has_sform, sform, qform))
    lengths = tf.norm(affine[:3, :3], axis=0)
    # Where pixdim is missing, the lengths of the sform are those of the qform.
    steps = tf.where(is_known, steps, lengths)
    again = tf.cond(has_qform, lambda: _qform(header, steps), lambda: plain)
    affine = _agreeing(affine, again, shape, has_sform & has_qform)
    only_sform = has_sform & ~has_qform & is_known & is_told
    affine = _of_these_steps(affine, lengths, steps, shape, only_sform)
    return Grid(affine, *_turn(affine))


def _steps(header: HeaderFields, accept: Collection[str]) -> tuple[tf.Tensor, tf.Tensor]:
    """Tells whether pixdim is known, and gives its steps (x, y, z) in mm, 1 where missing."""
    stored = header.steps()
    is_known = tf.reduce_all(tf.math.is_finite(stored) & (stored > 0))
    if "spacing_unknown" not in accept:
        rule = "pixdim must be three positive numbers in mm, got {} (x, y, z)"
        stored = checked(stored, is_known, rule)
    is_size = tf.math.is_finite(stored) & ~tf.equal(stored, 0)
    return is_known, tf.where(is_size, tf.abs(stored), tf.ones_like(stored))


def _is_orientation_told(header: HeaderFields, accept: Collection[str]) -> tf.Tensor:
    """Tells whether the codes of both forms have a meaning, and one defines the orientation."""
    codes = tf.stack([header.read_one("qform_code"), header.read_one("sform_code")])
    is_told = tf.reduce_any(codes > 0) & tf.reduce_all((codes >= 0) & (codes <= LAST_CODE))
    if "orientation_unknown" in accept:
        return is_told
    return checked(
        is_told,
        is_told,
        f"qform_code or sform_code must be 1 to {LAST_CODE}, and none another than 0, got {{}}",
        codes,
    )


def _is_set(code: tf.Tensor) -> tf.Tensor:
    return (code >= 1) & (code <= LAST_CODE)


def _qform(header: HeaderFields, steps: tf.Tensor) -> tf.Tensor:
    """The affine float64 (4, 4) of the quaternion, with steps (x, y, z) in mm."""
    qfac = header.read("pixdim")[0]
    qfac = checked(
        qfac, (qfac >= 0) | tf.equal(qfac, -1), "qform needs a pixdim[0] of 1 or -1, got {}"
    )
    b, c, d = (header.read_one(f"quatern_{name}") for name in "bcd")
    # nibabel's thresholds: the fourth component is 0 up to the rounding of the other three
    first, second = (abs(float(kind.quaternion_threshold)) for kind in KINDS)
    threshold = tf.where(header.is_nifti2, tf.constant(second, tf.float64), first)
    rest = 1 - (b * b + c * c + d * d)
    rest = checked(
        rest, rest > -threshold, "qform must be a rotation, got a quaternion of {}", [b, c, d]
    )
    a = tf.where(tf.abs(rest) < threshold, tf.zeros_like(rest), tf.sqrt(tf.abs(rest)))
    s = 2 / (a * a + b * b + c * c + d * d)
    rotation = tf.stack(
        [
            [1 - s * (c * c + d * d), s * (b * c - a * d), s * (b * d + a * c)],
            [s * (b * c + a * d), 1 - s * (b * b + d * d), s * (c * d - a * b)],
            [s * (b * d - a * c), s * (c * d + a * b), 1 - s * (b * b + c * c)],
        ]
    )
    sign = tf.where(qfac >= 0, tf.ones_like(qfac), -tf.ones_like(qfac))
    axes_mm = rotation * (steps * tf.stack([tf.ones_like(sign), tf.ones_like(sign), sign]))
    offset = tf.stack([header.read_one(f"qoffset_{axis}") for axis in "xyz"])
    rows = tf.concat([axes_mm, offset[:, tf.newaxis]], axis=1)
    return tf.concat([rows, tf.constant([[0.0, 0.0, 0.0, 1.0]], tf.float64)], axis=0)


def _invertible(affine: tf.Tensor) -> tf.Tensor:
    """The affine after checking that it maps each voxel to a position of its own."""
    rule = "the affine must be finite and invertible, got {}"
    affine = checked(affine, tf.reduce_all(tf.math.is_finite(affine)), rule)
    values = tf.linalg.svd(affine[:3, :3], compute_uv=False)
    least = values[0] * 3 * np.finfo(np.float64).eps  # as numpy.linalg.matrix_rank has it
    return checked(affine, values[2] > least, rule)


def _agreeing(
    sform: tf.Tensor, qform: tf.Tensor, shape: tf.Tensor, has_both: tf.Tensor
) -> tf.Tensor:
    """The sform after checking that the qform defines the same grid, if there is one."""
    last = tf.cast(tf.reverse(shape, [0]) - 1, tf.float64)
    corners = tf.concat([_CORNERS * last, tf.ones([8, 1], tf.float64)], axis=1)
    apart = tf.norm(tf.matmul(corners, sform - qform, transpose_b=True), axis=1)
    return checked(
        sform,
        (tf.reduce_max(apart) <= TOLERANCE_MM) | ~has_both,
        f"qform and sform must agree within {TOLERANCE_MM} mm, but put the corners {{}} mm apart",
        tf.reduce_max(apart),
    )


def _of_these_steps(
    affine: tf.Tensor, lengths: tf.Tensor, steps: tf.Tensor, shape: tf.Tensor, applies: tf.Tensor
) -> tf.Tensor:
    """The affine after checking its lengths against pixdim, where this applies."""
    apart = tf.abs(lengths - steps) * tf.cast(tf.reverse(shape, [0]), tf.float64)
    return checked(
        affine,
        (tf.reduce_max(apart) <= TOLERANCE_MM) | ~applies,
        f"sform and pixdim must agree within {TOLERANCE_MM} mm over the volume, but have voxels of"
        " {} and {} mm (x, y, z)",
        lengths,
        steps,
    )


def _turn(affine: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The nearest canonical axes, as `nibabel.orientations.io_orientation` finds them.

    Returns:
        `axes` and `is_flipped` of `Grid`.
    """
    directions = affine[:3, :3] / tf.norm(affine[:3, :3], axis=0)
    _, left, right = tf.linalg.svd(directions)
    rotation = tf.matmul(left, right, transpose_b=True)  # the closest without shear
    order = tf.argsort(-tf.reduce_max(rotation**2, axis=0), stable=True)
    axes, signs = tf.zeros([3], tf.int32), tf.zeros([3], tf.float64)
    is_free = tf.ones([3], tf.float64)
    for number in range(3):
        index = order[number]
        column = rotation[:, index] * is_free
        nearest = tf.argmax(tf.abs(column), output_type=tf.int32)
        is_free *= 1 - tf.one_hot(nearest, 3, dtype=tf.float64)
        axes += index * tf.one_hot(nearest, 3, dtype=tf.int32)
        signs += tf.sign(column[nearest]) * tf.one_hot(index, 3, dtype=tf.float64)
    return axes, signs < 0
