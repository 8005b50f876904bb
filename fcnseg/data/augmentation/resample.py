"""The one resampling of a patch: every move of its voxels composed, one gather of the source.

Two steps, `cells_of` and then `linear` and `voxels_at`. In one piece, XLA would work the cells out
anew for each of the gathers, which takes twice as long on a CPU; and where two of its loops round a
position to the two sides of a voxel, index and share would not fit together.
"""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from fcnseg.volumes.volume import Shape


class Cells(NamedTuple):
    """Where the voxels of a patch come from: each lies in a cell of eight voxels of its source.

    Attributes:
        first: int32 (batch, z, y, x), index of the cell's first voxel in all samples' sources as
            one row.
        nearest: int32 (batch, z, y, x), index of the cell's nearest voxel.
        shares: float32 (batch, z, y, x) along z, y and x, how far it lies from the first voxel to
            the next, 0 to 1.
    """

    first: tf.Tensor
    nearest: tf.Tensor
    shares: tuple[tf.Tensor, tf.Tensor, tf.Tensor]


def cells_of(
    matrix: tf.Tensor, displacement: tf.Tensor | None, *, size: Shape, source_size: Shape
) -> Cells:
    """Where in its source each voxel of a patch comes from; both have one centre.

    What would lie outside of the source is moved to its border.

    Args:
        matrix: (batch, 3, 3) from offsets in the patch to offsets in the source, in voxels.
        displacement: Voxels (batch, 3, z, y, x) to add, or None.
        size: Voxels (z, y, x) of the patch.
        source_size: Voxels (z, y, x) of the source, at least two along each axis.
    """
    at = _positions(matrix, displacement, size=size, source_size=source_size)
    # The last voxel is the far end of the last cell.
    floors = [tf.minimum(tf.floor(p), n - 2.0) for p, n in zip(at, source_size, strict=True)]
    share_z, share_y, share_x = (p - floor for p, floor in zip(at, floors, strict=True))
    first = _flat_index(floors, source_size)
    nearest = _flat_index([tf.floor(position + 0.5) for position in at], source_size)
    return Cells(first, nearest, (share_z, share_y, share_x))


def linear(source: tf.Tensor, cells: Cells) -> tf.Tensor:
    """Values between the voxels of a source.

    Args:
        source: (batch, z, y, x) of any real type.
        cells: Of the source.

    Returns:
        float32 (batch, z, y, x) of the cells' shape.
    """
    _, _, height, width = source.shape
    flat = tf.reshape(source, [-1])
    share_z, share_y, share_x = cells.shares

    def voxel(step: int) -> tf.Tensor:
        return tf.cast(tf.gather(flat, cells.first + step), tf.float32)

    def edge(step: int) -> tf.Tensor:
        """On the edge along x that starts so many voxels after the cell's first."""
        near, far = voxel(step), voxel(step + 1)
        return near + share_x * (far - near)

    def face(step: int) -> tf.Tensor:
        near, far = edge(step), edge(step + width)
        return near + share_y * (far - near)

    near, far = face(0), face(height * width)
    return near + share_z * (far - near)


def voxels_at(source: tf.Tensor, index: tf.Tensor) -> tf.Tensor:
    """The voxels of a source (batch, z, y, x) that indices of `Cells` name."""
    return tf.gather(tf.reshape(source, [-1]), index)


def _positions(
    matrix: tf.Tensor, displacement: tf.Tensor | None, *, size: Shape, source_size: Shape
) -> list[tf.Tensor]:
    """float32 (batch, z, y, x) along z, y and x, kept within the source."""
    offsets = [tf.range(length, dtype=tf.float32) - (length - 1) / 2 for length in size]
    z, y, x = (
        tf.reshape(offset, [-1 if axis == own else 1 for axis in range(4)])
        for own, offset in enumerate(offsets, start=1)
    )
    found = []
    for axis, length in enumerate(source_size):
        by_z, by_y, by_x = (matrix[:, axis, i, None, None, None] for i in range(3))
        position = by_z * z + by_y * y + by_x * x + (length - 1) / 2
        if displacement is not None:
            position += displacement[:, axis]
        found.append(tf.clip_by_value(position, 0.0, length - 1.0))
    return found


def _flat_index(voxels: list[tf.Tensor], shape: Shape) -> tf.Tensor:
    """int32 indices of voxels in all samples' sources as one row."""
    depth, height, width = shape
    z, y, x = (tf.cast(voxel, tf.int32) for voxel in voxels)
    sample = tf.reshape(tf.range(tf.shape(z)[0]), [-1, 1, 1, 1])
    return ((sample * depth + z) * height + y) * width + x
