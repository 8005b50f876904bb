"""Application of drawn augmentation parameters to patches."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

from fcnseg.config import AugmentationConfig
from fcnseg.sampling.augmentation.affine import source_size
from fcnseg.sampling.augmentation.deformation import displacements, largest_displacement
from fcnseg.sampling.augmentation.intensity import Parameters, change_hu
from fcnseg.sampling.augmentation.parameters import draw_parameters
from fcnseg.sampling.augmentation.resample import Places, linear, nearest, places_of
from fcnseg.volumes import Shape, Triple, Zyx


class _Pieces(NamedTuple):
    """Separately compiled functions, shared by all patches, so that each is compiled once."""

    places: Callable[..., Any]
    resample: Callable[..., Any]
    change_hu: Callable[..., Any]


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """An augmentation of patches of one size.

    Attributes:
        config: Ranges of the draws.
        size: Voxels (z, y, x) of a patch.
        label_size: Voxels (z, y, x) of its label, which is the middle of the patch.
        spacing: Millimetres (z, y, x) between voxels.
    """

    config: AugmentationConfig
    size: Shape
    label_size: Shape
    spacing: Triple

    @property
    def active(self) -> bool:
        """True if there is anything to apply; a mere translation only moves the patch's centre."""
        return self.config.warps or self.config.changes_hu

    @functools.cached_property
    def source_size(self) -> Shape:
        """Voxels (z, y, x) to cut from the volume about the patch's centre.

        No draw reaches beyond them, so that a rotated patch shows the patient up to its corners.
        """
        return source_size(self.config, self.size, spacing=self.spacing)

    @functools.cached_property
    def largest_displacement(self) -> Triple:
        """Largest displacement (z, y, x) of a voxel by deformation, in voxels."""
        return Zyx(largest_displacement(self.config).tolist())

    def draw(self, seed: tf.Tensor) -> Parameters:
        """Draws the parameters of one patch; on the host, never in code that XLA compiles.

        Args:
            seed: int64 (2,); the draw depends on nothing else.
        """
        return draw_parameters(self.config, seed, size=self.size, spacing=self.spacing)

    def apply(
        self, hu: tf.Tensor, label: tf.Tensor, parameters: Parameters
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Augments a batch, moving the voxels of image and label alike: HU linear, label nearest.

        Args:
            hu: HU (batch, *source_size) of any real type.
            label: Class indices (batch, *source_size).
            parameters: Parameters from `draw`, each with a batch axis.

        Returns:
            HU float32 (batch, *size) and class indices (batch, *label_size).
        """
        if self.config.warps:
            hu, label = self._resample(hu, label, self._places(parameters))
        else:
            hu, label = tf.cast(hu, tf.float32), label[self._middle]
        return self._change_hu(hu, parameters), label

    def apply_compiled(
        self, hu: tf.Tensor, label: tf.Tensor, parameters: Parameters
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Augments a batch through XLA, in several pieces: much faster on a CPU than `apply`.

        One patch at a time is best: its intermediate values fit into the cache.
        """
        if self.config.warps:
            hu, label = self._compiled.resample(hu, label, self._compiled.places(parameters))
        else:
            hu, label = tf.cast(hu, tf.float32), label[self._middle]
        if self.config.changes_hu:
            hu = self._compiled.change_hu(hu, parameters)
        return hu, label

    @functools.cached_property
    def _compiled(self) -> _Pieces:
        steps = (self._places, self._resample, self._change_hu)
        return _Pieces(*(tf.function(step, jit_compile=True) for step in steps))

    def _places(self, parameters: Parameters) -> Places:
        displacement = None
        if any(self.config.deformation_voxels):
            displacement = displacements(parameters["control"], self.size, self.config)
        return places_of(
            parameters["matrix"], displacement, size=self.size, source_size=self.source_size
        )

    def _resample(
        self, hu: tf.Tensor, label: tf.Tensor, places: Places
    ) -> tuple[tf.Tensor, tf.Tensor]:
        of_label = Places(*(along[self._middle] for along in places))
        return linear(hu, places), nearest(label, of_label)

    def _change_hu(self, hu: tf.Tensor, parameters: Parameters) -> tf.Tensor:
        return change_hu(hu, parameters, self.config) if self.config.changes_hu else hu

    @property
    def _middle(self) -> tuple[slice, ...]:
        """Cuts the labelled middle (batch, *label_size) out of a patch (batch, *size)."""
        starts = (n // 2 - m // 2 for n, m in zip(self.size, self.label_size, strict=True))
        parts = (slice(a, a + m) for a, m in zip(starts, self.label_size, strict=True))
        return (slice(None), *parts)
