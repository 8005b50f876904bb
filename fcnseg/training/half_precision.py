"""Tests of gradients in half precision, before a run relies on them.

TensorFlow 2.21's oneDNN occasionally gives a wrong gradient of kernels in bfloat16 if several
samples are two slices deep, on CPUs with AVX512-BF16: it contains earlier contents of the memory.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from fcnseg.config import Config
from fcnseg.errors import ConfigError
from fcnseg.networks import model_summary
from fcnseg.networks.onednn_faults import has_narrow_stride, is_affected

Gradient = Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]
"""Takes inputs, a kernel and the gradient of the outputs; gives the kernel's gradient."""

_WRONG_DEPTH = 2
# bfloat16 has 8 bits, float16 has 11: the largest errors seen are 0.6 % of the largest gradient.
_TOLERANCE = 0.05
_TRIES = 3  # earlier contents of the memory are often 0
_WIDTH = 8  # voxels (y, x) of the test, so that it takes a second


def kernel_gradient(inputs: tf.Tensor, kernel: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
    """Computes the gradient of the kernel of `tf.nn.conv3d`; see `Gradient`."""
    with tf.GradientTape() as tape:
        tape.watch(kernel)
        made = tf.nn.conv3d(inputs, kernel, [1] * 5, "SAME")
    return tape.gradient(made, kernel, output_gradients=outputs)


def check_half_precision(
    config: Config,
    devices: Sequence[str],
    *,
    num_classes: int,
    gradient: Gradient = kernel_gradient,
    cpuinfo: Path = Path("/proc/cpuinfo"),
) -> None:
    """Checks that the gradients of a network's convolutions are right on each device.

    Nothing is tested in float32. Otherwise each depth and number of channels of the network is
    tested with the batch of the configuration, against float32.

    Args:
        config: All settings.
        devices: Names of the devices, as in `GPU:0`.
        num_classes: Classes, background included.
        gradient: The tested function.
        cpuinfo: Linux's description of the CPU.

    Raises:
        ConfigError: If a gradient is wrong, or is known to be wrong occasionally.
    """
    precision, batch_size = config.training.precision, config.patches.batch_size
    if precision == "float32":
        return
    dtype = tf.dtypes.as_dtype(precision.removeprefix("mixed_"))
    check_known_errors(config, devices[0], num_classes=num_classes, cpuinfo=cpuinfo)
    for device, (depth, channels) in itertools.product(devices, _shapes(config, num_classes)):
        shape = (batch_size, depth, _WIDTH, _WIDTH, channels)
        with tf.device(device):
            error = gradient_error(shape, dtype, gradient=gradient)
        if not error < _TOLERANCE:  # also for NaN
            raise ConfigError(
                f"training.precision must be float32 on {device}: in {precision} the gradient"
                f" of a convolution of {batch_size} samples, {depth} slices and {channels}"
                f" channels is {error:.0%} off"
            )


def check_known_errors(
    config: Config, device: str, *, num_classes: int, cpuinfo: Path = Path("/proc/cpuinfo")
) -> None:
    """Checks that a network is not known to be computed wrongly on a device, without using it.

    Args:
        config: All settings.
        device: Name of the device, as in `GPU:0`.
        num_classes: Classes, background included.
        cpuinfo: Linux's description of the CPU.

    Raises:
        ConfigError: If it is.
    """
    precision, patches = config.training.precision, config.patches
    if precision == "float32" or not device.startswith("CPU") or not is_affected(cpuinfo):
        return
    if has_narrow_stride(config.model, patches.size):
        raise ConfigError(
            "training.precision must be float32 where a convolution with a stride gives one voxel"
            f" along x on this CPU, got {precision} and patches of {patches.size[2]} voxels along"
            " x: choose a patches.size with a larger x"
        )
    if patches.batch_size == 1:
        return
    depths = sorted({depth for depth, _ in _shapes(config, num_classes)})
    if _WRONG_DEPTH in depths:
        raise ConfigError(
            f"training.precision must be float32 where levels are {_WRONG_DEPTH} slices deep on"
            f" this CPU, got {precision} and levels of {', '.join(map(str, depths))} slices: choose"
            " a patches.size with another z, or patches.batch_size 1"
        )


def _shapes(config: Config, num_classes: int) -> list[tuple[int, int]]:
    """Slices and channels of the layers of a network, each pair once."""
    summary = model_summary(config.model, num_classes=num_classes, patch_size=config.patches.size)
    return sorted({(layer.size[0], layer.channels) for layer in summary.layers})


def gradient_error(
    shape: Sequence[int], dtype: tf.DType, *, gradient: Gradient = kernel_gradient
) -> float:
    """Computes the largest error of a kernel's gradient, relative to the largest value in float32.

    Args:
        shape: (batch, z, y, x, channels) of inputs and outputs.
        dtype: The tested precision.
        gradient: The tested function.
    """
    channels = shape[-1]
    errors = []
    for attempt in range(_TRIES):
        inputs, outputs = (
            tf.random.stateless_normal(shape, (attempt, number)) for number in range(2)
        )
        kernel = tf.random.stateless_normal((3, 3, 3, channels, channels), (attempt, 2)) / 10
        expected = gradient(inputs, kernel, outputs)
        found = gradient(*(tf.cast(each, dtype) for each in (inputs, kernel, outputs)))
        error = tf.reduce_max(tf.abs(tf.cast(found, tf.float32) - expected))
        errors.append(float(error / tf.reduce_max(tf.abs(expected))))
    return float(np.max(errors))  # NaN if one is
