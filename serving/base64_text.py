"""Base64 as the real server takes it: with or without padding, with line breaks."""

from __future__ import annotations

import base64
import binascii

from .statuses import invalid

_SPACES = " \t\n\v\f\r"
_PADDING = 4  # characters that stand for three bytes


def decode_base64(text: str) -> bytes:
    """Decodes base64, as `base64` and `base64.encodebytes` print it too.

    Raises:
        StatusError: If it is none.
    """
    try:
        return _decoded(text)
    except ValueError:  # to look for spaces first would take as long as to decode
        for space in _SPACES:
            text = text.replace(space, "")
    try:
        return _decoded(text)
    except ValueError as error:
        raise invalid("Unable to base64 decode") from error


def _decoded(text: str) -> bytes:
    """Decodes base64 without spaces, with all of its padding or none."""
    end = text[-_PADDING:]
    padding = len(end) - len(end.rstrip("="))
    missing = (padding - len(text)) % _PADDING
    if missing == _PADDING - 1 or padding not in (0, missing):
        raise binascii.Error
    if missing and not padding:
        text += "=" * missing
    return base64.b64decode(text, validate=True)
