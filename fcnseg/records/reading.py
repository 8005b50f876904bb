"""Records to arrays without TensorFlow: the inverse of `encoding`."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from fcnseg.errors import DatasetError
from fcnseg.records.schema import ARRAYS, TEXT, VOLUMES, Part, Record
from fcnseg.records.tfrecord import read_tfrecord

Features = dict[str, memoryview]


def read_cases(path: str | os.PathLike[str]) -> Iterator[Record]:
    """Yields the cases of a local file of records, one at a time and whole.

    Memory holds one case, and while a case of several records is joined, twice that.

    Args:
        path: A `.tfrecord` file of a dataset.

    Yields:
        The cases; their arrays cannot be written to.

    Raises:
        DatasetError: If the file is missing or damaged, or a case in it is not whole.
    """
    records = map(features_of, read_tfrecord(path))
    for case_id, group in itertools.groupby(records, lambda features: bytes(features["case_id"])):
        parts = list(group)
        first = Part(*array_of(parts[0], "part"))
        if len(parts) != first.count:
            raise DatasetError(
                f"a case must have all its records, got {len(parts)} of {first.count} in {path}"
                f" (case {case_id.decode()})"
            )
        yield _record(parts)


def _record(parts: list[Features]) -> Record:
    """The case that some records make."""
    values: dict[str, Any] = {
        name: bytes(parts[0][name]).decode() if name in TEXT else array_of(parts[0], name)
        for name in parts[0]
        if name not in ("part", "shape", *VOLUMES)
    }
    volumes = {
        name: np.concatenate(slabs) if len(slabs) > 1 else slabs[0]
        for name in VOLUMES
        if (slabs := [_slab(part, name) for part in parts if name in part])
    }
    for name in ("spacing", "source_shape"):
        values[name] = tuple(values[name].tolist())
    return Record(**{"label": None, **values, **volumes})


def array_of(features: Features, name: str) -> npt.NDArray:
    """The array that a feature holds, whose shape the schema tells."""
    stored = ARRAYS[name]
    return np.frombuffer(features[name], stored.dtype).reshape(stored.shape)


def _slab(features: Features, name: str) -> npt.NDArray:
    """The slices (z, y, x) of a volume that a record holds."""
    part = Part(*array_of(features, "part"))
    shape = (part.stop - part.start, *array_of(features, "shape")[1:])
    # The label's type depends on the number of classes, so its length tells.
    itemsize = len(features[name]) // int(np.prod(shape))
    return np.frombuffer(features[name], ARRAYS[name].dtype or f"<u{itemsize}").reshape(shape)


def features_of(example: bytes | memoryview) -> Features:
    """The content of each feature of a serialised `tensorflow.Example` of ours."""
    features = {}
    for entry in _contents(_only(memoryview(example))):  # Example.features, Features.feature
        name, feature = _contents(entry)
        features[bytes(name).decode()] = _only(_only(feature))  # Feature.bytes_list, its value
    return features


def _only(message: memoryview) -> memoryview:
    (content,) = _contents(message)
    return content


def _contents(message: memoryview) -> Iterator[memoryview]:
    """The contents of a message's fields, each length-delimited and numbered in order."""
    at = 0
    while at < len(message):
        length, at = _varint(message, at + 1)  # after a tag of one byte
        yield message[at : at + length]
        at += length


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """A number, and where what follows it begins."""
    value = shift = 0
    while message[at] > 0x7F:
        value |= (message[at] & 0x7F) << shift
        at, shift = at + 1, shift + 7
    return value | message[at] << shift, at + 1
