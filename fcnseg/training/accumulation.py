"""Gradient accumulation: steps from several micro-batches, for larger batches than fit at once."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf


def accumulate_in_step(model: keras.Model, count: int) -> None:
    """Makes the training step of a compiled model split its batch into micro-batches.

    The gradient is the mean over micro-batches, so it is that of the complete batch if the loss is
    a mean over samples; batch norm and sums over a batch are per micro-batch. Keras's own
    `gradient_accumulation_steps` fails under several replicas (keras #20582) and its state would
    have to be saved in mid-step; here no state is left when a step ends.

    Args:
        model: Compiled model, with the state that `make_state` makes.
        count: Micro-batches of each replica's batch, which is divisible by it; 1 changes nothing.
    """
    if count == 1:
        return
    (mean_loss,) = (metric for metric in model.metrics if metric.name == "loss")

    # Its loops are Python's; AutoGraph cannot convert annotated names and warns of each.
    @tf.autograph.experimental.do_not_convert
    def train_step(data: tuple[tf.Tensor, tf.Tensor]) -> dict[str, tf.Tensor]:
        totals: list[tf.Tensor] = []
        for hu, label in zip(*(tf.split(part, count) for part in data), strict=True):
            # Without this order TensorFlow would hold the activations of all micro-batches.
            with tf.control_dependencies(totals):
                hu, label = tf.identity(hu), tf.identity(label)
            gradients, loss, logits = _gradients(model, hu, label)
            replicas = model.distribute_strategy.num_replicas_in_sync  # Keras divides by them
            mean_loss.update_state(loss * replicas, sample_weight=tf.shape(hu)[0])
            logs: dict[str, tf.Tensor] = model.compute_metrics(hu, label, logits)
            if totals:
                gradients = [a + b for a, b in zip(totals, gradients, strict=True)]
            totals = gradients
        means = [total / count for total in totals]
        model.optimizer.apply_gradients(zip(means, model.trainable_weights, strict=True))
        return logs

    model.train_step = train_step


def _gradients(
    model: keras.Model, hu: tf.Tensor, label: tf.Tensor
) -> tuple[list[tf.Tensor], tf.Tensor, Any]:
    """Gradients of a micro-batch, its loss and logits; float16 has loss scaling."""
    with tf.GradientTape() as tape:
        logits = model(hu, training=True)
        loss = model.compute_loss(x=hu, y=label, y_pred=logits, training=True)
        scaled = model.optimizer.scale_loss(loss)
    return tape.gradient(scaled, model.trainable_weights), loss, logits
