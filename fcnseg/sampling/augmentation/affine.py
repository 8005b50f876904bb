"""Rotation, scaling and flips as one matrix from the patch to the source volume."""

from __future__ import annotations

import itertools
import math

import numpy as np
import tensorflow as tf

from fcnseg.config import AugmentationConfig
from fcnseg.sampling.augmentation.deformation import largest_displacement
from fcnseg.volumes import Shape, Triple, Zyx

# Angles sampled along each axis to find the largest extent, both ends included.
_ANGLES = 9


def patch_matrix(
    degrees: tf.Tensor, scale: tf.Tensor, flip: tf.Tensor, *, spacing: Triple
) -> tf.Tensor:
    """Computes the matrix from patch to volume coordinates, on offsets from the centre in voxels.

    The rotation is one of the patient, in millimetres: about x first, then about y and z.

    Args:
        degrees: Angles (3,) about z, y and x.
        scale: Factor () by which the patient is scaled in the patch.
        flip: bool (3,), the axes of the patch to flip.
        spacing: Millimetres (z, y, x) between voxels.

    Returns:
        float32 (3, 3), from offsets (z, y, x) in the patch to offsets in the volume.
    """
    about_z, about_y, about_x = (
        _rotation(angle, axis) for axis, angle in enumerate(tf.unstack(degrees * math.pi / 180))
    )
    rotation = about_z @ about_y @ about_x
    mm = tf.constant(spacing, tf.float32)
    signs = tf.where(flip, -1.0, 1.0)
    return rotation / mm[:, tf.newaxis] * mm / scale * signs


def source_size(config: AugmentationConfig, size: Shape, *, spacing: Triple) -> Shape:
    """Voxels (z, y, x) about a patch's centre that contain the source of every possible draw.

    The size differs from the patch's by an even number, so that the two share their centre.
    """
    if not config.warps:
        return size
    half = (np.array(size) - 1) / 2
    mm = np.array(spacing)
    reach = np.zeros(3)
    turns = (np.linspace(-angle, angle, _ANGLES) for angle in np.radians(config.rotation_degrees))
    for angles in itertools.product(*turns):
        about_z, about_y, about_x = (_rotation_array(a, axis) for axis, a in enumerate(angles))
        matrix = (about_z @ about_y @ about_x) * mm / mm[:, np.newaxis]
        reach = np.maximum(reach, np.abs(matrix) @ half)
    reach = reach / config.scale[0] + largest_displacement(config)
    # Rounding of float32 positions of an unmoved patch must not add a margin.
    margin = np.maximum(0, np.ceil(reach - half - 1e-3)).astype(int)
    return Zyx((np.array(size) + 2 * margin).tolist())


def _rotation(angle: tf.Tensor, axis: int) -> tf.Tensor:
    """Rotation (3, 3) of vectors (z, y, x) about an axis by an angle in radians."""
    first, second = (other for other in range(3) if other != axis)
    basis = np.eye(3, dtype=np.float32)
    along = np.outer(basis[axis], basis[axis])
    turn = np.outer(basis[second], basis[first]) - np.outer(basis[first], basis[second])
    return along + tf.cos(angle) * (basis - along) + tf.sin(angle) * turn


def _rotation_array(angle: float, axis: int) -> np.ndarray:
    first, second = (other for other in range(3) if other != axis)
    matrix = np.eye(3)
    matrix[[first, second], [first, second]] = math.cos(angle)
    matrix[second, first], matrix[first, second] = math.sin(angle), -math.sin(angle)
    return matrix
