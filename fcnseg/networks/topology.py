"""The topology of a network: encoder, decoder, skip connections, pyramid.

The parts are passed in: with Keras layers (`fcnseg.networks.keras_builder`) the topology becomes a
network, with counters (`fcnseg.networks.cost`) a table of its cost, so the two cannot disagree on
the order.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Generic, Protocol, TypeVar

from fcnseg.config import ModelConfig
from fcnseg.networks.levels import PLAIN_CONVOLUTIONS, Level, levels_of
from fcnseg.networks.shapes import pyramid_shrink, skip_crop
from fcnseg.volumes import Shape

T = TypeVar("T")  # a feature map: tensor or sizes

_ONE: Shape = (1, 1, 1)
LOGITS = "logits"
"""Name of the part that gives the logits of the full resolution."""


class LayerBuilder(Protocol[T]):
    """The parts of a network. Each maps (batch, z, y, x, channels) to the same."""

    def window(self, hu: T) -> T:
        """Maps HU to 0..1."""

    def convolution(
        self,
        x: T,
        *,
        filters: int,
        kernel: Shape,
        stride: Shape,
        use_bias: bool,
        activate: bool,
        name: str,
    ) -> T:
        """Applies a convolution, the configured normalisation and, if asked, activation.

        It has a bias also without normalisation.
        """

    def activation(self, x: T, *, name: str) -> T:
        """Applies the configured activation."""

    def pool(self, x: T, *, stride: Shape, mean: bool, name: str) -> T:
        """Takes the maximum, or mean, of each block."""

    def transposed_convolution(self, x: T, *, filters: int, stride: Shape, name: str) -> T:
        """Upsamples each voxel to a block of the stride's size, then normalises and activates."""

    def linear_upsampling(self, x: T, *, stride: Shape, name: str) -> T:
        """Interpolates linearly to a stride times the voxels."""

    def crop(self, x: T, *, crop: Shape, name: str) -> T:
        """Crops voxels at both ends of each axis."""

    def add(self, tensors: Sequence[T], *, name: str) -> T:
        """Adds two feature maps."""

    def concatenate(self, tensors: Sequence[T], *, name: str) -> T:
        """Concatenates channels."""

    def dropout(self, x: T, *, name: str) -> T:
        """Drops complete channels while training."""

    def softmax(self, x: T, *, name: str) -> T:
        """Computes probabilities of logits."""

    def head(self, x: T, *, filters: int, name: str) -> T:
        """Applies a 1x1x1 convolution that gives float32 logits."""

    def channels(self, x: T) -> int:
        """Channels of a feature map."""


def assemble(
    config: ModelConfig, parts: LayerBuilder[T], hu: T, *, num_classes: int, supervised: bool
) -> list[T]:
    """Assembles a network.

    Args:
        config: Configuration of the network.
        parts: Its parts.
        hu: Its input.
        num_classes: Classes, background included.
        supervised: True to give also the logits of coarser levels that have a loss.

    Returns:
        Logits of the full resolution; then those of the decoder's levels from the top down, and of
        the pyramid's coarser networks from the finest, if `supervised`.
    """
    windowed = parts.window(hu)
    coarser: list[T] = []
    for shrink in pyramid_shrink(config):
        network = _Network(config, parts, f"reduced_{shrink}_" if shrink > 1 else "")
        x = network.reduced(windowed, shrink)
        if coarser:
            x = network.joined_to_coarser(x, coarser[0])
        decoded = network.decoded(x)
        coarser.insert(0, network.logits(decoded[0], num_classes, name=LOGITS))
    if not supervised:
        return coarser[:1]
    deep = [
        network.logits(decoded[level], num_classes, name=f"{LOGITS}_{level}")
        for level in range(1, config.deep_supervision + 1)
    ]
    return [coarser[0], *deep, *coarser[1:]]


@dataclasses.dataclass(frozen=True)
class _Network(Generic[T]):
    """One network of the pyramid; its parts' names begin with `prefix`."""

    config: ModelConfig
    parts: LayerBuilder[T]
    prefix: str

    def reduced(self, x: T, shrink: int) -> T:
        """The input at the resolution of this network."""
        if shrink == 1:
            return x
        return self.parts.pool(x, stride=(shrink,) * 3, mean=True, name=f"{self.prefix}input")

    def joined_to_coarser(self, x: T, logits: T) -> T:
        """The input concatenated with the prediction of the coarser network."""
        probabilities = self.parts.softmax(logits, name=f"{self.prefix}coarse_probabilities")
        coarse = self.parts.linear_upsampling(
            probabilities, stride=(2, 2, 2), name=f"{self.prefix}coarse"
        )
        return self.parts.concatenate([x, coarse], name=f"{self.prefix}with_coarse")

    def decoded(self, x: T) -> dict[int, T]:
        """The output of each level of the decoder."""
        levels = levels_of(self.config)
        skips = []
        for index, level in enumerate(levels):
            encode = self._residual_level if level.residual_blocks else self._plain_level
            x = encode(x, index, level)
            skips.append(x)
        if self.config.dropout:
            x = self.parts.dropout(x, name=f"{self.prefix}dropout")
        decoded = {}
        for index in reversed(range(self.config.depth - 1)):
            x = self._join(x, skips[index], index, stride=levels[index + 1].stride)
            for number in range(self.config.decoder_convolutions):
                x = self._convolution(
                    x, levels[index], name=f"{self.prefix}decoder_{index}_{number}"
                )
            decoded[index] = x
        return decoded

    def logits(self, x: T, num_classes: int, *, name: str) -> T:
        """Logits of a level of the decoder."""
        return self.parts.head(x, filters=num_classes, name=self.prefix + name)

    def _plain_level(self, x: T, index: int, level: Level) -> T:
        name = f"{self.prefix}encoder_{index}"
        if index:
            x = self.parts.pool(
                x, stride=level.stride, mean=False, name=f"{self.prefix}pool_{index}"
            )
        narrow = max(1, level.filters // 2) if self.config.widen == "last" else level.filters
        for number in range(PLAIN_CONVOLUTIONS):
            filters = narrow if number == 0 else level.filters
            x = self._convolution(
                x,
                level,
                filters=filters,
                use_bias=index == number == 0,
                name=f"{name}_{number}",
            )
        return x

    def _residual_level(self, x: T, index: int, level: Level) -> T:
        """A level of nnU-Net's residual encoder, whose first block has the stride."""
        name = f"{self.prefix}encoder_{index}"
        if index == 0:
            x = self._convolution(x, level, use_bias=True, name=f"{self.prefix}stem")
        for number in range(level.residual_blocks):
            stride = level.stride if number == 0 else _ONE
            x = self._residual_block(x, level, stride=stride, name=f"{name}_{number}")
        return x

    def _residual_block(self, x: T, level: Level, *, stride: Shape, name: str) -> T:
        """Two convolutions, and the simplest shortcut past them that their sizes allow."""
        shortcut = x
        if stride != _ONE:
            shortcut = self.parts.pool(shortcut, stride=stride, mean=True, name=f"{name}_pool")
        if self.parts.channels(x) != level.filters:
            shortcut = self._unactivated(
                shortcut, level, kernel=_ONE, stride=_ONE, name=f"{name}_shortcut"
            )
        x = self._convolution(x, level, stride=stride, name=f"{name}_0")
        x = self._unactivated(x, level, kernel=level.kernel, stride=_ONE, name=f"{name}_1")
        x = self.parts.add([x, shortcut], name=f"{name}_add")
        return self.parts.activation(x, name=f"{name}_act")

    def _join(self, x: T, skip: T, index: int, *, stride: Shape) -> T:
        """Upsamples to the next level and joins the skip connection."""
        concat = self.config.skip == "concat"
        filters = self.parts.channels(x if concat else skip)
        x = self._up(x, filters, stride=stride, name=f"{self.prefix}up_{index}")
        crop = skip_crop(self.config, index)
        if any(crop):
            skip = self.parts.crop(skip, crop=crop, name=f"{self.prefix}crop_{index}")
        join = self.parts.concatenate if concat else self.parts.add
        return join([skip, x], name=f"{self.prefix}skip_{index}")

    def _up(self, x: T, filters: int, *, stride: Shape, name: str) -> T:
        if self.config.upsampling == "transposed":
            return self.parts.transposed_convolution(x, filters=filters, stride=stride, name=name)
        x = self.parts.convolution(
            x,
            filters=filters,
            kernel=_ONE,
            stride=_ONE,
            use_bias=False,
            activate=True,
            name=name,
        )
        return self.parts.linear_upsampling(x, stride=stride, name=f"{name}_linear")

    def _convolution(
        self,
        x: T,
        level: Level,
        *,
        name: str,
        filters: int | None = None,
        stride: Shape = _ONE,
        use_bias: bool = False,
    ) -> T:
        """A convolution with normalisation and activation."""
        return self.parts.convolution(
            x,
            filters=filters or level.filters,
            kernel=level.kernel,
            stride=stride,
            use_bias=use_bias,
            activate=True,
            name=name,
        )

    def _unactivated(self, x: T, level: Level, *, kernel: Shape, stride: Shape, name: str) -> T:
        """A convolution with normalisation alone."""
        return self.parts.convolution(
            x,
            filters=level.filters,
            kernel=kernel,
            stride=stride,
            use_bias=False,
            activate=False,
            name=name,
        )
