"""The bytes of an array, produced in chunks."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy.typing as npt

_CHUNK_BYTES = 2**20  # few enough for the processor's cache


@dataclasses.dataclass(frozen=True, eq=False)
class ArrayBytes:
    """The bytes of an array in C order, made a few slices at a time during iteration.

    Attributes:
        array: An array of one axis or more, little-endian.
        chunk_bytes: Bytes made at once; a slice at least.
    """

    array: npt.NDArray[Any]
    chunk_bytes: int = _CHUNK_BYTES

    def __len__(self) -> int:
        """Number of bytes."""
        return self.array.nbytes

    def __iter__(self) -> Iterator[bytes]:
        """Yields the bytes chunk by chunk."""
        slices = max(1, self.chunk_bytes * len(self.array) // max(1, self.array.nbytes))
        for start in range(0, len(self.array), slices):
            yield self.array[start : start + slices].tobytes()


Chunk = bytes | ArrayBytes
"""A part of a record: bytes, or an array whose bytes are made when it is written."""
