"""Random parameters of a patch's augmentation: a few numbers, from which tensors are made later."""

from __future__ import annotations

import tensorflow as tf

from fcnseg.config import AugmentationConfig
from fcnseg.sampling.augmentation.affine import patch_matrix
from fcnseg.sampling.augmentation.deformation import control_shape
from fcnseg.volumes import Shape, Triple

# Uniform numbers per draw; a gate decides whether a change of HU is applied to a patch.
_DRAWS = {"angles": 3, "scale": 1, "flip": 3, "hu": 5, "step": 3, "gates": 6}


def draw_parameters(
    config: AugmentationConfig, seed: tf.Tensor, *, size: Shape, spacing: Triple
) -> dict[str, tf.Tensor]:
    """Draws the augmentation parameters of one patch.

    Args:
        config: Ranges of the draws.
        seed: int64 (2,); the draw depends on nothing else.
        size: Voxels (z, y, x) of the patch.
        spacing: Millimetres (z, y, x) between its voxels.

    Returns:
        `matrix` (3, 3) and `control` (3, *control points) for the resampling; `blur_voxels` and
        `step` (3,), `noise_hu`, `brightness_hu`, `contrast` and `gamma` () and `noise_seed` (2,)
        for HU. Changes not applied to the patch have their neutral value.
    """
    share_seed, control_seed, noise_seed = tf.unstack(
        tf.random.experimental.stateless_split(seed, 3)
    )
    shares = tf.random.stateless_uniform([sum(_DRAWS.values())], share_seed)
    drawn = dict(zip(_DRAWS, tf.split(shares, list(_DRAWS.values())), strict=True))
    matrix = patch_matrix(
        (2 * drawn["angles"] - 1) * tf.constant(config.rotation_degrees, tf.float32),
        _between(config.scale, drawn["scale"][0]),
        drawn["flip"] < tf.constant(config.flip, tf.float32),
        spacing=spacing,
    )
    control = tf.random.stateless_uniform([3, *control_shape(size, config)], control_seed, -1, 1)
    control *= tf.reshape(tf.constant(config.deformation_voxels, tf.float32), [3, 1, 1, 1])
    return {
        "matrix": matrix,
        "control": control,
        "noise_seed": noise_seed,
        **_hu_parameters(config, drawn, spacing=spacing),
    }


def _hu_parameters(
    config: AugmentationConfig, drawn: dict[str, tf.Tensor], *, spacing: Triple
) -> dict[str, tf.Tensor]:
    reached = drawn["gates"] < config.intensity_probability
    blur, noise, brightness, contrast, gamma = tf.unstack(drawn["hu"])
    factors = tf.constant(config.low_resolution, tf.float32)
    values = {
        "blur_voxels": (0.0, blur * config.blur_mm / tf.constant(spacing, tf.float32)),
        "step": (1.0, 1 + drawn["step"] * (factors - 1)),
        "noise_hu": (0.0, noise * config.noise_hu),
        "brightness_hu": (0.0, (2 * brightness - 1) * config.brightness_hu),
        "contrast": (1.0, _between(config.contrast, contrast)),
        "gamma": (1.0, _between(config.gamma, gamma)),
    }
    return {
        name: tf.where(gate, value, tf.fill(tf.shape(value), unchanged))
        for gate, (name, (unchanged, value)) in zip(
            tf.unstack(reached), values.items(), strict=True
        )
    }


def _between(limits: tuple[float, float], share: tf.Tensor) -> tf.Tensor:
    low, high = limits
    return low + share * (high - low)
