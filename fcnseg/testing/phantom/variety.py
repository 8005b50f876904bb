"""Variation of patients and scans from the typical one."""

from __future__ import annotations

import math

from fcnseg.errors import InputError

MOST_VARIETY = 3.0  # beyond it the outlines that cut an organ may remove it


def check_variety(variety: float) -> float:
    """Checks and returns a variety.

    Raises:
        InputError: If it is not a number from 1 to 3.
    """
    if not 1 <= variety <= MOST_VARIETY:
        raise InputError(f"variety must be a number from 1 to {MOST_VARIETY:g}, got {variety}")
    return variety


def widened(
    low: float, high: float, variety: float, *, least: float = -math.inf, most: float = math.inf
) -> tuple[float, float]:
    """Widens a range by the factor `variety` about the same middle, within `least` and `most`.

    At 1 the range is unchanged to the last bit.
    """
    more = (variety - 1) * (high - low) / 2
    return max(low - more, least), min(high + more, most)
