"""Encoding of records to bytes, without TensorFlow.

A `tensorflow.Example` is written here in its wire format, and the bytes of a volume are made a few
slices at a time: protobuf would hold a record four times (measured: 1040 MB for one of 236 MB).
"""

from __future__ import annotations

import dataclasses

import numpy as np

from fcnseg.records.array_bytes import ArrayBytes, Chunk
from fcnseg.records.schema import ARRAYS, TEXT, VOLUMES, Part, Record


def encode_record(record: Record) -> bytes:
    """Serialises a case as one record; equal cases give equal bytes.

    Args:
        record: The record.

    Returns:
        A serialised `tensorflow.Example`.
    """
    chunks = encode_chunks(record)
    return b"".join(chunk if isinstance(chunk, bytes) else b"".join(chunk) for chunk in chunks)


def encode_chunks(record: Record, part: Part | None = None) -> list[Chunk]:
    """Serialises a case in chunks for `TFRecordWriter`: joining them would copy the volumes.

    Args:
        record: The case.
        part: The part of the case to write if it takes several records; by default the case takes
            one.
    """
    part = part or Part(0, 1, 0, len(record.image))
    features: list[Chunk] = []
    for name in sorted((*TEXT, *ARRAYS)):
        if name == "label" and record.label is None:
            continue
        bytes_list = _field(1, _feature(record, part, name))  # BytesList.value
        feature = _field(1, *bytes_list)  # Feature.bytes_list
        features += _field(1, *_field(1, name.encode()), *_field(2, *feature))  # Features.feature
    return _field(1, *features)  # Example.features


def _feature(record: Record, part: Part, name: str) -> Chunk:
    if name in TEXT:
        text: str = getattr(record, name)
        return text.encode()
    array = np.asarray(dataclasses.astuple(part) if name == "part" else getattr(record, name))
    if name in VOLUMES:
        array = array[part.slices]
    dtype = ARRAYS[name].dtype or array.dtype.newbyteorder("<")
    return ArrayBytes(array.astype(dtype, copy=False))


def _field(number: int, *chunks: Chunk) -> list[Chunk]:
    """Encodes a length-delimited field (wire type 2): tag, length, content."""
    return [bytes([number << 3 | 2]) + _varint(sum(map(len, chunks))), *chunks]


def _varint(value: int) -> bytes:
    """Encodes an integer in bytes of seven bits, the lowest first; the eighth bit means more."""
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])
