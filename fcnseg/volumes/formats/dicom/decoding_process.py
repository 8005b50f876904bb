"""A process that decodes frames of DICOM, so that a crash of a decoder ends nothing else.

It is started as `python -m fcnseg.volumes.formats.dicom.decoding_process`. On its standard input
each frame is a line of JSON with its length, transfer syntax and the options of pydicom's decoders,
then its bytes; on its standard output each answer is a line of JSON with the length and description
of the pixels, or with an error, then the pixels.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from typing import Any, BinaryIO

from fcnseg.errors import one_line
from fcnseg.extras import require_extra
from fcnseg.volumes.formats.dicom import jpeg_lossless

_MOST_MEMORY = 2**33  # bytes of address space: a frame is some MB, and libraries take 2 GiB


def main() -> None:
    """Answers requests until standard input ends."""
    _limit_memory()
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # output of a library must not mix with the answers
    jpeg_lossless.register()
    while line := sys.stdin.buffer.readline():
        _answer(json.loads(line), sys.stdin.buffer, answers)


def _answer(request: dict[str, Any], frames: BinaryIO, answers: BinaryIO) -> None:
    frame = frames.read(request["length"])
    pixels = b""
    try:
        pixels, properties = _decode(frame, request["syntax"], request["options"])
        answer = {"length": len(pixels), "properties": properties}
    except Exception as error:  # decoders raise many types of errors for broken bytes
        answer = {"length": 0, "error": one_line(error)}
    answers.write(json.dumps(answer).encode() + b"\n" + pixels)
    answers.flush()


def _decode(frame: bytes, syntax: str, options: dict[str, Any]) -> tuple[bytes, dict[str, Any]]:
    """Decodes a frame to little-endian pixels, and gives pydicom's description of them."""
    decoder = require_extra("pydicom.pixels").get_decoder(syntax)
    encapsulate = require_extra("pydicom.encaps").encapsulate
    pixels, properties = decoder.as_buffer(
        encapsulate([frame]),
        index=0,
        validate=False,  # checked by the requesting process
        decoding_plugin=jpeg_lossless.PLUGIN if syntax in jpeg_lossless.SYNTAXES else "",
        number_of_frames=1,
        **options,
    )
    return bytes(pixels), properties


def _limit_memory() -> None:
    """Limits memory, so that a frame of a huge claimed size fails here instead of exhausting it."""
    with contextlib.suppress(ImportError, ValueError, OSError):  # not on every system
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (_MOST_MEMORY, _MOST_MEMORY))


if __name__ == "__main__":
    main()
