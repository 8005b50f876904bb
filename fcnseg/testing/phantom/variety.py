"""How much patients and scans differ from the typical one."""

from __future__ import annotations

import math

from fcnseg.errors import InputError

MOST_VARIETY = 3.0  # beyond it the outlines that cut an organ may leave nothing of it


def check_variety(variety: float) -> float:
    """The same number.

    Raises:
        InputError: If it is not one from 1 to 3.
    """
    if not 1 <= variety <= MOST_VARIETY:
        raise InputError(f"variety must be a number from 1 to {MOST_VARIETY:g}, got {variety}")
    return variety


def widened(
    low: float, high: float, variety: float, *, least: float = -math.inf, most: float = math.inf
) -> tuple[float, float]:
    """A range `variety` times as wide about the same middle, within `least` and `most`.

    At 1 it is the same to the last bit.
    """
    more = (variety - 1) * (high - low) / 2
    return max(low - more, least), min(high + more, most)
