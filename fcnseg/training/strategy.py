"""On which devices a run trains."""

from __future__ import annotations

import tensorflow as tf


def make_strategy() -> tf.distribute.Strategy:
    """A `MirroredStrategy` over all visible GPUs, or over the CPU devices where there is none."""
    gpus = tf.config.list_logical_devices("GPU")
    if gpus:
        return tf.distribute.MirroredStrategy([device.name for device in gpus])
    cpus = tf.config.list_logical_devices("CPU")
    # Given explicitly: what TensorFlow would choose is the same, with a warning.
    reduction = tf.distribute.ReductionToOneDevice()
    return tf.distribute.MirroredStrategy([device.name for device in cpus], reduction)
