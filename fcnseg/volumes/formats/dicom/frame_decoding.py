"""Compressed frames of DICOM, decoded in a separate process.

The decoders of JPEG, JPEG-LS, JPEG 2000 and JPEG lossless are C libraries, which broken bytes may
crash. RLE is decoded by pydicom in Python and needs no such care.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import weakref
from typing import Any, BinaryIO, cast

from fcnseg.extras import require_extra

PLUGIN = "fcnseg"
SYNTAXES = (
    "1.2.840.10008.1.2.4.50",  # JPEG baseline
    "1.2.840.10008.1.2.4.51",  # JPEG extended
    "1.2.840.10008.1.2.4.57",  # JPEG lossless
    "1.2.840.10008.1.2.4.70",
    "1.2.840.10008.1.2.4.80",  # JPEG-LS
    "1.2.840.10008.1.2.4.81",
    "1.2.840.10008.1.2.4.90",  # JPEG 2000
    "1.2.840.10008.1.2.4.91",
    "1.2.840.10008.1.2.4.201",  # High-throughput JPEG 2000
    "1.2.840.10008.1.2.4.202",
    "1.2.840.10008.1.2.4.203",
)

DECODER_DEPENDENCIES: dict[str, tuple[str, ...]] = dict.fromkeys(SYNTAXES, ())
"""Attributes that pydicom requires of a plugin."""

# Options of a decoder, and properties it may find to differ, as pydicom names both.
_GIVEN = (
    "rows",
    "columns",
    "samples_per_pixel",
    "photometric_interpretation",
    "planar_configuration",
    "bits_allocated",
    "bits_stored",
    "pixel_representation",
    "pixel_keyword",
)
_FOUND = ("bits_allocated", "photometric_interpretation", "planar_configuration")

_PATIENCE = 1.0  # seconds for a process to end after its standard input has ended

_own = threading.local()
_registering = threading.Lock()


def is_available(uid: str) -> bool:
    """Tells whether frames of a transfer syntax can be decoded; part of pydicom's interface."""
    return uid in SYNTAXES


def register() -> None:
    """Makes this pydicom's only decoder for all formats that C libraries decode."""
    get_decoder = require_extra("pydicom.pixels").get_decoder
    with _registering:
        for syntax in SYNTAXES:
            decoder = get_decoder(syntax)
            if PLUGIN not in decoder.available_plugins:
                decoder.add_plugin(PLUGIN, (__name__, "decode_frame"))
            for other in set(decoder.available_plugins) - {PLUGIN}:
                decoder.remove_plugin(other)


def decode_frame(frame: bytes, runner: Any) -> bytearray:
    """Decodes a frame to little-endian pixels.

    Args:
        frame: The stream of one frame.
        runner: pydicom's description of the pixels; properties that differ in the stream are set in
            it.

    Raises:
        RuntimeError: If the stream is broken, or its decoder crashes.
    """
    options = {name: runner.get_option(name) for name in _GIVEN}
    given = {name: value for name, value in options.items() if value is not None}
    pixels, properties = decoding_process().ask(frame, str(runner.transfer_syntax), given)
    for name in _FOUND:
        if name in properties:
            runner.set_option(name, properties[name])
    return bytearray(pixels)


class _Process:
    """The decoding process, which starts with the first frame and after each crash."""

    def __init__(self) -> None:
        self.parent = os.getpid()
        self.running: subprocess.Popen[bytes] | None = None
        # For frames that a decoder reads from a file: the remains of a crash are removed.
        self.folder = tempfile.mkdtemp(prefix="fcnseg-")
        weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)

    def ask(
        self, frame: bytes, syntax: str, options: dict[str, Any]
    ) -> tuple[bytes, dict[str, Any]]:
        """Requests the pixels of a frame and their properties.

        Raises:
            RuntimeError: If the process reports that it cannot decode them, or ends.
        """
        running = self.running = self.running or self._start()
        requests, answers = cast(BinaryIO, running.stdin), cast(BinaryIO, running.stdout)
        request = {"length": len(frame), "syntax": syntax, "options": options}
        with contextlib.suppress(BrokenPipeError):  # it has ended, so there will be no answer
            requests.write(json.dumps(request).encode() + b"\n" + frame)
            requests.flush()
        line = answers.readline()
        answer: dict[str, Any] = json.loads(line) if line.endswith(b"\n") else {"length": 1}
        pixels = answers.read(answer["length"])
        if len(pixels) != answer["length"]:
            self.running = None
            raise RuntimeError(f"the decoder ended with status {_end(running)}")
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return pixels, answer["properties"]

    def _start(self) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-m", "fcnseg.volumes.formats.dicom.decoding_process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=os.environ
            | {
                "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
                "TMPDIR": self.folder,
            },
        )
        weakref.finalize(self, _end, process)
        return process


def decoding_process() -> _Process:
    """The process of this thread: two threads that shared one would get each other's frames."""
    process: _Process | None = getattr(_own, "process", None)
    if process is None or process.parent != os.getpid():
        process = _own.process = _Process()
    return process


def _end(process: subprocess.Popen[bytes]) -> int:
    """Ends a process, and returns its status: negative for a signal."""
    for pipe in (process.stdin, process.stdout):
        with contextlib.suppress(BrokenPipeError):
            cast(BinaryIO, pipe).close()
    try:
        return process.wait(_PATIENCE)
    except subprocess.TimeoutExpired:  # a fork of this process has its standard input too
        process.kill()
        return process.wait()
