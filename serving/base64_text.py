"""Base64 as the real server takes it: with or without padding, with line breaks."""

from __future__ import annotations

import base64
import binascii
import re

from .statuses import invalid

_SPACE = re.compile(r"[ \t\n\v\f\r]+")
_PADDING = 4  # characters that stand for three bytes


def decode_base64(text: str) -> bytes:
    """Decodes base64, as `base64` and `base64.encodebytes` print it too.

    Raises:
        StatusError: If it is none.
    """
    if _SPACE.search(text):
        text = _SPACE.sub("", text)
    bare = text.rstrip("=")
    missing = -len(bare) % _PADDING
    if missing == _PADDING - 1 or len(text) - len(bare) not in (0, missing):
        raise invalid("Unable to base64 decode")
    if missing:
        text = bare + "=" * missing
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise invalid("Unable to base64 decode") from error
