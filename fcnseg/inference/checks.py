"""Checks of requests to a model, inside the graph.

A server feeds the tensors of a request, whatever shapes the signature has, and some kernels end the
process on a tensor of an unexpected rank. Therefore each signature checks its inputs before any
other op uses them.
"""

from __future__ import annotations

import tensorflow as tf

from fcnseg.inference.patch_sizes import PatchSizes
from fcnseg.inference.resampling import resampled_shape, spacing_steps
from fcnseg.runs.model_info import ModelInfo

# Beyond any CT; shorter spacings mean a header in metres, longer ones one in micrometres.
_SPACING_MM = (0.01, 100.0)
# Resampling takes a float64 matrix (new, old) along each axis: 134 MB at this length. A bed moves
# 2000 mm, which is 4000 slices of 0.5 mm.
_MAX_AXIS = 4096


def checked_patches(patches: tf.Tensor, sizes: PatchSizes) -> tf.Tensor:
    """Returns the patches after checking them.

    Args:
        patches: HU, float32 (batch, z, y, x, 1).
        sizes: Sizes that the network takes.

    Raises:
        tf.errors.InvalidArgumentError: If a check fails; it names the argument, the rule and the
        shape.
    """
    fed = as_fed(patches)
    shape = tf.shape(fed)
    is_shape = tf.logical_and(tf.equal(tf.size(shape), 5), tf.reduce_all(shape > 0))
    shape = checked(
        shape,
        tf.logical_and(is_shape, tf.equal(tf.reduce_sum(shape[4:]), 1)),
        "patches must have five axes (batch, z, y, x, 1) of at least one voxel, got shape {}",
    )
    shape = checked(
        shape,
        _voxels(shape) <= sizes.max_voxels,
        f"patches must have at most {sizes.max_voxels} voxels in all, got shape {{}}",
    )
    beyond = shape[1:4] - tf.constant(sizes.smallest)
    fits = tf.logical_and(beyond >= 0, tf.equal(beyond % tf.constant(sizes.step), 0))
    shape = checked(
        shape,
        tf.reduce_all(fits),
        f"patches must be {sizes.smallest} voxels (z, y, x) or more in steps of {sizes.step}, got"
        " shape {}",
    )
    shape = checked(
        shape,
        tf.reduce_all(tf.math.is_finite(fed)),
        "patches must be finite HU, got NaN or infinity in patches of shape {}",
    )
    with tf.control_dependencies([shape]):
        return tf.identity(patches)


def checked_request(
    volume: tf.Tensor, spacing: tf.Tensor, info: ModelInfo
) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the volume and spacing after checking them.

    Args:
        volume: HU, int16 (z, y, x).
        spacing: float32 (3,), mm (z, y, x).
        info: Info of the model, whose `max_voxels` applies at both spacings, as does `_MAX_AXIS`.

    Raises:
        tf.errors.InvalidArgumentError: If a check fails; it names the argument, the rule and the
        value.
    """
    shape = tf.shape(as_fed(volume))
    shape = checked(
        shape,
        tf.logical_and(tf.equal(tf.size(shape), 3), tf.reduce_all(shape > 0)),
        "volume must have three axes (z, y, x) of at least one voxel, got shape {}",
    )
    sizes = _checked_spacing(spacing)
    shape = _checked_size(shape, info, "")
    shape = resampled_shape(shape, spacing_steps(sizes, info.spacing_mm))
    shape = _checked_size(shape, info, " at the spacing of the model")
    with tf.control_dependencies([shape]):
        return tf.identity(volume), sizes


def as_fed(tensor: tf.Tensor) -> tf.Tensor:
    """Hides the static shape of a tensor of a request; nothing is copied.

    The graph optimizer would otherwise remove a check against the declared shape.
    """
    box = tf.TensorArray(
        tensor.dtype, size=1, infer_shape=False, element_shape=tf.TensorShape(None)
    )
    return box.write(0, tensor).read(0)


def checked(value: tf.Tensor, holds: tf.Tensor, rule: str, *shown: tf.Tensor) -> tf.Tensor:
    """Returns the value after checking a rule.

    Args:
        value: The value; whatever uses the one returned runs after the check.
        holds: Scalar bool.
        rule: Message of the error; its `{}` show the tensors in `shown`, in order.
        *shown: Tensors to show, by default the value.

    Raises:
        tf.errors.InvalidArgumentError: If the rule does not hold.
    """
    message = tf.strings.format(rule, shown or (value,)) if "{}" in rule else rule
    check = tf.debugging.Assert(holds, [message])
    with tf.control_dependencies([check]):
        return tf.identity(value)


def _checked_spacing(spacing: tf.Tensor) -> tf.Tensor:
    """Returns the spacing after checking it."""
    fed, (low, high) = as_fed(spacing), _SPACING_MM
    sizes = tf.reshape(fed, [-1])
    is_triple = tf.logical_and(tf.equal(tf.rank(fed), 1), tf.equal(tf.size(fed), 3))
    is_length = tf.logical_and(sizes >= low, sizes <= high)  # both are False for NaN
    return checked(
        sizes,
        tf.logical_and(is_triple, tf.reduce_all(is_length)),
        f"spacing must be three positive numbers in mm, {low:g} to {high:g}, got {{}} of shape"
        " {}",
        sizes,
        tf.shape(fed),
    )


def _checked_size(shape: tf.Tensor, info: ModelInfo, where: str) -> tf.Tensor:
    """Returns the shape (z, y, x) after checking that it is not too large."""
    shape = checked(
        shape,
        _voxels(shape) <= info.max_voxels,
        f"volume must have at most {info.max_voxels} voxels{where}, got shape {{}}",
    )
    return checked(
        shape,
        tf.reduce_all(shape <= _MAX_AXIS),
        f"volume must have at most {_MAX_AXIS} voxels along each axis{where}, got shape {{}}",
    )


def _voxels(shape: tf.Tensor) -> tf.Tensor:
    """Product of a shape, as float64: three sizes may overflow an integer."""
    return tf.reduce_prod(tf.cast(shape, tf.float64))
