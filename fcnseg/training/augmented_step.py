"""Augmentation in front of the network: a part of the training step, not of the network."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from fcnseg.sampling.augmentation import Augmentation


def augment_in_step(model: keras.Model, changes: Augmentation) -> None:
    """Lets the training step of a compiled model apply what the dataset has drawn.

    The model takes the batches that `make_training_dataset` gives with `run_on` "device", on each
    replica its own. Nothing that is saved changes: the step belongs to this object alone.

    Args:
        model: Compiled, from HU to logits, with the state that `make_state` makes.
        changes: The augmentation; where it changes nothing, neither does the step.
    """
    if not changes.active or changes.config.run_on == "host":
        return
    step = model.train_step

    def train_step(data: tuple[Any, tf.Tensor]) -> dict[str, tf.Tensor]:
        (hu, parameters), label = data
        hu, label = changes.apply(hu, label, parameters)
        hu = tf.round(hu)  # as patches that are changed on the host
        return step((hu[..., tf.newaxis], label))

    model.train_step = train_step
