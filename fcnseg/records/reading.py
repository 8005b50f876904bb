"""Records to arrays without TensorFlow: the inverse of `encoding`."""

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

# What reading other bytes as an example raises: too few or too many fields, names that are no text.
_NO_EXAMPLE = (IndexError, ValueError)


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
    """The content of each record of a file; one that is broken is named with its case."""
    for frame in scan_frames(path):
        if frame.problem is not None:
            case_id = case_id_of(frame.data)
            case = "" if case_id is None else f" (case {case_id})"
            raise DatasetError(f"{frame.problem} in {path}{case}")
        yield features_of(frame.data, source=path)


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


def features_of(
    example: bytes | memoryview, *, source: str | os.PathLike[str] = "a file"
) -> Features:
    """The content of each feature of a serialised `tensorflow.Example` of ours.

    Args:
        example: The bytes.
        source: Named in the error.

    Raises:
        DatasetError: If it is something else.
    """
    try:
        features = dict(_features(example))
    except _NO_EXAMPLE as error:
        raise DatasetError(f"a record of {source} is none of fcnseg's") from error
    if missing := [name for name in (*TEXT, *ARRAYS) if name not in (*features, "label")]:
        raise DatasetError(f"a record of {source} is none of fcnseg's: it has no {missing[0]}")
    return features


def case_id_of(example: bytes | memoryview) -> str | None:
    """The case of a record that may be cut or broken; None where its name cannot be read."""
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
