"""The training step: from a batch of patches to changed weights, in the order of the code."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import tensorflow as tf

from fcnseg.networks.keras_compat import (
    apply_gradients,
    compute_loss,
    scale_loss,
    update_mean_loss,
)
from fcnseg.sampling import Batch
from fcnseg.sampling.augmentation import Augmentation
from fcnseg.training.ema import Average

Logs = dict[str, Any]
"""Results of metrics by name."""

Steps = Callable[[Iterator[Any], int, int], tuple[Logs, int]]
"""Takes batches, the number of the first step, counted from 1, and the number of steps. Gives the
logs of the last step done, and the number done: fewer if the loss was not finite."""


@dataclasses.dataclass(frozen=True)
class TrainingStep:
    """A training step of each replica, for its share of a batch.

    Keras's own accumulates gradients over several steps, which fails under several replicas (keras
    #20582) and leaves a state to save in mid-step, and it clips the gradient of each replica before
    they are summed.

    Attributes:
        model: Compiled model, from HU to logits, with the state that `make_state` makes.
        augmentation: Augmentation of batches that come with its parameters.
        micro_batches: Number of micro-batches of a replica's batch, which is divisible by it. The
            gradient is their mean, so it is that of the complete batch if the loss is a mean over
            samples; batch norm and sums over a batch are per micro-batch.
        clip_norm: Largest global norm of the gradients of all weights and all replicas together; 0
            for no limit.
    """

    model: keras.Model
    augmentation: Augmentation | None = None
    micro_batches: int = 1
    clip_norm: float = 0.0

    # Its loop is Python's: AutoGraph has nothing to convert, here or in what it calls.
    @tf.autograph.experimental.do_not_convert
    def on_replica(self, batch: Batch) -> tf.Tensor:
        """Changes the weights by the gradients of a replica's batch, and the epoch's metrics.

        Returns:
            The epoch's mean loss so far.
        """
        model = self.model
        totals: list[tf.Tensor] = []
        logs: Logs = {}
        parts = (self._split(part) for part in self.augmented(batch))
        for hu, label in zip(*parts, strict=True):
            # Without this order TensorFlow would hold the activations of all micro-batches.
            with tf.control_dependencies(totals):
                hu, label = tf.identity(hu), tf.identity(label)
            gradients, loss, logits = self._gradients(hu, label)
            replicas = model.distribute_strategy.num_replicas_in_sync  # Keras divides by them
            update_mean_loss(model, loss * replicas, tf.shape(hu)[0])
            logs = model.compute_metrics(hu, label, logits, None)
            if totals:
                gradients = [a + b for a, b in zip(totals, gradients, strict=True)]
            totals = gradients
        means = [total / self.micro_batches for total in totals]
        if isinstance(model.optimizer, keras.mixed_precision.LossScaleOptimizer):
            means = overflow_together(means)
        if self.clip_norm:
            # The loss, and so the gradient, is scaled in float16.
            means = clip_together(means, scale_loss(model.optimizer, self.clip_norm))
        apply_gradients(model.optimizer, means, model.trainable_weights)
        return logs["loss"]

    def augmented(self, batch: Batch) -> tuple[tf.Tensor, tf.Tensor]:
        """Applies the augmentation that the dataset drew for this step, if any.

        Returns:
            HU float32 (batch, z, y, x, 1) and class indices (batch, z, y, x).
        """
        if not batch.parameters:
            return batch.hu, batch.label
        assert self.augmentation is not None
        hu, label = self.augmentation.apply_compiled(batch.hu, batch.label, batch.parameters)
        return tf.round(hu)[..., tf.newaxis], label  # like patches augmented on the host

    def _split(self, part: tf.Tensor) -> list[tf.Tensor]:
        """Splits into micro-batches; class indices on the host, for want of a kernel on GPUs."""
        return tf.split(part, self.micro_batches) if self.micro_batches > 1 else [part]

    def _gradients(self, hu: tf.Tensor, label: tf.Tensor) -> tuple[list[tf.Tensor], tf.Tensor, Any]:
        """Gradients of a micro-batch, its loss and logits."""
        model = self.model
        with tf.GradientTape() as tape:
            logits = model(hu, training=True)
            loss = compute_loss(model, hu, label, logits, training=True)
            scaled = scale_loss(model.optimizer, loss)
        return tape.gradient(scaled, model.trainable_weights), loss, logits


def overflow_together(gradients: Sequence[tf.Tensor]) -> list[tf.Tensor]:
    """Makes the gradients of all replicas NaN if those of any are not finite.

    Keras 3.15 skips the step of a scaled loss that overflowed if the gradients of the first replica
    did, before they are summed: an overflow on another one would reach the weights.
    """
    replica = tf.distribute.get_replica_context()
    if replica is None or replica.num_replicas_in_sync == 1:
        return list(gradients)
    is_finite = tf.reduce_all([tf.reduce_all(tf.math.is_finite(each)) for each in gradients])
    overflows = replica.all_reduce(tf.distribute.ReduceOp.SUM, 1.0 - tf.cast(is_finite, tf.float32))
    first, *others = gradients
    return [tf.where(overflows > 0, tf.fill(tf.shape(first), math.nan), first), *others]


def clip_together(gradients: Sequence[tf.Tensor], norm: float | tf.Tensor) -> list[tf.Tensor]:
    """Scales a replica's gradients so that the sum over replicas has at most a global norm."""
    total = list(gradients)
    replica = tf.distribute.get_replica_context()
    if replica is not None and replica.num_replicas_in_sync > 1:
        total = replica.all_reduce(tf.distribute.ReduceOp.SUM, total)
    clipped, _ = tf.clip_by_global_norm(gradients, norm, use_norm=tf.linalg.global_norm(total))
    return clipped


def make_steps(step: TrainingStep, average: Average) -> Steps:
    """Makes the function that trains: several steps on all replicas, and the EMA after each.

    Python's work between two steps is then done once for several. Keras's own `steps_per_execution`
    does not stop at a loss that is not finite, and takes as many batches in each call.

    Args:
        step: The step of each replica.
        average: Average of the weights, updated after each step with a finite loss.
    """
    strategy = step.model.distribute_strategy
    on_replica: Callable[[Batch], tf.Tensor] = step.on_replica
    if step.model.jit_compile:
        on_replica = tf.function(on_replica, jit_compile=True, reduce_retracing=True)

    def mean(value: Any) -> tf.Tensor:
        return tf.reduce_mean(tf.stack(strategy.experimental_local_results(value)), axis=0)

    # The step stands once in here, so that its graph is built once.
    @tf.function
    def several(
        batches: Iterator[Any], first: tf.Tensor, count: tf.Tensor
    ) -> tuple[Logs, tf.Tensor]:
        done, is_finite = tf.constant(0), tf.constant(True)
        while done < count and is_finite:
            loss = mean(strategy.run(on_replica, args=(next(batches),)))
            is_finite = tf.math.is_finite(loss)
            if is_finite:
                average.update(first + done)
            done += 1
        logs = strategy.run(step.model.get_metrics_result)
        return tf.nest.map_structure(mean, logs), done

    def run(batches: Iterator[Any], first: int, count: int) -> tuple[Logs, int]:
        logs, done = several(batches, tf.constant(first), tf.constant(count))
        return logs, int(done)

    return run
