"""The smooth deformation of a patch: a cubic B-spline over a grid of control points.

The field is separable: three small matrices of spline weights, one per axis, times the values drawn
for the control points. These are the spline's coefficients, or the displacements of the control
points themselves. The weights of a voxel sum to one. Those of coefficients are positive too, so no
voxel moves further than the largest coefficient; the others are not, and the field is clipped.

tensorflow-addons has another spline through displacements, the polyharmonic one, which is not
separable.
"""

from __future__ import annotations

import functools
import math

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from scipy.ndimage import spline_filter1d

from fcnseg.config import AugmentationConfig
from fcnseg.extras import require_extra
from fcnseg.volumes import Shape, Zyx


def control_points(length: int, control_spacing: float) -> int:
    """Number of control points along an axis of voxels: each voxel lies among four of them."""
    return math.ceil((length - 1) / control_spacing) + 3


def spline_weights(
    length: int, control_spacing: float, *, of: str = "coefficients"
) -> npt.NDArray[np.float32]:
    """Computes the weight (voxels, control points) of each control point at each voxel of an axis.

    The grid of control points and the patch have the same centre.

    Args:
        length: Voxels of the axis.
        control_spacing: Voxels from one control point to the next.
        of: Meaning of the drawn values: "coefficients" of the spline, or displacements of the
            "field" at the control points.
    """
    count = control_points(length, control_spacing)
    voxels = (np.arange(length) - (length - 1) / 2) / control_spacing
    points = np.arange(count) - (count - 1) / 2
    distance = np.abs(voxels[:, np.newaxis] - points)
    near = 2 / 3 - distance**2 + distance**3 / 2
    far = np.maximum(2 - distance, 0) ** 3 / 6
    weights = np.where(distance < 1, near, far)
    if of == "field":
        # The coefficients of a spline through the drawn values; the grid is mirrored at its ends.
        weights = weights @ spline_filter1d(np.eye(count), order=3, axis=0, mode="mirror")
    return weights.astype(np.float32)


def displacements(
    control: tf.Tensor, size: Shape, config: AugmentationConfig
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Computes the displacement of each voxel.

    Args:
        control: Drawn displacements (batch, 3, *control points) in voxels, the second axis being
            those along z, y and x.
        size: Voxels (z, y, x) of the patch.
        config: Spacing of the control points, and meaning of the drawn values.

    Returns:
        Voxels along z, y and x, each (batch, z, y, x).

    Raises:
        MissingExtraError: If the spline is that of tensorflow-addons, which is not installed.
    """
    of = config.deformation_of
    if of == "polyharmonic":
        return _polyharmonic(control, size, config)
    weights = [
        tf.constant(spline_weights(length, spacing, of=of))
        for length, spacing in zip(size, config.control_spacing_voxels, strict=True)
    ]
    # Plain matrix products without transposes: twice as fast as an einsum under XLA on a CPU.
    planes = tf.matmul(control, weights[2], transpose_b=True)  # (batch, 3, i, j, x)
    planes = tf.matmul(weights[1], planes)  # (batch, 3, i, y, x)

    def along(axis: int) -> tf.Tensor:
        # A sum, which XLA fuses into its consumer; a product would go through memory.
        terms = [
            planes[:, axis, tf.newaxis, i] * weights[0][:, i, tf.newaxis, tf.newaxis]
            for i in range(planes.shape[2])
        ]
        moved = functools.reduce(tf.add, terms)
        most = config.deformation_voxels[axis]
        # Between its control points a spline exceeds the values drawn for them.
        return tf.clip_by_value(moved, -most, most) if of == "field" else moved

    return along(0), along(1), along(2)


def _polyharmonic(
    control: tf.Tensor, size: Shape, config: AugmentationConfig
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """The displacements by a triharmonic spline, of r^3, through the drawn ones, clipped.

    Slice by slice, as each voxel has a weight of each control point.
    """
    interpolate = require_extra("tensorflow_addons.image").interpolate_spline
    batch = tf.shape(control)[0]

    def of_all(positions: tf.Tensor) -> tf.Tensor:
        return tf.tile(positions[tf.newaxis], [batch, 1, 1])

    points = tf.reshape(_centred(control_shape(size, config)), [-1, 3])
    drawn = tf.transpose(tf.reshape(control, [batch, 3, points.shape[0]]), [0, 2, 1])
    voxels = _centred(size) / tf.constant(config.control_spacing_voxels, tf.float32)
    slices = tf.map_fn(
        lambda inside: interpolate(of_all(points), drawn, of_all(inside), order=3),
        tf.reshape(voxels, [size[0], size[1] * size[2], 3]),
    )
    moved = tf.reshape(slices, [size[0], batch, *size[1:], 3])
    most = tf.constant(config.deformation_voxels, tf.float32)
    moved = tf.transpose(tf.clip_by_value(moved, -most, most), [4, 1, 0, 2, 3])
    return moved[0], moved[1], moved[2]


def _centred(shape: Shape) -> tf.Tensor:
    """The positions (*shape, 3) of a grid around its centre, in steps of it."""
    axes = [tf.range(count, dtype=tf.float32) - (count - 1) / 2 for count in shape]
    return tf.stack(tf.meshgrid(*axes, indexing="ij"), axis=-1)


def control_shape(size: Shape, config: AugmentationConfig) -> Shape:
    """Number of control points (z, y, x) of a patch."""
    return Zyx(map(control_points, size, config.control_spacing_voxels))


def largest_displacement(config: AugmentationConfig) -> npt.NDArray[np.float64]:
    """Largest displacement (3,) of a voxel along z, y and x, in voxels."""
    return np.array(config.deformation_voxels, dtype=np.float64)
