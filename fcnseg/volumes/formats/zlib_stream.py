"""A zlib stream read like a file, with its checksum, to the last byte of the file."""

from __future__ import annotations

import io
import zlib
from typing import Any, BinaryIO

_EITHER = zlib.MAX_WBITS | 32  # zlib's header or gzip's: MetaIO reads both
_CHUNK = 2**18  # bytes of compressed data read at a time


class Unpacked(io.RawIOBase):
    """The decompressed content of a zlib stream.

    Reading raises `EOFError` if the stream ends early or is not the last of the file, and
    `zlib.error` if it is broken. No more is decompressed than is requested.

    Args:
        packed: A file at the first byte of the stream.
    """

    def __init__(self, packed: BinaryIO) -> None:
        super().__init__()
        self._packed = packed
        self._unpacker = zlib.decompressobj(_EITHER)

    def readable(self) -> bool:
        """Returns True, as `io.BufferedReader` requires."""
        return True

    def readinto(self, room: Any, /) -> int:
        """Fills part of a buffer; 0 at the end."""
        while not self._unpacker.eof:
            chunk = self._unpacker.unconsumed_tail or self._packed.read(_CHUNK)
            data = self._unpacker.decompress(chunk, len(room))
            if data:
                room[: len(data)] = data
                return len(data)
            if not chunk and not self._unpacker.eof:
                raise EOFError("its compressed data end early")
        if self._unpacker.unused_data or self._packed.read(1):
            raise EOFError("bytes follow its compressed data")
        return 0
