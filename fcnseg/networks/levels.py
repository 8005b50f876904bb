"""The levels of a network: the settings of each, defaults filled in."""

from __future__ import annotations

import dataclasses

from fcnseg.config import ModelConfig
from fcnseg.volumes import Shape

PLAIN_CONVOLUTIONS = 2  # convolutions of an encoder level without residual blocks


@dataclasses.dataclass(frozen=True)
class Level:
    """One level, from the top (0), at the resolution of the input, to the lowest.

    Attributes:
        filters: Number of output channels.
        kernel: Kernel size (z, y, x) of its convolutions.
        stride: Stride (z, y, x) from the level above.
        residual_blocks: Residual blocks of its encoder; 0 for two plain convolutions.
    """

    filters: int
    kernel: Shape
    stride: Shape
    residual_blocks: int


def levels_of(config: ModelConfig) -> tuple[Level, ...]:
    """Gives the levels, from the top down."""
    depth = config.depth
    kernels = config.kernels or ((3, 3, 3),) * depth
    strides = ((1, 1, 1), *(config.strides or ((2, 2, 2),) * (depth - 1)))
    blocks = config.residual_blocks or (0,) * depth
    columns = zip(config.filters, kernels, strides, blocks, strict=True)
    return tuple(Level(*row) for row in columns)
