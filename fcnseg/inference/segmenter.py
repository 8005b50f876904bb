"""A trained network and its info, as the functions that segment patches and volumes."""

from __future__ import annotations

import keras
import tensorflow as tf

from fcnseg.errors import ModelError
from fcnseg.inference.checks import checked_request
from fcnseg.inference.resampling import count_voxels, resample_hu, resample_ids, spacing_steps
from fcnseg.inference.sliding_window import SlidingWindow
from fcnseg.inference.tiling import Tiling
from fcnseg.model_info import ModelInfo

_MAX_CLASSES = 256  # class ids are served as uint8

PATCHES = tf.TensorSpec([None, None, None, None, 1], tf.float32, name="patches")
VOLUME = tf.TensorSpec([None, None, None], tf.int16, name="volume")
SPACING = tf.TensorSpec([3], tf.float32, name="spacing")


def make_segmenter(model: keras.Model, info: ModelInfo) -> Segmenter:
    """Makes the functions that segment with a network; they follow its weights when it trains.

    Args:
        model: From HU float32 (batch, z, y, x, 1) to float32 logits (batch, z, y, x, classes).
        info: The window, grid and classes that the network was trained for.

    Returns:
        A segmenter, ready to be called or exported.

    Raises:
        ModelError: If the network does not fit the info.
    """
    *_, num_classes = model.output_shape
    if num_classes != info.num_classes or num_classes > _MAX_CLASSES:
        raise ModelError(
            f"the network must have one output a class and at most {_MAX_CLASSES}, got"
            f" {num_classes} outputs for {info.num_classes} classes"
        )
    if model.input_shape[-1] != 1:
        raise ModelError(
            f"the network must take HU alone, got one of {model.input_shape[-1]} channels; whoever"
            " gives it a coarse prediction too calls it directly"
        )
    return Segmenter(model, info)


class Segmenter(tf.Module):
    """Segments patches, volumes on the network's grid, and volumes of any spacing."""

    def __init__(self, model: keras.Model, info: ModelInfo) -> None:
        """Use `make_segmenter`, which checks that the two fit."""
        super().__init__()
        self.model = model
        self.info = info
        _, *tile, _ = model.compute_output_shape((1, *info.window, 1))
        self._sliding_window = SlidingWindow(
            self._predict_patches,
            Tiling(info.window, tuple(tile), info.overlap),
            num_classes=info.num_classes,
            batch_size=info.batch_size,
        )

    @tf.function(input_signature=[PATCHES])
    def predict_patches(self, patches: tf.Tensor) -> dict[str, tf.Tensor]:
        """Class probabilities of patches.

        Args:
            patches: HU, float32 (batch, z, y, x, 1).

        Returns:
            `probabilities`, float32 (batch, z, y, x, classes).
        """
        return {"probabilities": self._predict_patches(patches)}

    @tf.function(input_signature=[VOLUME])
    def segment_model_grid(self, hu: tf.Tensor) -> tf.Tensor:
        """Segments a volume that has the network's spacing and orientation.

        Args:
            hu: int16 (z, y, x).

        Returns:
            Class ids, uint8 (z, y, x).
        """
        return self._sliding_window.segment(hu)

    @tf.function(input_signature=[VOLUME, SPACING])
    def segment_volume(self, volume: tf.Tensor, spacing: tf.Tensor) -> dict[str, tf.Tensor]:
        """Segments a volume of any spacing, in the network's orientation.

        Args:
            volume: HU, int16 (z, y, x).
            spacing: float32 (3,), mm (z, y, x).

        Returns:
            `labels`, class ids uint8 (z, y, x) on the volume's own grid, and `voxel_counts`,
            int64 (classes,).

        Raises:
            tf.errors.InvalidArgumentError: If the volume has not three axes or too many voxels, or
                the spacing is not three positive numbers.
        """
        volume, spacing = checked_request(volume, spacing, self.info)
        steps = spacing_steps(spacing, self.info.spacing_mm)
        ids = self._sliding_window.segment(resample_hu(volume, steps))
        ids = resample_ids(ids, tf.shape(volume), steps, num_classes=self.info.num_classes)
        return {"labels": ids, "voxel_counts": count_voxels(ids, self.info.num_classes)}

    def _predict_patches(self, patches: tf.Tensor) -> tf.Tensor:
        logits = self.model(patches, training=False)
        return tf.nn.softmax(tf.cast(logits, tf.float32))
