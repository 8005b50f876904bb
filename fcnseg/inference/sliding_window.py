"""The sliding window: class ids of a volume of any size from a network that takes one window.

Overlapping tiles of probabilities are summed under Gaussian weights, and each voxel takes the class
with the largest sum. Tiles go from low z to high z; only the slices that later tiles can still
reach are kept, so the scores are tile depth x height x width x classes floats however many slices
there are. Everything is plain TensorFlow, so that it can be exported.
"""

from __future__ import annotations

import tensorflow as tf

from fcnseg.inference.averaging import PredictPatches
from fcnseg.inference.regions import background_outside
from fcnseg.inference.tiling import Tiling
from fcnseg.volumes import AIR_HU


class SlidingWindow:
    """Segments volumes on the network's own grid, one z row of tiles after the other.

    Its methods are to be called inside a `tf.function`.
    """

    def __init__(
        self,
        predict_patches: PredictPatches,
        tiling: Tiling,
        *,
        num_classes: int,
        batch_size: int,
    ) -> None:
        """Makes a sliding window.

        Args:
            predict_patches: From HU float32 (batch, z, y, x, 1), each patch a window, to
                probabilities float32 (batch, z, y, x, classes), each patch a tile.
            tiling: How windows cover a volume.
            num_classes: Classes, background included, at most 256.
            batch_size: Windows in a batch.
        """
        self.predict_patches = predict_patches
        self.tiling = tiling
        self.num_classes = num_classes
        self.batch_size = batch_size

    def segment(self, hu: tf.Tensor, region: tf.Tensor | None = None) -> tf.Tensor:
        """Segments a volume.

        Args:
            hu: int16 (z, y, x).
            region: bool (z, y, x); all of the volume by default. Windows whose tiles hold none of
                it are not computed, and what lies outside is background.

        Returns:
            Class ids, uint8 (z, y, x).
        """
        shape = tf.shape(hu)
        extent = tf.maximum(shape, self.tiling.tile)
        before = (extent - shape) // 2
        labels = self._segment_rows(hu, region, extent, before)
        end = before + shape
        labels = labels[before[0] : end[0], before[1] : end[1], before[2] : end[2]]
        return labels if region is None else background_outside(labels, region)

    def _segment_rows(
        self, hu: tf.Tensor, region: tf.Tensor | None, extent: tf.Tensor, before: tf.Tensor
    ) -> tf.Tensor:
        """Class ids (z, y, x) of the extent, in which the volume begins at `before`."""
        starts_z, starts_y, starts_x = (self.tiling.starts(axis, extent[axis]) for axis in range(3))
        corners = tf.stack(tf.meshgrid(starts_y, starts_x, indexing="ij"), axis=-1)
        corners = tf.reshape(corners, [-1, 2])
        ends = tf.concat([starts_z[1:], extent[:1]], axis=0)  # first slice that is not yet final
        finished = tf.TensorArray(tf.uint8, size=extent[0], element_shape=[None, None])
        # A ring along z: slice z of the volume is slice z % depth of the scores.
        depth = self.tiling.tile[0]
        scores = tf.zeros(tf.stack([depth, extent[1], extent[2], self.num_classes]))
        for row in tf.range(tf.size(starts_z)):
            # One after the other: rows in parallel would each hold a network's activations.
            tf.autograph.experimental.set_loop_options(
                parallel_iterations=1, shape_invariants=[(scores, self._scores_shape())]
            )
            start = starts_z[row]
            slab = self._slab(hu, extent, start - before[0])
            useful = corners
            if region is not None:
                useful = self._corners_within(region, corners, start - before[0], before)
            scores = self._add_row(scores, slab, useful, turn=start % depth)
            scores, finished = self._finish(scores, finished, start, ends[row])
        return finished.stack()

    def _slab(self, hu: tf.Tensor, extent: tf.Tensor, start: tf.Tensor) -> tf.Tensor:
        """HU (z, y, x) of a row of windows: the volume, and air where they reach beyond it.

        Args:
            hu: The volume, int16 (z, y, x).
            extent: Voxels (z, y, x) that tiles cover, the volume in their middle.
            start: Slice of the volume where tiles begin, below 0 if they do before it.
        """
        shape, margin = tf.shape(hu), self.tiling.margin
        first = start - margin[0]
        last = first + self.tiling.window[0]
        inside = hu[tf.maximum(first, 0) : last]  # padding the whole volume would copy it
        before = tf.concat([tf.maximum(-first, 0)[None], (extent - shape)[1:] // 2 + margin[1:]], 0)
        size = tf.concat([last[None] - first, extent[1:] + 2 * margin[1:]], 0)
        padding = tf.stack([before, size - before - tf.shape(inside)], axis=1)
        return tf.pad(inside, padding, constant_values=AIR_HU)

    def _corners_within(
        self, region: tf.Tensor, corners: tf.Tensor, start: tf.Tensor, before: tf.Tensor
    ) -> tf.Tensor:
        """Of a row's corners int32 (count, 2), those whose tiles hold a voxel of the region."""
        depth, height, width = self.tiling.tile
        plane = tf.reduce_any(region[tf.maximum(start, 0) : start + depth], axis=0)  # (y, x)

        def holds(corner: tf.Tensor) -> tf.Tensor:
            y, x = tf.unstack(corner - before[1:])
            rows = plane[tf.maximum(y, 0) : y + height]
            return tf.reduce_any(rows[:, tf.maximum(x, 0) : x + width])

        return tf.boolean_mask(corners, tf.map_fn(holds, corners, fn_output_signature=tf.bool))

    def _add_row(
        self, scores: tf.Tensor, slab: tf.Tensor, corners: tf.Tensor, *, turn: tf.Tensor
    ) -> tf.Tensor:
        """Adds the tiles at all (y, x) corners of one z row, in batches of windows.

        Args:
            scores: The ring (z, y, x, classes).
            slab: HU int16 (z, y, x), as deep as a window.
            corners: int32 (count, 2), where tiles begin along y and x.
            turn: Slice of the ring where the tiles' first slice belongs.
        """
        depth, height, width = self.tiling.window
        window = tf.TensorSpec(self.tiling.window, tf.int16)
        for first in tf.range(0, tf.shape(corners)[0], self.batch_size):
            tf.autograph.experimental.set_loop_options(
                parallel_iterations=1, shape_invariants=[(scores, self._scores_shape())]
            )
            batch = corners[first : first + self.batch_size]
            windows = tf.map_fn(
                lambda yx: slab[:depth, yx[0] : yx[0] + height, yx[1] : yx[1] + width],
                batch,
                fn_output_signature=window,
            )
            patches = tf.cast(windows[..., tf.newaxis], tf.float32)
            tiles = self.predict_patches(patches)
            scores = self._add_tiles(scores, tiles, batch, turn=turn)
        return scores

    def _add_tiles(
        self, scores: tf.Tensor, tiles: tf.Tensor, corners: tf.Tensor, *, turn: tf.Tensor
    ) -> tf.Tensor:
        """Adds each tile (batch, z, y, x, classes), weighted, at its (y, x) corner."""
        depth, height, width = self.tiling.tile
        for number in tf.range(tf.shape(corners)[0]):
            tf.autograph.experimental.set_loop_options(
                parallel_iterations=1, shape_invariants=[(scores, self._scores_shape())]
            )
            y, x = corners[number, 0], corners[number, 1]
            begin = tf.stack([0, y, x, 0])
            end = tf.stack([depth, y + height, x + width, self.num_classes])
            tile = tf.roll(tiles[number] * self.tiling.importance(), turn, axis=0)
            scores = _replaced(scores, begin, end, tf.strided_slice(scores, begin, end) + tile)
            scores = tf.ensure_shape(scores, self._scores_shape())
        return scores

    def _finish(
        self, scores: tf.Tensor, finished: tf.TensorArray, start: tf.Tensor, end: tf.Tensor
    ) -> tuple[tf.Tensor, tf.TensorArray]:
        """Takes the class ids of slices start to end, and clears them for the next.

        Slice by slice: the ids, or zeros, of all at once would be a part of the scores' own size.
        """
        size = tf.shape(scores)
        for z in tf.range(start, end):
            tf.autograph.experimental.set_loop_options(
                parallel_iterations=1, shape_invariants=[(scores, self._scores_shape())]
            )
            place = z % self.tiling.tile[0]
            ids = tf.cast(tf.argmax(scores[place], axis=-1, output_type=tf.int32), tf.uint8)
            finished = finished.write(z, ids)
            with tf.control_dependencies([ids]):  # who still read would make clearing copy all
                zeros = tf.zeros(tf.concat([[1], size[1:]], axis=0))
            begin = tf.stack([place, 0, 0, 0])
            end_of_slice = tf.concat([place[None] + 1, size[1:]], axis=0)
            scores = _replaced(scores, begin, end_of_slice, zeros)
            scores = tf.ensure_shape(scores, self._scores_shape())
        return scores, finished

    def _scores_shape(self) -> tf.TensorShape:
        return tf.TensorShape([self.tiling.tile[0], None, None, self.num_classes])


def _replaced(scores: tf.Tensor, begin: tf.Tensor, end: tf.Tensor, value: tf.Tensor) -> tf.Tensor:
    """The scores with a box of them replaced.

    This op writes into its input when nobody else holds it, as here: a tile costs the same in a
    slab of 0.1 GB and of 2 GB (21 ms at 64 x 64 x 64 x 8), and a third of what
    tensor_scatter_nd_add takes.
    """
    return tf.raw_ops.TensorStridedSliceUpdate(
        input=scores, begin=begin, end=end, strides=[1, 1, 1, 1], value=value
    )
