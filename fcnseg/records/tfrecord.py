"""TFRecord files without TensorFlow: each record framed by its length and two checksums."""

from __future__ import annotations

import dataclasses
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import google_crc32c

from fcnseg.errors import DatasetError
from fcnseg.records.array_bytes import Chunk

# A frame is: length uint64, masked CRC-32C of the length uint32, data, masked CRC-32C of the data
# uint32, all little-endian (tensorflow/core/lib/io/record_writer.h).
_LENGTH = struct.Struct("<Q")
_CRC = struct.Struct("<I")
_HEADER_BYTES = _LENGTH.size + _CRC.size
_WRONG_LENGTH = "wrong checksum of a record's length"
_MASK_DELTA = 0xA282EAD8  # tensorflow/core/lib/hash/crc32c.h


class TFRecordWriter:
    """Writes frames to an open file, and collects the facts for the manifest.

    Attributes:
        records: Records written.
        bytes: Bytes written.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.records = 0
        self.bytes = 0
        self._file = file
        self._crc = 0

    @property
    def crc32c(self) -> str:
        """CRC-32C of all bytes written, in hexadecimal."""
        return f"{self._crc:08x}"

    def write(self, *chunks: Chunk) -> None:
        """Writes one record, given complete or in chunks."""
        length = _LENGTH.pack(sum(map(len, chunks)))
        self._write(length)
        self._write(_masked(google_crc32c.value(length)))
        content_crc = 0
        for chunk in chunks:
            for piece in (chunk,) if isinstance(chunk, bytes) else chunk:
                self._write(piece)
                content_crc = google_crc32c.extend(content_crc, piece)
        self._write(_masked(content_crc))
        self.records += 1

    def _write(self, piece: bytes) -> None:
        self._file.write(piece)
        self._crc = google_crc32c.extend(self._crc, piece)
        self.bytes += len(piece)


@dataclasses.dataclass(frozen=True)
class Frame:
    """A record as found in a file.

    Attributes:
        data: Its content, as far as that can be read.
        problem: Reason why it is damaged; None if its checksums are right.
    """

    data: bytes
    problem: str | None = None


def read_tfrecord(path: str | os.PathLike[str]) -> Iterator[bytes]:
    """Yields the records of a local file one by one, each checked.

    Raises:
        DatasetError: If the file is missing, cut short, or a checksum is wrong.
    """
    for frame in scan_frames(path):
        if frame.problem is not None:
            raise DatasetError(f"{frame.problem} in {path}")
        yield frame.data


def scan_frames(path: str | os.PathLike[str]) -> Iterator[Frame]:
    """Yields the records of a local file one by one, broken ones too.

    The record after a broken length cannot be located, so that record is the last.

    Raises:
        DatasetError: If the file is missing.
    """
    if not Path(path).is_file():
        raise DatasetError(f"no such file: {path}")
    with Path(path).open("rb") as file:
        while header := file.read(_HEADER_BYTES):
            length = _length_of(header)
            if length is None:
                yield Frame(b"", _WRONG_LENGTH)
                return
            data, data_crc = file.read(length), file.read(_CRC.size)
            is_right = _masked(google_crc32c.value(data)) == data_crc
            yield Frame(data, None if is_right else "wrong checksum of a record, or a cut one,")


def iterate_frames(content: memoryview, *, source: str | os.PathLike[str]) -> Iterator[memoryview]:
    """Yields the records of a file that is mapped into memory; their contents are not checked.

    Args:
        content: The bytes of the file.
        source: Name of the origin in the error.

    Raises:
        DatasetError: If the file is truncated, or a checksum of a length is wrong.
    """
    at = 0
    while at < len(content):
        start = at + _HEADER_BYTES
        length = _length_of(bytes(content[at:start]))
        if length is None:
            raise DatasetError(f"{_WRONG_LENGTH} in {source}")
        at = start + length + _CRC.size
        if at > len(content):
            raise DatasetError(f"a cut record in {source}")
        yield content[start : start + length]


def _length_of(header: bytes) -> int | None:
    """Length in bytes of the record after its header; None if its checksum is wrong."""
    length_bytes, length_crc = header[: _LENGTH.size], header[_LENGTH.size :]
    if _masked(google_crc32c.value(length_bytes)) != length_crc:
        return None
    (length,) = _LENGTH.unpack(length_bytes)
    return int(length)


def _masked(crc: int) -> bytes:
    """Masks a checksum as stored, since data may itself contain checksums."""
    rotated = (crc >> 15 | crc << 17) & 0xFFFFFFFF
    return _CRC.pack((rotated + _MASK_DELTA) & 0xFFFFFFFF)
