"""Which input sizes a network takes, and what it gives for them: arithmetic, no TensorFlow.

Along each axis a level takes two 3x3x3 convolutions, each of which costs two voxels unless it pads,
and between levels 2x2x2 pooling halves the length, which must be even.
"""

from __future__ import annotations

import itertools

from fcnseg.config import ModelConfig
from fcnseg.errors import ModelError
from fcnseg.volumes.volume import Shape

_AXES = ("z", "y", "x")


def output_shape(config: ModelConfig, input_shape: Shape) -> Shape:
    """Voxels (z, y, x) of the logits for an input of (z, y, x) voxels.

    Raises:
        ModelError: If the input does not fit the network; the nearest sizes that do are named.
    """
    depth, height, width = (
        _output_length(config, length, axis=axis)
        for axis, length in zip(_AXES, input_shape, strict=True)
    )
    return depth, height, width


def skip_crop(config: ModelConfig, level: int) -> int:
    """Voxels to cut off each end of a level's skip connection so that it meets the decoder.

    The encoder's two convolutions at every level below the skip shrink what comes back up, and the
    decoder's at every level between; both count double for each level up.
    """
    lowest = len(config.filters) - 1
    crop = 0
    for below in range(lowest, level, -1):
        convolutions = 1 if below == lowest else 2  # pairs: the lowest level has no decoder
        crop = 2 * (crop + convolutions * _pair_loss(config) // 2)
    return crop


def _pair_loss(config: ModelConfig) -> int:
    """Voxels that the two convolutions of a level cost along an axis."""
    return 4 if config.padding == "valid" else 0


def _output_length(config: ModelConfig, length: int, *, axis: str) -> int:
    output = _length_if_fits(config, length)
    if output is None:
        lower = (size for size in range(length - 1, 0, -1) if _fits(config, size))
        upper = next(size for size in itertools.count(length + 1) if _fits(config, size))
        nearest = " and ".join(str(size) for size in (*itertools.islice(lower, 1), upper))
        raise ModelError(
            f"the input's {axis} must fit the network's {len(config.filters)} levels,"
            f" got {length} voxels; nearest that fit: {nearest}"
        )
    return output


def _fits(config: ModelConfig, length: int) -> bool:
    return _length_if_fits(config, length) is not None


def _length_if_fits(config: ModelConfig, length: int) -> int | None:
    """Voxels of the output along an axis, None if the input does not fit."""
    loss = _pair_loss(config)
    below = len(config.filters) - 1
    for _ in range(below):
        length -= loss
        if length <= 0 or length % 2:
            return None
        length //= 2
    length -= loss
    for _ in range(below):
        length = 2 * length - loss
    return length if length > 0 else None
