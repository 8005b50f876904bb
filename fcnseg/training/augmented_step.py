"""Augmentation on the accelerator: part of the training step, not of the network."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from fcnseg.sampling.augmentation import Augmentation


def augment_in_step(model: keras.Model, changes: Augmentation) -> None:
    """Makes the training step of a compiled model apply the augmentation drawn by the dataset.

    The model takes the batches of `make_training_dataset` with `run_on` "device", each replica its
    own. Nothing that is saved changes: the step belongs to this object alone.

    Args:
        model: Compiled model, from HU to logits, with the state that `make_state` makes.
        changes: The augmentation; if it changes nothing, neither does the step.
    """
    if not changes.active or changes.config.run_on == "host":
        return
    step = model.train_step

    def train_step(data: tuple[Any, tf.Tensor]) -> dict[str, tf.Tensor]:
        (hu, parameters), label = data
        hu, label = changes.apply(hu, label, parameters)
        hu = tf.round(hu)  # like patches augmented on the host
        return step((hu[..., tf.newaxis], label))

    model.train_step = train_step
