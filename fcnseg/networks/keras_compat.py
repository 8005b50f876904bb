"""Differences between Keras 3 and Keras 2.15, the last version that tensorflow-addons runs on."""

from __future__ import annotations

import contextlib
import io
import json
import os
import zipfile
from collections.abc import Iterable, Sequence
from typing import Any

import keras
import tensorflow as tf

from fcnseg.errors import OutputError, one_line

IS_KERAS_3 = not keras.__version__.startswith("2.")
LINE = 3 if IS_KERAS_3 else 2
"""Major version of Keras."""


WEIGHTS_FILE = "model.weights.h5"
"""Name of the weights in a `.keras` file, which both lines read."""


# TensorFlow's errors for a full disk, a file that is too large, and a folder that is not writable.
_OF_WRITING = (
    tf.errors.ResourceExhaustedError,
    tf.errors.OutOfRangeError,
    tf.errors.PermissionDeniedError,
    tf.errors.UnknownError,
)


def is_of_this_line(path: str | os.PathLike[str]) -> bool:
    """Tells whether this line of Keras wrote a `.keras` file; it reads no other's.

    Raises:
        OSError: If the file cannot be read.
        KeyError: If it has no version of Keras.
        ValueError: If it is no such file.
    """
    with zipfile.ZipFile(path) as archive:
        version = json.loads(archive.read("metadata.json"))["keras_version"]
    return bool(version.startswith("2.") != IS_KERAS_3)


def write_archive(archive: keras.export.ExportArchive, directory: str | os.PathLike[str]) -> None:
    """Writes a SavedModel without console output.

    Raises:
        OutputError: If it cannot be written, as on a full disk.
    """
    options = {"verbose": False} if IS_KERAS_3 else {}
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # Keras 2 prints the signatures
            archive.write_out(os.fspath(directory), **options)
    except _OF_WRITING as error:
        raise OutputError(f"cannot write {directory}: {one_line(error)}") from error


def tensorflow_variables(variables: Iterable[Any]) -> list[tf.Variable]:
    """Gives the `tf.Variable`s of a layer, model, metric or optimizer, which Keras 3 wraps."""
    return [variable.value for variable in variables] if IS_KERAS_3 else list(variables)


def random_layer_options() -> dict[str, Any]:
    """Gives the arguments with which a layer draws from a state that a checkpoint can hold."""
    return {} if IS_KERAS_3 else {"force_generator": True}


def random_states(model: keras.Model) -> list[Any]:
    """Lists the states of random generators that are not among the variables of a model."""
    if IS_KERAS_3:
        return []
    layers = [layer for layer in model.submodules if hasattr(layer, "_random_generator")]
    return [layer._random_generator._generator.state for layer in layers]


def compute_loss(
    model: keras.Model, hu: tf.Tensor, label: tf.Tensor, logits: Any, *, training: bool
) -> tf.Tensor:
    """Computes a replica's share of the loss of a batch.

    Args:
        model: Compiled model.
        hu: The input (batch, z, y, x, channels).
        label: Class indices (batch, z, y, x).
        logits: The output, a list of several.
        training: True in training.
    """
    options = {"training": training} if IS_KERAS_3 else {}
    return model.compute_loss(x=hu, y=label, y_pred=logits, **options)


def update_mean_loss(model: keras.Model, loss: tf.Tensor, count: tf.Tensor) -> None:
    """Updates the epoch's mean loss, which Keras 2 does where it computes the loss.

    Args:
        model: Compiled model.
        loss: A replica's mean loss ().
        count: Number of samples () of the replica.
    """
    if IS_KERAS_3:
        (mean_loss,) = (metric for metric in model.metrics if metric.name == "loss")
        mean_loss.update_state(loss, sample_weight=count)


def learning_rate(optimizer: Any) -> float:
    """Gives the learning rate of the next step."""
    rate = optimizer.learning_rate  # a variable where it is constant
    if not IS_KERAS_3 and not _is_legacy(optimizer):  # gives the rate of the last step
        rate = getattr(optimizer, "inner_optimizer", optimizer)._learning_rate
    if isinstance(rate, keras.optimizers.schedules.LearningRateSchedule):
        rate = rate(optimizer.iterations)
    return float(tf.convert_to_tensor(rate))


def build_optimizer_state(optimizer: Any, weights: Sequence[Any]) -> None:
    """Creates the variables of an optimizer for trainable weights."""
    if _is_legacy(optimizer):
        assert optimizer.iterations is not None  # its first use creates it
        optimizer._create_all_weights(weights)
    else:
        optimizer.build(weights)


def optimizer_variables(optimizer: Any) -> list[Any]:
    """Lists the variables of an optimizer, with its step count and the state of its loss scale."""
    if IS_KERAS_3:
        return list(optimizer.variables)
    # Keras 2 leaves the scale out, and a resumed run would begin with the initial one.
    scale = optimizer._loss_scale._weights.values() if _scales(optimizer) else ()
    if _is_legacy(optimizer):
        return [optimizer.iterations, *optimizer.weights, *scale]
    return [*optimizer.variables, *scale]


def scale_loss(optimizer: Any, loss: Any) -> Any:
    """Scales a loss, or a norm of its gradient, if the optimizer does so for float16."""
    if IS_KERAS_3:
        return optimizer.scale_loss(loss)
    return optimizer.get_scaled_loss(tf.convert_to_tensor(loss)) if _scales(optimizer) else loss


def apply_gradients(optimizer: Any, gradients: Sequence[Any], weights: Sequence[Any]) -> None:
    """Updates weights by the gradients of the scaled loss, summed over the replicas."""
    if not IS_KERAS_3 and _scales(optimizer):
        gradients = optimizer.get_unscaled_gradients(list(gradients))
    optimizer.apply_gradients(zip(gradients, weights, strict=True))


def _scales(optimizer: Any) -> bool:
    return isinstance(optimizer, keras.mixed_precision.LossScaleOptimizer)


def _is_legacy(optimizer: Any) -> bool:
    """Tells whether an optimizer is of the kind before Keras 2.11, as those of addons are."""
    return not IS_KERAS_3 and isinstance(optimizer, keras.optimizers.legacy.Optimizer)
