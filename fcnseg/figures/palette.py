"""The palette of organs: class index to colour, the same in every picture."""

from __future__ import annotations

# From "20 simple, distinct colors" (Trubetskoy), without those that are hard to see on grey;
# vessels first, so that the seven organs of the paper have a red artery and a blue vein.
_COLOURS = (
    "#e6194b",
    "#4363d8",
    "#f58231",
    "#f032e6",
    "#42d4f4",
    "#bfef45",
    "#ffe119",
    "#3cb44b",
    "#911eb4",
    "#469990",
    "#fabed4",
    "#dcbeff",
    "#9a6324",
    "#aaffc3",
)


def organ_colour(index: int) -> str:
    """The colour of a class as `#rrggbb`; beyond the end of the palette, colours repeat.

    >>> organ_colour(1)
    '#e6194b'
    """
    return _COLOURS[(index - 1) % len(_COLOURS)]


def organ_rgb(index: int) -> tuple[int, int, int]:
    """The colour of a class as red, green and blue, each from 0 to 255."""
    red, green, blue = bytes.fromhex(organ_colour(index)[1:])
    return red, green, blue
