"""The resampling of a patch: all moves of its voxels composed into one gather of the source.

Two steps, `places_of` and then `linear` and `nearest`. In one piece, XLA would recompute the
coordinates for each of the gathers, which takes twice as long on a CPU. Between the steps a
coordinate is an integer number of 65536ths of a voxel, which is as fine as float32 is: its integer
part and its interpolation weight are then always consistent, where two loops may round one float to
different voxels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf

from fcnseg.volumes import Shape

_BITS = 16  # units per voxel


class Places(NamedTuple):
    """Sampling coordinates of the voxels of a patch in their source.

    Attributes:
        z: int32 (batch, z, y, x), 65536ths of a voxel from the source's first.
        y: Like z.
        x: Like z.
    """

    z: tf.Tensor
    y: tf.Tensor
    x: tf.Tensor


def places_of(
    matrix: tf.Tensor,
    displacement: Sequence[tf.Tensor] | None,
    *,
    size: Shape,
    source_size: Shape,
) -> Places:
    """Computes the sampling coordinates of each voxel of a patch; patch and source have one centre.

    Coordinates outside of the source are clamped to its border.

    Args:
        matrix: (batch, 3, 3) from offsets in the patch to offsets in the source, in voxels.
        displacement: Voxels to add along z, y and x, each (batch, z, y, x), or None.
        size: Voxels (z, y, x) of the patch.
        source_size: Voxels (z, y, x) of the source, at least two along each axis.
    """
    offsets = [tf.range(length, dtype=tf.float32) - (length - 1) / 2 for length in size]
    z, y, x = (
        tf.reshape(offset, [-1 if axis == own else 1 for axis in range(4)])
        for own, offset in enumerate(offsets, start=1)
    )
    places = []
    for axis, length in enumerate(source_size):
        by_z, by_y, by_x = (matrix[:, axis, i, None, None, None] for i in range(3))
        position = by_z * z + by_y * y + by_x * x + (length - 1) / 2
        if displacement is not None:
            position += displacement[axis]
        position = tf.clip_by_value(position, 0.0, length - 1.0)
        places.append(tf.cast(position * 2**_BITS + 0.5, tf.int32))
    return Places(*places)


def linear(source: tf.Tensor, places: Places) -> tf.Tensor:
    """Interpolates a source linearly.

    Args:
        source: (batch, z, y, x) of any real type.
        places: Sampling coordinates in the source.

    Returns:
        float32 (batch, z, y, x), of the coordinates' shape.
    """
    _, *size = source.shape
    _, height, width = size
    flat = tf.reshape(source, [-1])
    # The last voxel is the far end of the last cell of eight voxels.
    cells = [
        tf.minimum(tf.bitwise.right_shift(place, _BITS), length - 2)
        for place, length in zip(places, size, strict=True)
    ]
    share_z, share_y, share_x = (
        tf.cast(place - tf.bitwise.left_shift(cell, _BITS), tf.float32) / 2**_BITS
        for place, cell in zip(places, cells, strict=True)
    )
    first = _flat_index(cells, size)

    def voxel(step: int) -> tf.Tensor:
        return tf.cast(tf.gather(flat, first + step), tf.float32)

    def edge(step: int) -> tf.Tensor:
        """Interpolates on the edge along x that starts so many voxels after the cell's first."""
        near, far = voxel(step), voxel(step + 1)
        return near + share_x * (far - near)

    def face(step: int) -> tf.Tensor:
        near, far = edge(step), edge(step + width)
        return near + share_y * (far - near)

    near, far = face(0), face(height * width)
    return near + share_z * (far - near)


def nearest(source: tf.Tensor, places: Places) -> tf.Tensor:
    """Gives the nearest voxels of a source.

    Args:
        source: (batch, z, y, x).
        places: Sampling coordinates in the source.

    Returns:
        Voxels (batch, z, y, x), of the coordinates' shape and the source's type.
    """
    half = 2 ** (_BITS - 1)
    voxels = [tf.bitwise.right_shift(place + half, _BITS) for place in places]
    _, *size = source.shape
    return tf.gather(tf.reshape(source, [-1]), _flat_index(voxels, size))


def _flat_index(voxels: Sequence[tf.Tensor], size: Sequence[int]) -> tf.Tensor:
    """int32 flat indices of voxels along z, y and x into the sources of all samples."""
    (z, y, x), (depth, height, width) = voxels, size
    sample = tf.reshape(tf.range(tf.shape(z)[0]), [-1, 1, 1, 1])
    return ((sample * depth + z) * height + y) * width + x
