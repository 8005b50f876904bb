"""Whether packed data are whole, which ITK and teem do not ask: they take what they get."""

from __future__ import annotations

import zlib
from pathlib import Path

from fcnseg.errors import InputError, one_line

ZLIB, GZIP = zlib.MAX_WBITS, zlib.MAX_WBITS | 16
"""The two wrappings of deflated data, each with a checksum."""

_CHUNK = 2**20  # bytes unpacked at a time


def check_unpacks(file: Path, start: int, *, wrapping: int, promised: int, what: str) -> None:
    """Checks that data unpack to their checksum, and to enough bytes.

    Args:
        file: The file that holds them.
        start: Where in it they begin.
        wrapping: `ZLIB` or `GZIP`.
        promised: How many bytes they must make at least.
        what: The volume, for errors.

    Raises:
        InputError: If they are cut or broken.
    """
    unpacker, size = zlib.decompressobj(wrapping), 0
    with file.open("rb") as stream:
        stream.seek(start)
        try:
            while not unpacker.eof and (chunk := unpacker.unconsumed_tail or stream.read(_CHUNK)):
                size += len(unpacker.decompress(chunk, _CHUNK))
        except zlib.error as error:
            raise InputError(f"not a whole volume: {what}: {one_line(error)}") from error
    if not unpacker.eof or size < promised:
        raise InputError(f"not a whole volume: {what}: its packed data end at {size} bytes")
