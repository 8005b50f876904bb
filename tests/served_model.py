"""A model with a signature for each type and each kind of call."""

from __future__ import annotations

from pathlib import Path

import tensorflow as tf

TYPES = (
    *(tf.float64, tf.int8, tf.int16, tf.int32, tf.int64, tf.uint8, tf.uint16, tf.uint32),
    *(tf.uint64, tf.bool, tf.string, tf.half, tf.bfloat16, tf.complex64),
)
EXAMPLE = {"x": tf.io.FixedLenFeature([], tf.float32, default_value=2.0)}


class ServedModel(tf.Module):
    """Half of a number and two, of tensors and of examples; and what is given."""

    def __init__(self, offset=2.0):
        super().__init__()
        self.offset = tf.Variable(offset)
        examples = [tf.TensorSpec([None], tf.string, name="inputs")]
        numbers = [tf.TensorSpec(None, tf.float32, name="x")]
        self.functions = {
            "serving_default": self._function(self._half, numbers),
            "regress": self._function(self._regress, examples),
            "classify": self._function(self._classify, examples),
            "scores": self._function(self._scores, examples),
            "two": self._function(
                self._two,
                [
                    tf.TensorSpec([None], tf.float32, name="a"),
                    tf.TensorSpec([None], tf.string, name="t"),
                ],
            ),
            "total": self._function(lambda x: {"total": tf.reduce_sum(x)}, numbers),
            "uneven": self._function(lambda x: {"y": x, "z": x[1:]}, numbers),
            "positive": self._function(self._positive, numbers),
            "slow": self._function(self._slow, [tf.TensorSpec([], tf.int32, name="n")]),
        }
        for dtype in TYPES:
            spec = [tf.TensorSpec(None, dtype, name="x")]
            identity = self._function(lambda x: {"y": tf.identity(x)}, spec)
            self.functions[f"id_{dtype.name}"] = identity
            if dtype not in (tf.string, tf.bool):
                cast = self._function(lambda x, dtype=dtype: {"y": tf.cast(x, dtype)}, numbers)
                self.functions[f"to_{dtype.name}"] = cast

    def _function(self, work, specs):
        return tf.function(work, input_signature=specs)

    def _half(self, x):
        return {"y": x / 2 + self.offset}

    def _of_examples(self, inputs):
        return tf.io.parse_example(inputs, EXAMPLE)["x"][:, None] / 2 + self.offset

    def _regress(self, inputs):
        return {"outputs": self._of_examples(inputs)}

    def _scores(self, inputs):
        return {"scores": self._of_examples(inputs)}

    def _classify(self, inputs):
        scores = self._of_examples(inputs)
        return {"scores": scores, "classes": tf.fill(tf.shape(scores), "c")}

    def _two(self, a, t):
        return {"s": a + 1, "t_bytes": t, "u": t}

    def _positive(self, x):
        tf.debugging.assert_positive(x, "x must be positive")
        return {"y": x}

    def _slow(self, n):
        x = tf.ones([200, 200])
        _, x = tf.while_loop(lambda i, _: i < n, lambda i, x: (i + 1, tf.tanh(x @ x)), [0, x])
        return {"y": tf.reduce_sum(x)}


def write_served_model(folder: Path, offset=2.0):
    """Publishes as an export does: written elsewhere, then renamed."""
    module = ServedModel(offset)
    hidden = folder.parent / f".tmp-{folder.name}"
    tf.saved_model.save(module, hidden, signatures=module.functions)
    hidden.rename(folder)
