"""Deterministic hash of a string to [0, 1): for draws that do not depend on other strings."""

from __future__ import annotations

import hashlib


def hash_to_unit_interval(text: str, *, seed: int) -> float:
    """Hashes a text and a seed to a number in [0, 1)."""
    digest = hashlib.sha256(f"{seed}:{text}".encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48  # 48 bits: exact as a float
