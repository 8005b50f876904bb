"""Orders that a seed and a number decide, and nothing that came before."""

from __future__ import annotations

import tensorflow as tf


def shuffled_range(count: int, *, seed: int, number: tf.Tensor) -> tf.Tensor:
    """The numbers 0 to `count` - 1 in the order that a seed and an int64 number decide, int64."""
    # TensorFlow's `index_shuffle` would give one place of it, but takes 0.3 ms for each where there
    # are few.
    seeds = tf.stack([tf.constant(seed, tf.int64), number])
    return tf.random.experimental.stateless_shuffle(tf.range(count, dtype=tf.int64), seeds)
