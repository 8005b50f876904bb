"""Decoding of bytes to tensors: the half of the schema that needs TensorFlow."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from fcnseg.records.schema import ARRAYS, TEXT, VOLUMES

_COUNT = 1  # index of `Part.count` in the feature `part`


def join_records(records: tf.data.Dataset) -> tf.data.Dataset:
    """Joins the records of each case, for datasets in which a case may take several.

    Memory holds the serialised records of one case twice while they are joined.

    Args:
        records: Scalar strings: the records of one file in order.

    Returns:
        A dataset of strings (n,): the records of each case, in the order of the file.
    """

    def count(serialized: tf.Tensor) -> tf.Tensor:
        part = _contents(serialized, ["part"])["part"]
        return tf.io.decode_raw(part, tf.int64, little_endian=True)[_COUNT]

    # A case's records are consecutive, so those that say "of n" are complete after n records.
    return records.group_by_window(
        key_func=count,
        reduce_func=lambda count, of_case: of_case.batch(count),
        window_size_func=lambda count: count,
    )


def decode_record(
    serialized: tf.Tensor, *, label_dtype: tf.DType | None = tf.uint8
) -> dict[str, tf.Tensor]:
    """Decodes a case inside a TensorFlow graph.

    Each array is one copy of its bytes, so draw several patches from a decoded record.

    Args:
        serialized: A scalar string from `encode_record`, or the strings (n,) of a case that takes
            several, which cost another copy of its volumes.
        label_dtype: `tf.uint16` if the dataset has more than 255 classes; None if its cases have no
            label.

    Returns:
        A tensor for each attribute of `Record`, under its name, and `shape` (3,) int64.
    """
    names = [name for name in (*TEXT, *ARRAYS) if name != "part"]
    if label_dtype is None:
        names.remove("label")
    serialized = tf.convert_to_tensor(serialized)
    # {name: scalar string}
    content = (_joined if serialized.shape.rank else _contents)(serialized, names)
    record = {name: content[name] for name in TEXT}
    for name, stored in ((name, ARRAYS[name]) for name in names if name in ARRAYS):
        dtype = label_dtype if stored.dtype is None else tf.as_dtype(np.dtype(stored.dtype))
        flat = tf.io.decode_raw(content[name], dtype, little_endian=True)
        record[name] = tf.reshape(flat, stored.shape or record["shape"])
    for name in (name for name in VOLUMES if name in record):
        record[name] = tf.ensure_shape(record[name], (None, None, None))
    return record


def _joined(records: tf.Tensor, names: list[str]) -> dict[str, tf.Tensor]:
    """The features of a case whose records are strings (n,)."""
    divided = [name for name in names if name in VOLUMES]
    parts = tf.io.parse_example(records, _strings(divided))
    content = _contents(records[0], [name for name in names if name not in VOLUMES])
    return content | {name: tf.strings.reduce_join(parts[name]) for name in divided}


def _contents(serialized: tf.Tensor, names: list[str]) -> dict[str, tf.Tensor]:
    return tf.io.parse_single_example(serialized, _strings(names))


def _strings(names: list[str]) -> dict[str, tf.io.FixedLenFeature]:
    return {name: tf.io.FixedLenFeature([], tf.string) for name in names}
