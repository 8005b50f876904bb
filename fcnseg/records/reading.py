"""Decoding of records to arrays without TensorFlow: the inverse of `encoding`."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from fcnseg.errors import DatasetError
from fcnseg.records.schema import ARRAYS, TEXT, VOLUMES, Part, Record
from fcnseg.records.tfrecord import scan_frames

Features = dict[str, memoryview]

# Errors from parsing other bytes as an example: too few or too many fields, names that are not
# text.
_NO_EXAMPLE = (IndexError, ValueError)


def read_cases(path: str | os.PathLike[str]) -> Iterator[Record]:
    """Yields the cases of a local file of records completely, one at a time.

    Memory holds one case, and twice that while a case of several records is joined.

    Args:
        path: A `.tfrecord` file of a dataset.

    Yields:
        The cases; their arrays are read-only.

    Raises:
        DatasetError: If the file is missing or damaged, or a case in it is incomplete.
    """
    records = _checked_records(path)
    for case_id, group in itertools.groupby(records, lambda features: bytes(features["case_id"])):
        parts = list(group)
        first = Part(*array_of(parts[0], "part"))
        if len(parts) != first.count:
            raise DatasetError(
                f"a case must have all its records, got {len(parts)} of {first.count} in {path}"
                f" (case {case_id.decode()})"
            )
        yield _record(parts)


def _checked_records(path: str | os.PathLike[str]) -> Iterator[Features]:
    """Yields the content of each record of a file; the error of a broken one names its case."""
    for frame in scan_frames(path):
        if frame.problem is not None:
            case_id = case_id_of(frame.data)
            case = "" if case_id is None else f" (case {case_id})"
            raise DatasetError(f"{frame.problem} in {path}{case}")
        yield features_of(frame.data, source=path)


def _record(parts: list[Features]) -> Record:
    """Builds the case from its records."""
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
    """Reads the array of a feature, with the shape from the schema."""
    stored = ARRAYS[name]
    return np.frombuffer(features[name], stored.dtype).reshape(stored.shape)


def _slab(features: Features, name: str) -> npt.NDArray:
    """Reads the slices (z, y, x) of a volume in a record."""
    part = Part(*array_of(features, "part"))
    shape = (part.stop - part.start, *array_of(features, "shape")[1:])
    # The label's type depends on the number of classes and follows from its length.
    itemsize = len(features[name]) // int(np.prod(shape))
    return np.frombuffer(features[name], ARRAYS[name].dtype or f"<u{itemsize}").reshape(shape)


def features_of(
    example: bytes | memoryview, *, source: str | os.PathLike[str] = "a file"
) -> Features:
    """Reads the content of each feature of a serialised `tensorflow.Example` of fcnseg.

    Args:
        example: The bytes.
        source: Name of the origin in the error.

    Raises:
        DatasetError: If the bytes are something else.
    """
    try:
        features = dict(_features(example))
    except _NO_EXAMPLE as error:
        raise DatasetError(f"a record of {source} is none of fcnseg's") from error
    if missing := [name for name in (*TEXT, *ARRAYS) if name not in (*features, "label")]:
        raise DatasetError(f"a record of {source} is none of fcnseg's: it has no {missing[0]}")
    return features


def case_id_of(example: bytes | memoryview) -> str | None:
    """Reads the case id of a record that may be truncated or broken; None if it is unreadable."""
    with contextlib.suppress(*_NO_EXAMPLE):
        for name, content in _features(example):
            if name == "case_id":
                return bytes(content).decode()
    return None


def _features(example: bytes | memoryview) -> Iterator[tuple[str, memoryview]]:
    for entry in _contents(_only(memoryview(example))):  # Example.features, Features.feature
        name, feature = _contents(entry)
        yield bytes(name).decode(), _only(_only(feature))  # Feature.bytes_list, its value


def _only(message: memoryview) -> memoryview:
    (content,) = _contents(message)
    return content


def _contents(message: memoryview) -> Iterator[memoryview]:
    """Reads the contents of a message's fields, each length-delimited and numbered in order."""
    at = 0
    while at < len(message):
        length, at = _varint(message, at + 1)  # after a tag of one byte
        yield message[at : at + length]
        at += length


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """Decodes a number, and gives the index after it."""
    value = shift = 0
    while message[at] > 0x7F:
        value |= (message[at] & 0x7F) << shift
        at, shift = at + 1, shift + 7
    return value | message[at] << shift, at + 1
