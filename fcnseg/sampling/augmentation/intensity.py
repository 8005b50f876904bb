"""Changes of HU that leave every voxel in its place: variation of scanners and patients."""

from __future__ import annotations

import math
from collections.abc import Callable

import tensorflow as tf

from fcnseg.config import AugmentationConfig

Parameters = dict[str, tf.Tensor]

_AIR_HU, _LARGEST_HU = -1024.0, 32767.0  # range of a CT in a record's int16


def change_hu(hu: tf.Tensor, parameters: Parameters, config: AugmentationConfig) -> tf.Tensor:
    """Changes HU: resolution first, then HU scale, noise last.

    Args:
        hu: float32 (batch, z, y, x).
        parameters: Parameters from `draw_parameters`, each with a batch axis.
        config: The changes that may have been drawn, and the window of gamma.

    Returns:
        HU float32 (batch, z, y, x), not below that of air.
    """
    steps, blur = parameters["step"], parameters["blur_voxels"]
    gamma, noise = parameters["gamma"], parameters["noise_hu"]
    if config.blur_mm or config.low_resolution != (1, 1, 1):
        changed = tf.reduce_any(steps > 1) | tf.reduce_any(blur > 0)
        hu = _if_any(changed, lambda: _smooth(hu, blur, steps), hu)
    hu = hu * _per_sample(parameters["contrast"]) + _per_sample(parameters["brightness_hu"])
    if config.gamma != (1, 1):
        hu = _if_any(gamma != 1, lambda: _bend(hu, gamma, config.gamma_window), hu)
    if config.noise_hu:
        seeds = parameters["noise_seed"]
        hu = _if_any(noise > 0, lambda: hu + _per_sample(noise) * _normal(hu.shape, seeds), hu)
    return tf.clip_by_value(hu, _AIR_HU, _LARGEST_HU)


def _if_any(condition: tf.Tensor, change: Callable[[], tf.Tensor], hu: tf.Tensor) -> tf.Tensor:
    """Applies a change if any sample needs it; an unused change costs nothing."""
    return tf.cond(tf.reduce_any(condition), change, lambda: hu)


def _smooth(hu: tf.Tensor, blur: tf.Tensor, step: tf.Tensor) -> tf.Tensor:
    """Blurs, and downsamples and upsamples: a product of matrices, one per axis."""
    _, *lengths = hu.shape
    along_z, along_y, along_x = (
        _coarse(step[:, axis], length) @ _gauss(blur[:, axis], length)
        for axis, length in enumerate(lengths)
    )
    hu = tf.einsum("bzyx,bix->bzyi", hu, along_x)
    hu = tf.einsum("bzyx,biy->bzix", hu, along_y)
    return tf.einsum("bzyx,biz->biyx", hu, along_z)


def _gauss(std: tf.Tensor, length: int) -> tf.Tensor:
    """The blur along an axis as a matrix (batch, length, length); its rows sum to one."""
    index = tf.range(length, dtype=tf.float32)
    distance = index[:, tf.newaxis] - index
    # 1e-3 of a voxel is no blur in float32.
    std = tf.maximum(std, 1e-3)[:, tf.newaxis, tf.newaxis]
    return _rows_to_one(tf.exp(-0.5 * (distance / std) ** 2))


def _coarse(step: tf.Tensor, length: int) -> tf.Tensor:
    """Linear down- and upsampling by a factor `step` as a matrix (batch, length, length).

    The coarse axis starts on the first voxel and has `length` entries in the matrix for any step;
    voxels beyond the last one have no weight.
    """
    step = step[:, tf.newaxis, tf.newaxis]
    index = tf.range(length, dtype=tf.float32)
    fine, coarse = index[tf.newaxis, tf.newaxis, :], index[tf.newaxis, :, tf.newaxis]
    weights = tf.nn.relu(1 - tf.abs(fine - coarse * step) / step)
    down = _rows_to_one(weights)
    inside = tf.cast(coarse * step < length + step - 1, tf.float32)
    up = _rows_to_one(tf.linalg.matrix_transpose(weights * inside))
    return up @ down


def _rows_to_one(matrix: tf.Tensor) -> tf.Tensor:
    return tf.math.divide_no_nan(matrix, tf.reduce_sum(matrix, axis=-1, keepdims=True))


def _bend(hu: tf.Tensor, gamma: tf.Tensor, window: tuple[float, float]) -> tf.Tensor:
    """Applies gamma to HU within a window; HU outside are unchanged."""
    low, high = window
    share = tf.clip_by_value((hu - low) / (high - low), 0, 1)
    return hu + (high - low) * (share ** _per_sample(gamma) - share)


def _normal(shape: tf.TensorShape, seeds: tf.Tensor) -> tf.Tensor:
    """Standard normal float32 (batch, z, y, x), each sample from its own seed (batch, 2).

    For TensorFlow's seeded draws only the bits are the same under XLA, hence Box and Muller.
    """

    def bits(seed: tf.Tensor) -> tf.Tensor:
        return tf.random.stateless_uniform(
            [2, *shape[1:]], seed, minval=None, maxval=None, dtype=tf.int32, alg="philox"
        )

    drawn = tf.stack([bits(seed) for seed in tf.unstack(seeds, num=shape[0])])
    # In (0, 1), which avoids the logarithm of 0: 2^-32 in float32 is small enough.
    share = tf.cast(drawn, tf.float32) * 2.0**-32 + 0.5 + 2.0**-26
    radius = tf.sqrt(-2 * tf.math.log(tf.clip_by_value(share[:, 0], 2.0**-26, 1.0)))
    return radius * tf.cos(2 * math.pi * share[:, 1])


def _per_sample(values: tf.Tensor) -> tf.Tensor:
    """Reshapes values (batch,) to broadcast over (batch, z, y, x)."""
    return tf.reshape(values, [-1, 1, 1, 1])
