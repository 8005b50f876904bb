"""A stream of zlib's, read like a file, to its checksum and to the last byte of the file."""

from __future__ import annotations

import io
import zlib
from typing import Any, BinaryIO

_EITHER = zlib.MAX_WBITS | 32  # zlib's wrapping or gzip's: MetaIO reads both
_CHUNK = 2**18  # bytes of packed data read at a time


class Unpacked(io.RawIOBase):
    """What a zlib stream unpacks to.

    Reading raises `EOFError` where the stream ends early or is not the last of the file, and
    `zlib.error` where it is broken. No more is unpacked than is asked for.

    Args:
        packed: A file at the first byte of the stream.
    """

    def __init__(self, packed: BinaryIO) -> None:
        super().__init__()
        self._packed = packed
        self._unpacker = zlib.decompressobj(_EITHER)

    def readable(self) -> bool:
        """Returns True, as `io.BufferedReader` asks for."""
        return True

    def readinto(self, room: Any, /) -> int:
        """Fills some of a buffer; 0 at the end."""
        while not self._unpacker.eof:
            chunk = self._unpacker.unconsumed_tail or self._packed.read(_CHUNK)
            data = self._unpacker.decompress(chunk, len(room))
            if data:
                room[: len(data)] = data
                return len(data)
            if not chunk and not self._unpacker.eof:
                raise EOFError("its packed data end early")
        if self._unpacker.unused_data or self._packed.read(1):
            raise EOFError("bytes follow its packed data")
        return 0
