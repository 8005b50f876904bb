"""Input sizes that a network takes, and the output sizes it gives: arithmetic, no TensorFlow.

Along each axis an unpadded convolution shortens by its kernel size minus one, and between levels
the length is divided by the level's stride, which must divide it.
"""

from __future__ import annotations

import itertools
import operator

from fcnseg.config import ModelConfig
from fcnseg.errors import ModelError
from fcnseg.networks.levels import PLAIN_CONVOLUTIONS, Level, levels_of
from fcnseg.volumes import Shape, Zyx

_AXES = ("z", "y", "x")


def output_shape(config: ModelConfig, input_shape: Shape) -> Shape:
    """Computes the voxels (z, y, x) of the logits for an input of (z, y, x) voxels.

    Raises:
        ModelError: If the input does not fit the network; the message names the nearest sizes that
            do.
    """
    return Zyx(_output_length(config, length, axis=axis) for axis, length in enumerate(input_shape))


def skip_crop(config: ModelConfig, level: int) -> Shape:
    """Voxels (z, y, x) to crop at each end of a level's skip connection to match the decoder.

    The encoder's convolutions at every level below the skip shrink the feature map that is
    upsampled again, and so do the decoder's at every level between; both count once for each step
    of the stride.
    """
    crop = [0, 0, 0]
    below = levels_of(config)[level + 1 :]
    for axis in range(3):
        for index, each in reversed(list(enumerate(below))):
            is_lowest = index == len(below) - 1
            loss = _encoder_loss(config, each, axis)
            loss += 0 if is_lowest else _decoder_loss(config, each, axis)
            crop[axis] = each.stride[axis] * (crop[axis] + loss // 2)
    return Zyx(crop)


def _encoder_loss(config: ModelConfig, level: Level, axis: int) -> int:
    """Voxels lost to the encoder's convolutions of a level along an axis."""
    return PLAIN_CONVOLUTIONS * (level.kernel[axis] - 1) if config.padding == "valid" else 0


def _decoder_loss(config: ModelConfig, level: Level, axis: int) -> int:
    lost = config.decoder_convolutions * (level.kernel[axis] - 1)
    return lost if config.padding == "valid" else 0


def _output_length(config: ModelConfig, length: int, *, axis: int) -> int:
    output = _length_if_fits(config, length, axis)
    if output is None:
        lower = (size for size in range(length - 1, 0, -1) if _fits(config, size, axis))
        upper = next(size for size in itertools.count(length + 1) if _fits(config, size, axis))
        nearest = " and ".join(str(size) for size in (*itertools.islice(lower, 1), upper))
        raise ModelError(
            f"the input's {_AXES[axis]} must fit the network's {config.depth} levels,"
            f" got {length} voxels; nearest that fit: {nearest}"
        )
    return output


def _fits(config: ModelConfig, length: int, axis: int) -> bool:
    return _length_if_fits(config, length, axis) is not None


def _length_if_fits(config: ModelConfig, length: int, axis: int) -> int | None:
    """Voxels of the output along an axis; None if the input does not fit."""
    levels = levels_of(config)
    shrink = pyramid_shrink(config)[0]
    length, rest = divmod(length, shrink)
    if rest:
        return None
    for above, level in itertools.pairwise(levels):
        length -= _encoder_loss(config, above, axis)
        if length <= 0 or length % level.stride[axis]:
            return None
        length //= level.stride[axis]
    length -= _encoder_loss(config, levels[-1], axis)
    for above, level in reversed(list(itertools.pairwise(levels))):
        length = length * level.stride[axis] - _decoder_loss(config, above, axis)
    return length * shrink if length > 0 else None


def pyramid_shrink(config: ModelConfig) -> tuple[int, ...]:
    """Factors by which each network of the pyramid sees the input reduced along each axis."""
    return tuple(2**step for step in reversed(range(config.pyramid)))


def supervision_strides(config: ModelConfig) -> tuple[Shape, ...]:
    """Strides (z, y, x) on the input's grid of all logits that have a loss in training.

    The full resolution comes first, then levels of the decoder from the top down, then the coarser
    networks of the pyramid from the finest.
    """
    strides: list[Shape] = [(1, 1, 1)]
    for level in levels_of(config)[1 : config.deep_supervision + 1]:
        strides.append(Zyx(map(operator.mul, strides[-1], level.stride)))
    coarser = reversed(pyramid_shrink(config)[:-1])
    return (*strides, *((shrink, shrink, shrink) for shrink in coarser))
