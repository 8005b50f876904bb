"""A model of a few ops, as a server's tests want it."""

from __future__ import annotations

from pathlib import Path

import tensorflow as tf


class HalfPlusTwo(tf.Module):
    """What the real server's tests serve, with an input and an output of each kind."""

    def __init__(self, offset=2.0):
        super().__init__()
        self.offset = tf.Variable(offset)
        self.half = tf.function(self._half, input_signature=[tf.TensorSpec([None], tf.float32)])
        self.label = tf.function(
            self._label,
            input_signature=[
                tf.TensorSpec([None], tf.int16, name="number"),
                tf.TensorSpec([None], tf.string, name="word"),
            ],
        )

    def _half(self, x):
        return {"y": x / 2 + self.offset}

    def _label(self, number, word):
        text = tf.strings.join([word, tf.strings.as_string(number)])
        return {"text": text, "raw_bytes": text, "total": tf.reduce_sum(number)}


def write_half_plus_two(folder: Path, offset=2.0):
    """Publishes as an export does: written elsewhere, then renamed."""
    module = HalfPlusTwo(offset)
    hidden = folder.parent / f".tmp-{folder.name}"
    signatures = {"serving_default": module.half, "label": module.label}
    tf.saved_model.save(module, hidden, signatures=signatures)
    hidden.rename(folder)
