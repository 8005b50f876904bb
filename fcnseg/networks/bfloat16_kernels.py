"""Kernels rounded to bfloat16, so that the results of a network stay near those in float32."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from fcnseg.networks.layers.conv_batch_norm_act import ConvBatchNormAct


def round_kernels(model: keras.Model) -> None:
    """Rounds the kernels of those convolutions of a network that compute in bfloat16.

    The factors of batch norms are multiplied into them before.

    Args:
        model: A network for inference.
    """
    for layer in model.layers:
        if layer.compute_dtype == "bfloat16" and _is_convolution(layer):
            if isinstance(layer, ConvBatchNormAct):
                layer.fold()
            kernel = tf.convert_to_tensor(layer.kernel).numpy()
            layer.kernel.assign(rounded_kernel(kernel, taps=(0, 1, 2)))


def rounded_kernel(
    kernel: npt.NDArray[np.float32], *, taps: Sequence[int]
) -> npt.NDArray[np.float32]:
    """Rounds a kernel to bfloat16 so that the sum of its taps stays.

    The error of each tap is added to the next one before that is rounded (error diffusion, after
    Floyd and Steinberg, 1976), so that of the sum is half the last digit of one tap: voxels that
    are neighbours are alike, and a convolution gives of them nearly the sum of its taps. Decision
    record 0027 has what that saves.

    Args:
        kernel: Its weights, with a sum for each place along the other axes.
        taps: Axes of the taps, in (z, y, x).

    Returns:
        Weights that bfloat16 has.
    """
    by_tap = np.moveaxis(kernel, taps, range(len(taps)))
    flat = by_tap.reshape(-1, *by_tap.shape[len(taps) :]).astype(np.float64)
    rounded = np.empty_like(flat)
    error = np.zeros_like(flat[0])
    for number, tap in enumerate(flat):
        rounded[number] = (tap + error).astype(tf.bfloat16.as_numpy_dtype)
        error += tap - rounded[number]
    back = np.moveaxis(rounded.reshape(by_tap.shape), range(len(taps)), taps)
    return np.ascontiguousarray(back, dtype=np.float32)


def _is_convolution(layer: keras.layers.Layer) -> bool:
    """True for those with several taps per voxel; Keras 2 derives transposed ones from them."""
    return isinstance(layer, keras.layers.Conv3D) and not isinstance(
        layer, keras.layers.Conv3DTranspose
    )
