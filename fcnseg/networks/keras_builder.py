"""Keras layers for the parts of a network."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import keras

from fcnseg.config import ModelConfig
from fcnseg.networks.keras_compat import random_layer_options
from fcnseg.networks.layers.activation import NEGATIVE_SLOPE
from fcnseg.networks.layers.conv_batch_norm_act import (
    ConvBatchNormAct,
    ConvTransposeBatchNormAct,
)
from fcnseg.networks.layers.hu_window import HUWindow
from fcnseg.networks.layers.upsampling import LinearUpsampling, NonOverlappingConv3DTranspose
from fcnseg.volumes import Shape

# A symbolic tensor (batch, z, y, x, channels): Keras 2 and 3 have different classes for it.
Tensor = Any

# The value of PyTorch and nnU-Net. Keras's own 0.99 needs some 500 steps to forget the initial
# values.
_BATCH_NORM_MOMENTUM = 0.9
_GROUPS = 8  # groups of group normalisation, or the largest number that divides the channels


@dataclasses.dataclass(frozen=True)
class KerasBuilder:
    """Builds a Keras layer, or none, for each part; see `fcnseg.networks.topology.LayerBuilder`."""

    config: ModelConfig
    precision: str

    def window(self, hu: Tensor) -> Tensor:
        """Maps HU to 0..1, in float32 whatever the precision."""
        only_first = self.config.coarse_input
        layer = HUWindow(
            *self.config.hu_window, only_first=only_first, dtype="float32", name="hu_window"
        )
        return layer(hu)

    def convolution(
        self,
        x: Tensor,
        *,
        filters: int,
        kernel: Shape,
        stride: Shape,
        use_bias: bool,
        activate: bool,
        name: str,
    ) -> Tensor:
        """Applies a convolution, normalisation and activation."""
        options = {
            "filters": filters,
            "kernel_size": kernel,
            "strides": stride,
            "padding": self.config.padding,
            "use_bias": use_bias or self.config.norm == "none",
            "kernel_initializer": "he_normal",
            **self._options(name, kernel=True),
        }
        if self._normalizes_by_batch:
            return ConvBatchNormAct(**options, **self._batch_norm(activate=activate))(x)
        return self._finished(keras.layers.Conv3D(**options)(x), activate=activate, name=name)

    def activation(self, x: Tensor, *, name: str) -> Tensor:
        """Applies the activation that `config.activation` names."""
        if self.config.activation == "leaky_relu":
            return keras.layers.LeakyReLU(NEGATIVE_SLOPE, **self._options(name))(x)
        return keras.layers.ReLU(**self._options(name))(x)

    def pool(self, x: Tensor, *, stride: Shape, mean: bool, name: str) -> Tensor:
        """Takes the maximum, or mean, of each block."""
        layer = keras.layers.AveragePooling3D if mean else keras.layers.MaxPooling3D
        return layer(stride, **self._options(name))(x)

    def transposed_convolution(
        self, x: Tensor, *, filters: int, stride: Shape, name: str
    ) -> Tensor:
        """Upsamples each voxel to a block of the stride's size, then normalises and activates."""
        # Each output voxel sees one tap of the kernel: He's variance is 2 over the input channels,
        # where Keras would take 2 over all taps of the output channels.
        scale = 2 * math.prod(stride) * filters / x.shape[-1]
        options = {
            "filters": filters,
            "kernel_size": stride,
            "strides": stride,
            "use_bias": self.config.norm == "none",
            "kernel_initializer": keras.initializers.VarianceScaling(scale, mode="fan_in"),
            **self._options(name, kernel=True),
        }
        if self._normalizes_by_batch:
            return ConvTransposeBatchNormAct(**options, **self._batch_norm(activate=True))(x)
        return self._finished(NonOverlappingConv3DTranspose(**options)(x), activate=True, name=name)

    def linear_upsampling(self, x: Tensor, *, stride: Shape, name: str) -> Tensor:
        """Interpolates linearly."""
        return LinearUpsampling(stride, **self._options(name))(x)

    def crop(self, x: Tensor, *, crop: Shape, name: str) -> Tensor:
        """Crops voxels at both ends of each axis."""
        return keras.layers.Cropping3D(crop, **self._options(name))(x)

    def add(self, tensors: Sequence[Tensor], *, name: str) -> Tensor:
        """Adds two tensors."""
        return keras.layers.Add(**self._options(name))(list(tensors))

    def concatenate(self, tensors: Sequence[Tensor], *, name: str) -> Tensor:
        """Concatenates channels."""
        return keras.layers.Concatenate(**self._options(name))(list(tensors))

    def dropout(self, x: Tensor, *, name: str) -> Tensor:
        """Drops complete channels while training."""
        options = self._options(name) | random_layer_options()
        return keras.layers.SpatialDropout3D(self.config.dropout, **options)(x)

    def softmax(self, x: Tensor, *, name: str) -> Tensor:
        """Computes probabilities of logits, in float32 like these."""
        return keras.layers.Softmax(dtype="float32", name=name)(x)

    def head(self, x: Tensor, *, filters: int, name: str) -> Tensor:
        """Applies a 1x1x1 convolution that gives float32 logits."""
        options = self._options(name, kernel=True) | {"dtype": "float32"}
        return keras.layers.Conv3D(filters, 1, kernel_initializer="he_normal", **options)(x)

    def channels(self, x: Tensor) -> int:
        """Channels of a tensor."""
        return int(x.shape[-1])

    def _options(self, name: str, *, kernel: bool = False) -> dict[str, Any]:
        """Arguments of every layer, and further ones for those with a kernel."""
        options: dict[str, Any] = {"dtype": self.precision, "name": name}
        if kernel and self.config.l2:
            options["kernel_regularizer"] = keras.regularizers.L2(self.config.l2)
        return options

    def _finished(self, x: Tensor, *, activate: bool, name: str) -> Tensor:
        """Normalises the output of a convolution by sample, if configured, and activates it."""
        if self.config.norm != "none":
            is_instance = self.config.norm == "instance"
            groups = -1 if is_instance else math.gcd(x.shape[-1], _GROUPS)
            options = self._options(f"{name}_norm")
            x = keras.layers.GroupNormalization(groups=groups, **options)(x)
        return self.activation(x, name=f"{name}_act") if activate else x

    @property
    def _normalizes_by_batch(self) -> bool:
        return self.config.norm in ("batch", "sync_batch")

    def _batch_norm(self, *, activate: bool) -> dict[str, Any]:
        return {
            "momentum": _BATCH_NORM_MOMENTUM,
            "synchronized": self.config.norm == "sync_batch",
            "nonlinearity": self.config.activation if activate else None,
        }
