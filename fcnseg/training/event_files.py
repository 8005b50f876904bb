"""TensorBoard's event files, written by TensorFlow; tensorboard is needed only to view them."""

from __future__ import annotations

import contextlib
import math
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path

import tensorflow as tf

from fcnseg.errors import DatasetError
from fcnseg.records import TFRecordWriter, read_tfrecord
from fcnseg.storage.whole_file import atomic_write

_PNG_SIZE = struct.Struct(">II")  # width and height, after 16 bytes of signature and chunk header
_PNG_SIZE_AT = 16


def write_scalars(values: Mapping[str, float], *, step: int) -> None:
    """Writes numbers to the current writer; NaN and infinity are left out."""
    metadata = _metadata("scalars", "DATA_CLASS_SCALAR")
    for name, value in values.items():
        if not math.isnan(value):
            tf.summary.write(name, tf.constant(value, tf.float32), step, metadata)


def write_pictures(pictures: Mapping[str, bytes], *, step: int) -> None:
    """Writes PNG files to the current writer."""
    metadata = _metadata("images", "DATA_CLASS_BLOB_SEQUENCE")
    for name, png in pictures.items():
        size = [str(number) for number in _PNG_SIZE.unpack_from(png, _PNG_SIZE_AT)]
        tf.summary.write(name, tf.constant([*size, png]), step, metadata)


def trim_events(folder: Path, *, last_step: int) -> None:
    """Removes from all event files the events after a step, and a truncated last event.

    Viewers would show events that a resumed run writes again next to the earlier ones.

    Args:
        folder: Folder of the files; it need not exist.
        last_step: The last step to keep.
    """
    for path in sorted(folder.glob("*.tfevents.*")):
        with atomic_write(path) as unfinished, unfinished.open("wb") as file:
            writer = TFRecordWriter(file)
            for event in _whole_events(path):
                if tf.compat.v1.Event.FromString(event).step <= last_step:
                    writer.write(event)


def _whole_events(path: Path) -> Iterator[bytes]:
    with contextlib.suppress(DatasetError):  # the last one may be truncated
        yield from read_tfrecord(path)


def _metadata(plugin: str, data_class: str) -> tf.compat.v1.SummaryMetadata:
    """The metadata that says how TensorBoard shows a tensor."""
    made = tf.compat.v1.SummaryMetadata
    return made(plugin_data=made.PluginData(plugin_name=plugin), data_class=data_class)
