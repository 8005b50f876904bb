"""Batch normalisation of volumes through TensorFlow's fused kernel."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from fcnseg.networks.layers.activation import Activation, activated


@keras.saving.register_keras_serializable(package="fcnseg")
class BatchNormalization(keras.layers.BatchNormalization):
    """Keras's batch normalisation over the last axis, faster, with the same weights.

    TensorFlow's fused kernel, which needs one pass, and no float32 copy in half precision, takes
    images only; so a volume (batch, z, y, x, channels) is viewed as images (batch, z * y, x,
    channels), and activated in that form, which fuses both into one kernel (docs/models.md).
    Statistics over several replicas are left to Keras.

    Args:
        activation: The activation that follows, if any.
        **kwargs: Those of Keras's layer.
    """

    def __init__(self, *, activation: Activation | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.activation = activation

    def call(self, inputs: tf.Tensor, training: Any = None, mask: Any = None) -> tf.Tensor:
        """Normalises (batch, z, y, x, channels)."""
        uses_batch = bool(training) and self.trainable
        if mask is not None or (uses_batch and self.synchronized and _replicas() > 1):
            plain = super().call(inputs, training=training, mask=mask)
            return activated(plain, self.activation)
        shape = tf.shape(inputs)
        images = tf.reshape(inputs, [shape[0], -1, shape[3], inputs.shape[-1]])
        normalize = self._by_batch if uses_batch else self._by_average
        outputs = tf.reshape(activated(normalize(images), self.activation), shape)
        outputs.set_shape(inputs.shape)
        return outputs

    def scale_and_shift(self) -> tuple[tf.Tensor, tf.Tensor]:
        """Gives the factor and the shift of inference, each float32 (channels,)."""
        variance = tf.convert_to_tensor(self.moving_variance)
        scale = tf.convert_to_tensor(self.gamma) * tf.math.rsqrt(variance + self.epsilon)
        mean, beta = tf.convert_to_tensor(self.moving_mean), tf.convert_to_tensor(self.beta)
        return scale, beta - mean * scale

    def get_config(self) -> dict[str, Any]:
        """The arguments."""
        return {**super().get_config(), "activation": self.activation}

    def _by_batch(self, images: tf.Tensor) -> tf.Tensor:
        """Normalises by the batch's own moments, which also update the moving averages."""
        normalized, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=images, mean=[], variance=[], is_training=True, **self._weights()
        )
        count = tf.cast(tf.size(images) / images.shape[-1], tf.float32)
        # The kernel gives the unbiased estimate, while Keras averages the biased variance.
        variance = variance * (count - 1) / count
        for average, value in ((self.moving_mean, mean), (self.moving_variance, variance)):
            old = tf.convert_to_tensor(average)
            average.assign(old * self.momentum + value * (1 - self.momentum))
        return normalized

    def _by_average(self, images: tf.Tensor) -> tf.Tensor:
        """Normalises by the moving averages."""
        normalized, *_ = tf.raw_ops.FusedBatchNormV3(
            x=images,
            mean=tf.convert_to_tensor(self.moving_mean),
            variance=tf.convert_to_tensor(self.moving_variance),
            is_training=False,
            **self._weights(),
        )
        return normalized

    def _weights(self) -> dict[str, Any]:
        return {
            "scale": tf.convert_to_tensor(self.gamma),
            "offset": tf.convert_to_tensor(self.beta),
            "epsilon": self.epsilon,
        }


def _replicas() -> int:
    replica = tf.distribute.get_replica_context()
    return 1 if replica is None else int(replica.num_replicas_in_sync)
