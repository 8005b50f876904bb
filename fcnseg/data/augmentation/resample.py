"""The one resampling of a patch: every move of its voxels composed, one gather of the source.

Two steps, `positions` and then `linear` and `nearest`. In one piece, XLA would compute the
positions anew for each of its loops: that takes twice as long on a CPU, and where two loops round a
position to the two sides of a voxel, index and weight would not fit together.
"""

from __future__ import annotations

import tensorflow as tf

from fcnseg.volumes.volume import Shape


def positions(
    matrix: tf.Tensor, displacement: tf.Tensor | None, *, size: Shape, source_size: Shape
) -> list[tf.Tensor]:
    """Where in its source each voxel of a patch comes from; both have one centre.

    Args:
        matrix: (batch, 3, 3) from offsets in the patch to offsets in the source, in voxels.
        displacement: Voxels (batch, 3, z, y, x) to add, or None.
        size: Voxels (z, y, x) of the patch.
        source_size: Voxels (z, y, x) of the source.

    Returns:
        float32 (batch, z, y, x) along z, y and x, kept within the source.
    """
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


def linear(source: tf.Tensor, at: list[tf.Tensor]) -> tf.Tensor:
    """Values between the voxels of a source.

    Args:
        source: (batch, z, y, x) of any real type, at least two voxels along each axis.
        at: As `positions` gives them.

    Returns:
        float32 (batch, z, y, x) of the positions' shape.
    """
    _, depth, height, width = source.shape
    floors = [tf.minimum(tf.floor(p), n - 2.0) for p, n in zip(at, source.shape[1:], strict=True)]
    share_z, share_y, share_x = (p - floor for p, floor in zip(at, floors, strict=True))
    index = _flat_index(floors, (depth, height, width))
    flat = tf.reshape(source, [-1])

    def edge(start: int) -> tf.Tensor:
        """On the edge along x that starts so many voxels after the first."""
        # A slice, as one more addition to each index takes longer.
        here, there = (
            tf.cast(tf.gather(flat[start + step :], index), tf.float32) for step in (0, 1)
        )
        return here + share_x * (there - here)

    def face(start: int) -> tf.Tensor:
        near, far = edge(start), edge(start + width)
        return near + share_y * (far - near)

    near, far = face(0), face(height * width)
    return near + share_z * (far - near)


def nearest(source: tf.Tensor, at: list[tf.Tensor]) -> tf.Tensor:
    """Values of the voxels of a source (batch, z, y, x) that are nearest to positions."""
    _, depth, height, width = source.shape
    index = _flat_index([tf.floor(position + 0.5) for position in at], (depth, height, width))
    return tf.gather(tf.reshape(source, [-1]), index)


def _flat_index(voxels: list[tf.Tensor], shape: Shape) -> tf.Tensor:
    """int32 indices of voxels in all samples' sources as one row."""
    _, height, width = shape
    z, y, x = (tf.cast(voxel, tf.int32) for voxel in voxels)
    sample = tf.reshape(tf.range(tf.shape(z)[0]), [-1, 1, 1, 1])
    return ((sample * shape[0] + z) * height + y) * width + x
