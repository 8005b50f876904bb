"""Segmentation of patches and volumes with trained networks and their info."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import keras
import tensorflow as tf

from fcnseg.errors import ModelError
from fcnseg.inference.averaging import PredictPatches, Timed, mean_of, over_flips
from fcnseg.inference.backend import Backend
from fcnseg.inference.checks import checked_patches, checked_request
from fcnseg.inference.openvino_backend import predictor_by_openvino
from fcnseg.inference.openvino_network import OpenvinoNetwork
from fcnseg.inference.patch_sizes import PatchSizes
from fcnseg.inference.regions import background_outside, body_region, dilated, resample_region
from fcnseg.inference.resampling import (
    count_voxels,
    resample_back,
    resample_hu,
    resample_ids,
    spacing_steps,
)
from fcnseg.inference.sliding_window import PROBABILITY_SCALE, SlidingWindow
from fcnseg.runs.model_info import ModelInfo
from fcnseg.volumes import AIR_HU, Axis, Shape, Zyx
from fcnseg.volumes.tiling import Tiling

_MAX_CLASSES = 256  # class ids are served as uint8

PATCHES = tf.TensorSpec([None, None, None, None, 1], tf.float32, name="patches")
VOLUME = tf.TensorSpec([None, None, None], tf.int16, name="volume")
SPACING = tf.TensorSpec([3], tf.float32, name="spacing")
REGION = tf.TensorSpec([None, None, None], tf.bool, name="region")
VOXELS = tf.TensorSpec([], tf.int32, name="voxels")
IDS = tf.TensorSpec([None, None, None], tf.uint8, name="ids")
SCORES = tf.TensorSpec([None, None, None, None], tf.int16, name="scores")


def make_segmenter(
    models: keras.Model | OpenvinoNetwork | Sequence[keras.Model | OpenvinoNetwork],
    info: ModelInfo,
    *,
    flips: Sequence[Axis] = (),
    backend: Backend = "tensorflow",
) -> Segmenter:
    """Makes the functions that segment with a network.

    With TensorFlow they follow its weights as it trains.

    Args:
        models: A network, or several, whose probabilities are averaged. Each goes from HU float32
            (batch, z, y, x, 1) to float32 logits (batch, z, y, x, classes). OpenVINO takes its own
            networks too.
        info: The window, grid and classes that the networks were trained for.
        flips: Axes whose flips are averaged too, each of which doubles the work.
        backend: Runtime that computes the windows; OpenVINO takes windows alone, on the CPU, and
            has the weights that the networks have now.

    Returns:
        A segmenter, ready to be called or, with TensorFlow, exported.

    Raises:
        ModelError: If a network does not fit the info or the backend, or the outputs of two differ.
        MissingExtraError: If the backend is not installed.
    """
    if isinstance(models, (keras.Model, OpenvinoNetwork)):
        models = (models,)
    models = tuple(models)
    for model in models:
        _check_fits(model, info)
        if backend != "openvino" and isinstance(model, OpenvinoNetwork):
            raise ModelError(f"a network of OpenVINO needs the backend openvino, got {backend}")
    tiles = {_tile(model, info) for model in models}
    if len(tiles) != 1:
        raise ModelError(
            f"networks must give tiles of one size (z, y, x), got {sorted(tiles)} of windows of"
            f" {info.window} voxels"
        )
    return Segmenter(models, info, tile=tiles.pop(), flips=flips, backend=backend)


def _check_fits(model: keras.Model, info: ModelInfo) -> None:
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


def _tile(model: keras.Model, info: ModelInfo) -> Shape:
    """Voxels (z, y, x) of a network's output for a window."""
    return Zyx(model.compute_output_shape((1, *info.window, 1))[1:-1])


class _OnGrid(NamedTuple):
    """A volume on the network's grid.

    Attributes:
        hu: int16 (z, y, x).
        region: The part to compute, bool (z, y, x); None means all.
        steps: Ratio of the network's spacing to the volume's own, float64 (3,).
    """

    hu: tf.Tensor
    region: tf.Tensor | None
    steps: tf.Tensor


class Segmenter(tf.Module):
    """Segments patches, volumes on the network's grid, and volumes of any spacing."""

    def __init__(
        self,
        models: Sequence[keras.Model | OpenvinoNetwork],
        info: ModelInfo,
        *,
        tile: Shape,
        flips: Sequence[Axis],
        backend: Backend,
    ) -> None:
        """Takes values that `make_segmenter` has checked; use that function instead."""
        super().__init__()
        self.models = models
        self.info = info
        self.backend = backend
        predictors = [_predictor(model, info.window, backend) for model in models]
        self._predict_patches = over_flips(mean_of(predictors), flips)
        self.tiling = Tiling(info.window, tile, info.overlap)
        self._sliding_window = self._slide(self._predict_patches)

    def _slide(self, predict_patches: PredictPatches) -> SlidingWindow:
        return SlidingWindow(
            predict_patches,
            self.tiling,
            num_classes=self.info.num_classes,
            batch_size=self.info.batch_size,
        )

    @functools.cached_property
    def _timed(self) -> Timed:
        """The network with a clock, whose operations an export would have too."""
        return Timed(self._predict_patches)

    @functools.cached_property
    def _timed_window(self) -> SlidingWindow:
        return self._slide(self._timed)

    @functools.cached_property
    def patch_sizes(self) -> PatchSizes:
        """Patch sizes that `predict_patches` takes."""
        info = self.info
        return PatchSizes.of(self.models, info.window, batch_size=info.batch_size)

    @tf.function(input_signature=[PATCHES])
    def predict_patches(self, patches: tf.Tensor) -> dict[str, tf.Tensor]:
        """Computes class probabilities of patches.

        Args:
            patches: HU, float32 (batch, z, y, x, 1).

        Returns:
            `probabilities`, float32 (batch, z, y, x, classes).

        Raises:
            tf.errors.InvalidArgumentError: If the patches have a shape that the network does not
            take, are too many, or are not finite.
        """
        patches = checked_patches(patches, self.patch_sizes)
        return {"probabilities": self._predict_patches(patches)}

    @tf.function(input_signature=[VOLUME])
    def segment_model_grid(self, hu: tf.Tensor) -> tf.Tensor:
        """Segments a volume that has the network's spacing and orientation.

        Args:
            hu: int16 (z, y, x).

        Returns:
            Class ids, uint8 (z, y, x).
        """
        return self._sliding_window.segment(hu, self._body(hu))

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
            tf.errors.InvalidArgumentError: If the volume does not have three axes or has too many
            voxels, or the spacing is not three positive numbers.
        """
        volume, spacing = checked_request(volume, spacing, self.info)
        region = self._body(volume)
        return self._segment(volume, region, self._on_grid(volume, spacing, region))

    @tf.function(input_signature=[VOLUME, SPACING])
    def find_body(self, volume: tf.Tensor, spacing: tf.Tensor) -> tf.Tensor:
        """Finds the part of a volume to compute; this and what follows is not exported.

        Args:
            volume: HU, int16 (z, y, x).
            spacing: float32 (3,), mm (z, y, x).

        Returns:
            The body, or all of it without `skip_air`, bool (z, y, x).
        """
        volume, _ = checked_request(volume, spacing, self.info)
        body = self._body(volume)
        return tf.ones_like(volume, tf.bool) if body is None else body

    @tf.function(input_signature=[VOLUME, SPACING])
    def to_grid(self, volume: tf.Tensor, spacing: tf.Tensor) -> tf.Tensor:
        """Resamples HU, int16 (z, y, x) of a spacing in mm, to the network's grid."""
        volume, spacing = checked_request(volume, spacing, self.info)
        return self._on_grid(volume, spacing, None).hu

    @tf.function(input_signature=[REGION, SPACING])
    def region_to_grid(self, region: tf.Tensor, spacing: tf.Tensor) -> tf.Tensor:
        """Resamples a region, bool (z, y, x) of a spacing in mm, to the network's grid."""
        return resample_region(region, spacing_steps(spacing, self.info.spacing_mm))

    @tf.function(input_signature=[REGION])
    def count_windows(self, region: tf.Tensor) -> tf.Tensor:
        """Counts the windows with a voxel of a region, bool (z, y, x) on the network's grid."""
        return self._sliding_window.count_windows(region)

    @tf.function(input_signature=[VOLUME, REGION])
    def segment_grid(self, hu: tf.Tensor, region: tf.Tensor) -> dict[str, tf.Tensor]:
        """Segments a volume on the network's grid within a region; all else is not computed.

        Args:
            hu: int16 (z, y, x).
            region: bool (z, y, x).

        Returns:
            `ids`, class ids uint8 (z, y, x), background outside the region; and `seconds` of the
            network, float64.
        """
        self._timed.seconds.assign(0)
        ids = self._timed_window.segment(hu, region)
        return {"ids": ids, "seconds": self._timed.seconds.read_value()}

    @tf.function(input_signature=[VOLUME, REGION])
    def score_grid(self, hu: tf.Tensor, region: tf.Tensor) -> dict[str, tf.Tensor]:
        """Segments like `segment_grid`, and gives scores from which `probability_of` computes.

        Args:
            hu: int16 (z, y, x).
            region: bool (z, y, x).

        Returns:
            What `segment_grid` gives, and `scores`, probabilities int16 (z, y, x, classes) in units
            of 1 / `PROBABILITY_SCALE`.
        """
        self._timed.seconds.assign(0)
        ids, scores = self._timed_window.segment_with_probabilities(hu, region)
        return {"ids": ids, "scores": scores, "seconds": self._timed.seconds.read_value()}

    @tf.function(input_signature=[IDS, REGION, SPACING])
    def to_volume(self, ids: tf.Tensor, region: tf.Tensor, spacing: tf.Tensor) -> tf.Tensor:
        """Resamples class ids to a volume's own grid.

        Args:
            ids: On the network's grid, uint8 (z, y, x).
            region: The part that was computed, bool (z, y, x) on the volume's own grid.
            spacing: float32 (3,), mm (z, y, x) of the volume.

        Returns:
            uint8 (z, y, x), background outside the region.
        """
        steps = spacing_steps(spacing, self.info.spacing_mm)
        ids = resample_ids(ids, tf.shape(region), steps, num_classes=self.info.num_classes)
        return background_outside(ids, region)

    @tf.function(input_signature=[SCORES, REGION, SPACING, VOXELS])
    def probability_of(
        self, scores: tf.Tensor, region: tf.Tensor, spacing: tf.Tensor, index: tf.Tensor
    ) -> tf.Tensor:
        """Resamples the probability of a class linearly to a volume's own grid.

        Args:
            scores: Scores from `score_grid`.
            region: The part that was computed, bool (z, y, x) on the volume's own grid; outside,
                all is background.
            spacing: float32 (3,), mm (z, y, x) of the volume.
            index: Index of the class.

        Returns:
            int16 (z, y, x), in units of 1 / `PROBABILITY_SCALE`.
        """
        steps = spacing_steps(spacing, self.info.spacing_mm)
        outside = tf.where(
            index == 0, tf.constant(PROBABILITY_SCALE, tf.int16), tf.constant(0, tf.int16)
        )
        inside = tf.where(resample_region(region, steps), scores[..., index], outside)
        return tf.where(region, resample_back(inside, tf.shape(region), steps), outside)

    @tf.function(input_signature=[VOLUME, SPACING, VOXELS])
    def foreground_region(
        self, volume: tf.Tensor, spacing: tf.Tensor, dilation_voxels: tf.Tensor
    ) -> tf.Tensor:
        """Finds the region of interest for a finer network: all organs, dilated.

        Args:
            volume: HU, int16 (z, y, x).
            spacing: float32 (3,), mm (z, y, x).
            dilation_voxels: Dilation along each axis, in voxels of this network's grid.

        Returns:
            bool (z, y, x), on the volume's own grid.
        """
        volume, spacing = checked_request(volume, spacing, self.info)
        grid = self._on_grid(volume, spacing, self._body(volume))
        ids = self._sliding_window.segment(grid.hu, grid.region)
        near = tf.cast(dilated(ids > 0, dilation_voxels), tf.uint8)
        return resample_ids(near, tf.shape(volume), grid.steps, num_classes=2) > 0

    def _segment(
        self, volume: tf.Tensor, region: tf.Tensor | None, grid: _OnGrid
    ) -> dict[str, tf.Tensor]:
        """Segments a volume within a region on its own grid; None means all of it."""
        ids = self._sliding_window.segment(grid.hu, grid.region)
        ids = resample_ids(ids, tf.shape(volume), grid.steps, num_classes=self.info.num_classes)
        ids = ids if region is None else background_outside(ids, region)
        return {"labels": ids, "voxel_counts": count_voxels(ids, self.info.num_classes)}

    def _body(self, hu: tf.Tensor) -> tf.Tensor | None:
        """The part of a volume to compute; None means all."""
        return body_region(hu) if self.info.skip_air else None

    def _on_grid(self, volume: tf.Tensor, spacing: tf.Tensor, region: tf.Tensor | None) -> _OnGrid:
        # Padding far below air would spread when resampled; the conversion clips it likewise.
        hu = tf.maximum(volume, tf.constant(AIR_HU, tf.int16))
        steps = spacing_steps(spacing, self.info.spacing_mm)
        resampled = None if region is None else resample_region(region, steps)
        return _OnGrid(resample_hu(hu, steps), resampled, steps)


def _predictor(
    model: keras.Model | OpenvinoNetwork, window: Shape, backend: Backend
) -> PredictPatches:
    """Makes the function from windows to probabilities."""
    if isinstance(model, OpenvinoNetwork):
        return model.predictor()
    if backend == "openvino":
        return predictor_by_openvino(model, window)
    return functools.partial(_probabilities, model)


def _probabilities(model: keras.Model, patches: tf.Tensor) -> tf.Tensor:
    logits = model(patches, training=False)
    return tf.nn.softmax(tf.cast(logits, tf.float32))
