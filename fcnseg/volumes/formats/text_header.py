"""Volumes as described by the text headers of NRRD and MetaImage."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from fcnseg.codes import Finding
from fcnseg.errors import InputError, one_line
from fcnseg.volumes.formats.raw_voxels import NOT_WHOLE, FileVoxels
from fcnseg.volumes.formats.rescale import to_int16, to_integral
from fcnseg.volumes.geometry import Affine, Geometry
from fcnseg.volumes.volume import Volume

_INTEGER = re.compile(r"-?[0-9]{1,18}")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?|[+-]?inf|[+-]?nan")
_MILLIMETRES = {"mm", "millimeter", "millimeters", "?", "???"}  # or an unknown unit


@dataclasses.dataclass(frozen=True, eq=False)
class Described:
    """A volume as described by its header; no voxel is read yet.

    Attributes:
        path: The file with the header.
        voxels: Location of the voxels.
        affine: See `Geometry`.
        findings: Missing information of the header, and the values taken instead.
    """

    path: str
    voxels: FileVoxels
    affine: Affine
    findings: tuple[Finding, ...]

    @property
    def geometry(self) -> Geometry:
        """The grid."""
        return Geometry(self.voxels.shape, self.affine, findings=self.findings)

    def read_ct(self) -> Volume:
        """Reads HU (z, y, x) as int16."""
        is_hu = self.voxels.dtype.newbyteorder("=") == np.int16
        with self._reading():
            hu = self.voxels.read() if is_hu else to_int16(self.voxels, 1, 0, what=self.path)
        return Volume(hu, self.affine, findings=self.findings)

    def read_label(self) -> Volume:
        """Reads ids (z, y, x): in the file's own type or the smallest that holds them."""
        dtype = self.voxels.dtype
        is_ids = dtype.kind in "iu" and dtype.itemsize <= 2
        with self._reading():
            ids = self.voxels.read() if is_ids else to_integral(self.voxels, 1, 0, what=self.path)
        return Volume(ids, self.affine, findings=self.findings)

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except NOT_WHOLE as error:
            raise InputError(f"not a whole volume: {self.path}: {one_line(error)}") from error


def unreadable(path: str, reason: str) -> InputError:
    """Makes the error for a header that breaks a rule of its format."""
    printable = reason.encode("utf-8", "backslashreplace").decode()  # names may have any encoding
    return InputError(f"not a readable volume: {path}: {' '.join(printable.split())}")


def integers(text: str, key: str, path: str) -> tuple[int, ...]:
    """Parses the integers of a header's entry.

    Raises:
        InputError: If there is none, or something else is among them.
    """
    words = text.split()
    if not words or not all(map(_INTEGER.fullmatch, words)):
        raise unreadable(path, f"{key} must be whole numbers, got {text!r}")
    return tuple(map(int, words))


def numbers(text: str, key: str, path: str, *, count: int) -> tuple[float, ...]:
    """Parses the numbers of a header's entry, NaN and infinity included.

    Raises:
        InputError: If there are more or fewer, or something else is among them.
    """
    words = text.lower().split()
    if len(words) != count or not all(map(_NUMBER.fullmatch, words)):
        raise unreadable(path, f"{key} must be {count} numbers, got {text!r}")
    return tuple(map(float, words))


def data_file(name: str, path: str) -> str:
    """Resolves the path of the data file that a header names.

    The name is taken literally, whatever it contains, but must stay in the folder of the header: a
    file received from others must not make any other file its voxels.

    Raises:
        InputError: If it leads out of that folder, or there is no such file.
    """
    if Path(name).is_absolute() or ".." in Path(name).parts or "\0" in name:
        raise unreadable(path, f"its data must lie in its folder, got {name!r}")
    file = Path(path).parent / name
    if not file.is_file():
        raise InputError(
            f"no such file: {name!r}, which {path} names for its data", code="file_missing"
        )
    return str(file)


def start_of_data(file: str, skipped: int, num_bytes: int) -> int:
    """Offset of raw data: after some bytes, or, if that is -1, so that they end the file."""
    return skipped if skipped >= 0 else max(0, Path(file).stat().st_size - num_bytes)


def unknown_orientation(reason: str) -> Finding:
    """The finding for a header without the directions of the axes."""
    return Finding(
        "orientation_unknown",
        f"{reason}; taken where accepted: the axes grow to left, posterior and superior",
    )


def unknown_spacing(reason: str) -> Finding:
    """The finding for a header without the spacing."""
    return Finding("spacing_unknown", f"{reason}; taken where accepted: 1 mm")


def spacing_in(units: str) -> list[Finding]:
    """Finds whether a header has another unit than mm, which is ignored."""
    if set(units.lower().replace('"', " ").split()) <= _MILLIMETRES:
        return []
    return [Finding("spacing_implausible", f"spacing must be in mm, got the unit {units!r}")]


def volume_sizes(sizes: tuple[int, ...]) -> tuple[int, int, int] | None:
    """Voxels (z, y, x) of sizes (x, y, z, 1, ...); None if they are not three-dimensional."""
    if len(sizes) < 3 or any(size != 1 for size in sizes[3:]):
        return None
    width, height, depth = sizes[:3]
    return depth, height, width


def check_sizes(sizes: tuple[int, ...], key: str, path: str) -> None:
    """Checks that sizes are positive, and that a file can hold so many voxels.

    Raises:
        InputError: If not.
    """
    if min(sizes) < 1 or math.prod(sizes) >= 2**60:
        raise unreadable(path, f"{key} must be positive and of a possible volume, got {sizes}")
