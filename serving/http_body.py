"""The body of an HTTP/1.1 request: with a given length, or in chunks."""

from __future__ import annotations

import re
from collections.abc import Iterator
from email.message import Message
from io import BufferedIOBase

from fcnseg.errors import FcnsegError

_MAX_BODY = 2**31 - 1  # bytes; the limit of a gRPC message too
_PIECE = 2**20  # bytes read at once, so that no memory is allocated for missing data
_MAX_LINE = 2**12  # bytes of the line before a chunk, and of a trailer line
_MAX_TRAILERS = 100  # trailer lines after the last chunk
_LENGTH = re.compile(r"[0-9]{1,19}")
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,16})[ \t]*(?:;.*)?\r?\n", re.DOTALL)


class BodyError(FcnsegError):
    """A body cannot be read, nor anything after it on its connection.

    Attributes:
        http_status: HTTP status of the answer.
    """

    def __init__(self, http_status: int, message: str) -> None:
        """Makes an error that is answered with a status."""
        super().__init__(message)
        self.http_status = http_status


def read_body(headers: Message, stream: BufferedIOBase, *, required: bool) -> bytes:
    """Reads a body to its end.

    Args:
        headers: Headers of the request.
        stream: Source of the body.
        required: Refuse a request without length; else it has no body.

    Raises:
        BodyError: If the body is truncated, too long, or of no length that HTTP defines.
        TimeoutError: If the client stops sending, and the stream has a timeout.
    """
    lengths = set(headers.get_all("Content-Length", []))
    codings = ", ".join(headers.get_all("Transfer-Encoding", [])).lower()
    if codings:
        if codings != "chunked":
            raise BodyError(501, f"Transfer-Encoding must be chunked, got {codings}")
        if lengths:
            raise BodyError(400, "a chunked body must have no Content-Length")
        return b"".join(_chunks(stream))
    if not lengths:
        if required:
            raise BodyError(411, "a body must have a Content-Length, or be chunked")
        return b""
    return _exactly(stream, _checked_length(lengths))


def _checked_length(lengths: set[str]) -> int:
    text = ", ".join(sorted(lengths))
    if not _LENGTH.fullmatch(text):
        raise BodyError(400, f"Content-Length must be one whole number, got {text[:80]}")
    return _within_limit(int(text))


def _chunks(stream: BufferedIOBase) -> Iterator[bytes]:
    total = 0
    while size := _chunk_size(stream):
        total = _within_limit(total + size)
        yield _exactly(stream, size)
        if stream.readline(_MAX_LINE) not in (b"\r\n", b"\n"):
            raise BodyError(400, f"a chunk of {size} bytes must end there")
    for _ in range(_MAX_TRAILERS):
        if stream.readline(_MAX_LINE) in (b"\r\n", b"\n", b""):
            return
    raise BodyError(400, f"a chunked body must end in at most {_MAX_TRAILERS} trailers")


def _chunk_size(stream: BufferedIOBase) -> int:
    line = stream.readline(_MAX_LINE)
    match = _CHUNK_SIZE.fullmatch(line)
    if match is None:
        raise BodyError(400, f"a chunk must begin with its size in hexadecimals, got {line[:40]!r}")
    return int(match[1], 16)


def _exactly(stream: BufferedIOBase, size: int) -> bytes:
    pieces, left = [], size
    while left:
        piece = stream.read(min(left, _PIECE))
        if not piece:
            raise BodyError(400, f"a body must not be cut, got {size - left} of {size} bytes")
        pieces.append(piece)
        left -= len(piece)
    return b"".join(pieces)


def _within_limit(size: int) -> int:
    if size > _MAX_BODY:
        raise BodyError(413, f"a body must have at most {_MAX_BODY} bytes, got {size}")
    return size
