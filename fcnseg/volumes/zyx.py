"""One value for each of the axes z, y and x."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, TypeVar

T = TypeVar("T")

# Plain tuples, as tyro and pydantic make for the fields of settings; each `Zyx` is one too.
Shape = tuple[int, int, int]
"""Voxels (z, y, x)."""
Triple = tuple[float, float, float]
"""Numbers (z, y, x)."""
Axis = Literal["z", "y", "x"]
"""Name of an axis."""


class Zyx(tuple[T, T, T]):
    """A tuple of three values in the order (z, y, x), equal to the plain one.

    A format applies to each value, and the values are joined by " x ":

    >>> f"{Zyx(step / 4 for step in (6, 3, 3)):g} mm"
    '1.5 x 0.75 x 0.75 mm'

    Args:
        values: The values, that of z first.

    Raises:
        ValueError: If there are more or fewer than three.
    """

    __slots__ = ()

    def __new__(cls, values: Iterable[T]) -> Zyx[T]:
        """Makes the tuple; see the class."""
        z, y, x = values
        return super().__new__(cls, (z, y, x))

    def __format__(self, form: str) -> str:
        return " x ".join(format(value, form) for value in self) if form else str(self)
