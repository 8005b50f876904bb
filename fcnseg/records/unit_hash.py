"""A number that looks random, of a text: for draws that adding other texts does not change."""

from __future__ import annotations

import hashlib


def unit_hash(text: str, *, seed: int) -> float:
    """A number in [0, 1) that looks random and depends on nothing but the text and the seed."""
    digest = hashlib.sha256(f"{seed}:{text}".encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48  # 48 bits: exact as a float
