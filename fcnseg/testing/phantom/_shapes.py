"""Solid shapes in millimetres, as functions of the signed distance of a point.

A shape is negative inside, zero on its surface and positive outside, close to the true distance
near the surface, from which partial volumes and wall thicknesses are computed. Points are arrays
(3, ...) of x, y, z in the patient frame of `anatomy`.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt
from scipy.interpolate import PchipInterpolator
from scipy.spatial.transform import Rotation

Array = npt.NDArray[np.float32]
Vector = Sequence[float] | npt.NDArray[np.float64]
Path = Sequence[tuple[float, float, float]] | npt.NDArray[np.float64]
Box = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]  # lowest and highest x, y, z

EVERYWHERE: Box = (np.full(3, -np.inf), np.full(3, np.inf))
_SEGMENTS = 14  # samples of a tube: the corners of a vessel's bends stay below a millimetre


class Solid(Protocol):
    """Anything with a distance (...) of points (3, ...) in mm, and a box."""

    @property
    def box(self) -> Box:
        """Bounding box of the solid."""

    def distance(self, points: Array) -> Array: ...


@dataclasses.dataclass(frozen=True)
class Ellipsoid:
    """An ellipsoid; a radius of infinity makes it a cylinder along that axis.

    Attributes:
        centre: x, y, z in mm.
        radii: Half axes in mm.
        turn: Rotation in degrees about x, y and z, in this order.
    """

    centre: Vector
    radii: Vector
    turn: Vector = (0.0, 0.0, 0.0)

    @property
    def box(self) -> Box:
        """The ellipsoid's own box; for a rotated one, a cube that contains every rotation."""
        reach = np.asarray(self.radii, dtype=float)
        if any(self.turn):
            reach = np.full(3, reach.max())
        return np.asarray(self.centre) - reach, np.asarray(self.centre) + reach

    def distance(self, points: Array) -> Array:
        local = points - _column(self.centre)
        if any(self.turn):
            turn = Rotation.from_euler("xyz", self.turn, degrees=True).as_matrix().T
            local = np.tensordot(turn.astype(np.float32), local, axes=1)
        local /= _column(self.radii)
        reach = np.sqrt(np.einsum("c...,c...->...", local, local))
        local /= _column(self.radii)
        slope = np.sqrt(np.einsum("c...,c...->...", local, local))
        # First-order distance, reach being 1 on the surface; at the centre it is the smallest
        # radius.
        least = float(np.min(self.radii))
        return np.where(slope > 1e-9, reach * (reach - 1) / np.maximum(slope, 1e-9), -least)


@dataclasses.dataclass(frozen=True)
class Tube:
    """A curved tube of varying radius through control points.

    Attributes:
        path: Control points (n, 3) in mm.
        radii: Radius in mm at each of them.
    """

    path: Path
    radii: Vector

    @property
    def box(self) -> Box:
        """The box of the control points, with a margin for the curve between them."""
        path, reach = np.asarray(self.path, dtype=float), np.reshape(self.radii, (-1, 1))
        return (path - reach).min(axis=0) - 2, (path + reach).max(axis=0) + 2

    def distance(self, points: Array) -> Array:
        knots = np.linspace(0, 1, len(self.radii))
        curve = PchipInterpolator(knots, np.column_stack([self.path, self.radii]))
        samples = curve(np.linspace(0, 1, _SEGMENTS + 1)).astype(np.float32)
        nearest = np.full(points.shape[1:], np.inf, dtype=np.float32)
        for start, end in itertools.pairwise(samples):
            axis = end[:3] - start[:3]
            local = points - _column(start[:3])
            along = np.clip(np.tensordot(axis / (axis @ axis), local, axes=1), 0, 1)
            local -= _column(axis) * along
            away = np.sqrt(np.einsum("c...,c...->...", local, local))
            np.minimum(nearest, away - (start[3] + (end[3] - start[3]) * along), out=nearest)
        return nearest


@dataclasses.dataclass(frozen=True)
class HalfSpace:
    """All points beyond a plane: those with `normal . point` above `offset` mm."""

    normal: Vector
    offset: float

    box = EVERYWHERE

    def distance(self, points: Array) -> Array:
        return self.offset - np.tensordot(np.asarray(self.normal, np.float32), points, axes=1)


@dataclasses.dataclass(frozen=True)
class Union:
    """The union of the parts; edges between them are rounded over `softness` mm."""

    parts: Sequence[Solid]
    softness: float = 1.0

    @property
    def box(self) -> Box:
        """The box around the boxes of all parts."""
        lows, highs = zip(*(part.box for part in self.parts), strict=True)
        return np.min(lows, axis=0) - self.softness, np.max(highs, axis=0) + self.softness

    def distance(self, points: Array) -> Array:
        return _soft_minimum((part.distance(points) for part in self.parts), self.softness)


@dataclasses.dataclass(frozen=True)
class Intersection:
    """The intersection of the parts; edges are rounded over `softness` mm."""

    parts: Sequence[Solid]
    softness: float = 1.0

    @property
    def box(self) -> Box:
        """The intersection of the boxes of all parts."""
        lows, highs = zip(*(part.box for part in self.parts), strict=True)
        return np.max(lows, axis=0), np.min(highs, axis=0)

    def distance(self, points: Array) -> Array:
        return -_soft_minimum((-part.distance(points) for part in self.parts), self.softness)


@dataclasses.dataclass(frozen=True)
class Outside:
    """The complement of a solid."""

    solid: Solid

    box = EVERYWHERE

    def distance(self, points: Array) -> Array:
        return -self.solid.distance(points)


@dataclasses.dataclass(frozen=True)
class Grown:
    """A solid with its surface moved outwards by `by` mm, or inwards if that is negative."""

    solid: Solid
    by: float

    @property
    def box(self) -> Box:
        """The solid's box with the same margin."""
        low, high = self.solid.box
        return low - max(self.by, 0), high + max(self.by, 0)

    def distance(self, points: Array) -> Array:
        return self.solid.distance(points) - self.by


@dataclasses.dataclass(frozen=True)
class Lobed:
    """A solid with a bumpy surface.

    Attributes:
        solid: The smooth solid.
        height: Height of bumps and depth of dents, mm.
        period: Distance from bump to bump, mm.
    """

    solid: Solid
    height: float
    period: float

    @property
    def box(self) -> Box:
        """The solid's box with room for the highest bump."""
        return Grown(self.solid, self.height).box

    def distance(self, points: Array) -> Array:
        waves = np.sin(points * np.float32(2 * np.pi / self.period))
        return self.solid.distance(points) - np.float32(self.height) * waves.prod(axis=0)


@dataclasses.dataclass(frozen=True)
class Stack:
    """A solid repeated along z without end, as for the vertebrae."""

    solid: Solid
    period: float

    @property
    def box(self) -> Box:
        """A box without end along z."""
        low, high = self.solid.box
        return np.array([*low[:2], -np.inf]), np.array([*high[:2], np.inf])

    def distance(self, points: Array) -> Array:
        folded = np.stack([points[0], points[1], _fold(points[2], self.period)])
        return self.solid.distance(folded)


@dataclasses.dataclass(frozen=True)
class Ribs:
    """Ribs in the wall of a cylinder, sloping down from the back and ending at the costal arch.

    Attributes:
        wall: The cylinder that the ribs lie in.
        period: Distance of neighbouring ribs, mm.
        drop: Height difference of a rib between back and front, mm.
        lowest: z of the lowest rib at the back, mm.
        radii: Half thickness across the wall and half height, mm.
    """

    wall: Ellipsoid
    period: float
    drop: float
    lowest: float
    radii: tuple[float, float]

    @property
    def box(self) -> Box:
        """The box from the lowest rib's front upwards."""
        low, high = (edge.copy() for edge in Grown(self.wall, max(self.radii)).box)
        low[2] = self.lowest - self.drop
        return low, high

    def distance(self, points: Array) -> Array:
        across, height = self.radii
        local = (points - _column(self.wall.centre)) / _column(self.wall.radii)
        # 0 at the spine, 1 at the breastbone.
        around = np.abs(np.arctan2(local[0], -local[1])) / np.float32(np.pi)
        level = points[2] + self.drop * around - self.lowest  # of the rib at the spine
        rib = np.round(level / self.period)
        up = (level - rib * self.period) / height
        out = self.wall.distance(points) / across
        bar = (np.sqrt(up**2 + out**2) - 1) * min(self.radii)
        # The two lowest ribs end in the flank, each higher one further in front.
        end = np.minimum(0.42 + 0.09 * rib, 0.85)
        beyond = (around - end) * float(np.max(np.asarray(self.wall.radii)[:2])) * np.pi
        return np.maximum(np.maximum(bar, beyond), -(rib + 0.5) * self.period)


def _column(vector: Vector) -> Array:
    """A vector that broadcasts over points (3, z, y, x)."""
    return np.asarray(vector, dtype=np.float32).reshape(3, 1, 1, 1)


def _fold(values: Array, period: float) -> Array:
    return values - np.round(values / period) * np.float32(period)


def _soft_minimum(distances: Iterable[Array], softness: float) -> Array:
    """The minimum of some distances, rounded off by a parabola where two are within `softness`."""
    least, *others = distances
    for other in others:
        overlap = np.maximum(softness - np.abs(least - other), 0)
        least = np.minimum(least, other) - overlap**2 / (4 * softness)
    return least
