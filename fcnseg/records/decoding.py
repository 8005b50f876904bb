"""Bytes to tensors: the half of the schema that needs TensorFlow."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from fcnseg.records.schema import ARRAYS, TEXT


def decode_record(
    serialized: tf.Tensor, *, label_dtype: tf.DType = tf.uint8
) -> dict[str, tf.Tensor]:
    """Reads a record inside a TensorFlow graph.

    Each array is one copy of its bytes, so draw several patches of a decoded record.

    Args:
        serialized: A scalar string, as `encode_record` made it.
        label_dtype: `tf.uint16` where the dataset has more than 255 classes.

    Returns:
        A tensor for each attribute of `Record`, under its name, and `shape` (3,) int64.
    """
    names = (*TEXT, *ARRAYS)
    # {name: scalar string}
    features = tf.io.parse_single_example(
        serialized, {name: tf.io.FixedLenFeature([], tf.string) for name in names}
    )
    record = {name: features[name] for name in TEXT}
    for name, stored in ARRAYS.items():
        dtype = label_dtype if stored.dtype is None else tf.as_dtype(np.dtype(stored.dtype))
        flat = tf.io.decode_raw(features[name], dtype, little_endian=True)
        record[name] = tf.reshape(flat, stored.shape or record["shape"])
    for name in ("image", "label"):
        record[name] = tf.ensure_shape(record[name], (None, None, None))
    return record
