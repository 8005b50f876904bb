"""The 3D fully convolutional network: encoder, decoder and a skip connection at each level."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import keras

from fcnseg.config import ModelConfig
from fcnseg.models import geometry
from fcnseg.models.layers import HUWindow
from fcnseg.volumes.volume import Shape

# A symbolic tensor (batch, z, y, x, channels): its class is another in Keras 2 and 3.
Tensor = Any

# What PyTorch and nnU-Net use. Keras's own 0.99 needs some 500 steps to forget where it started.
_BATCH_NORM_MOMENTUM = 0.9
_GROUPS = 8  # of group normalisation, or as many as divide the channels
_LEAK = 0.01  # nnU-Net


def build_fcn(
    config: ModelConfig,
    *,
    num_classes: int,
    input_shape: Shape | None = None,
    precision: str = "float32",
) -> keras.Model:
    """Builds a network from HU to logits.

    Each level of the encoder has two 3x3x3 convolutions and each but the lowest ends in 2x2x2
    max-pooling; the decoder goes back up by 2x2x2 transposed convolutions, meets the encoder's
    output of the same level, and has two 3x3x3 convolutions there; a 1x1x1 convolution makes the
    logits. Normalisation and activation follow every convolution but the last. Where there is
    normalisation, only the first and the last convolution have a bias. Weights are drawn as by He
    et al. 2015 from Keras's global random generator (`keras.utils.set_random_seed`).

    Args:
        config: Depth, channels, skip connections, padding, normalisation...
        num_classes: Classes, background included.
        input_shape: Voxels (z, y, x), if the network is for one size only; any by default.
        precision: Keras's policy for the layers between the HU window and the logits.

    Returns:
        A model from HU float32 (batch, z, y, x, 1) to logits float32 (batch, z, y, x, classes).

    Raises:
        ModelError: If `input_shape` does not fit the levels; the nearest sizes that do are named.
    """
    if input_shape is not None:
        geometry.output_shape(config, input_shape)
    layers = _Layers(config, precision)
    hu = keras.Input((*(input_shape or (None, None, None)), 1), name="hu")
    x = HUWindow(*config.hu_window, dtype="float32", name="hu_window")(hu)
    skips = []
    for level, filters in enumerate(config.filters):
        if level:
            x = keras.layers.MaxPooling3D(2, dtype=precision, name=f"pool_{level}")(x)
        first = max(1, filters // 2) if config.widen == "last" else filters
        x = layers.convolution(x, first, name=f"encoder_{level}_0", use_bias=level == 0)
        x = layers.convolution(x, filters, name=f"encoder_{level}_1")
        skips.append(x)
    if config.dropout:
        x = keras.layers.SpatialDropout3D(config.dropout, dtype=precision, name="dropout")(x)
    for level in reversed(range(len(config.filters) - 1)):
        x = layers.join(x, skips[level], level=level)
        for index in range(2):
            x = layers.convolution(x, config.filters[level], name=f"decoder_{level}_{index}")
    logits = keras.layers.Conv3D(
        num_classes, 1, kernel_initializer="he_normal", dtype="float32", name="logits"
    )(x)
    return keras.Model(hu, logits, name="fcn")


@dataclasses.dataclass(frozen=True)
class _Layers:
    """The parts of which a network is made, under one configuration and precision."""

    config: ModelConfig
    precision: str

    def convolution(self, x: Tensor, filters: int, *, name: str, use_bias: bool = False) -> Tensor:
        """A 3x3x3 convolution with normalisation and activation."""
        x = keras.layers.Conv3D(
            filters,
            3,
            padding=self.config.padding,
            use_bias=use_bias or self.config.norm == "none",
            kernel_initializer="he_normal",
            dtype=self.precision,
            name=name,
        )(x)
        return self.activate(x, name=name)

    def join(self, x: Tensor, skip: Tensor, *, level: int) -> Tensor:
        """Doubles the size of what comes from below and joins the skip connection to it."""
        concat = self.config.skip == "concat"
        before, after = x.shape[-1], (x if concat else skip).shape[-1]
        # Each output voxel sees one tap of the kernel: He's variance is 2 over the channels that
        # come in, where Keras would take 2 over eight taps of those that go out.
        initializer = keras.initializers.VarianceScaling(2 * 8 * after / before, mode="fan_in")
        x = keras.layers.Conv3DTranspose(
            after,
            2,
            strides=2,
            use_bias=self.config.norm == "none",
            kernel_initializer=initializer,
            dtype=self.precision,
            name=f"up_{level}",
        )(x)
        x = self.activate(x, name=f"up_{level}")
        crop = geometry.skip_crop(self.config, level)
        if crop:
            skip = keras.layers.Cropping3D(crop, dtype=self.precision, name=f"crop_{level}")(skip)
        layer = keras.layers.Concatenate if concat else keras.layers.Add
        return layer(dtype=self.precision, name=f"skip_{level}")([skip, x])

    def activate(self, x: Tensor, *, name: str) -> Tensor:
        """Normalisation and activation of what a convolution gave."""
        norm = self.normalization(x.shape[-1], name=f"{name}_norm")
        x = x if norm is None else norm(x)
        if self.config.activation == "leaky_relu":
            return keras.layers.LeakyReLU(_LEAK, dtype=self.precision, name=f"{name}_act")(x)
        return keras.layers.ReLU(dtype=self.precision, name=f"{name}_act")(x)

    def normalization(self, channels: int, *, name: str) -> keras.layers.Layer | None:
        """The layer that `config.norm` names."""
        options = {"dtype": self.precision, "name": name}
        match self.config.norm:
            case "batch" | "sync_batch" as norm:
                return keras.layers.BatchNormalization(
                    momentum=_BATCH_NORM_MOMENTUM, synchronized=norm == "sync_batch", **options
                )
            case "instance":
                return keras.layers.GroupNormalization(groups=-1, **options)
            case "group":
                groups = math.gcd(channels, _GROUPS)
                return keras.layers.GroupNormalization(groups=groups, **options)
            case _:
                return None
