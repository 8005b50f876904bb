"""Volumes as described by the text headers of NRRD and MetaImage."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from fcnseg.codes import Finding
from fcnseg.errors import InputError
from fcnseg.volumes.formats.raw_voxels import FileVoxels
from fcnseg.volumes.formats.rescale import read_hu, read_ids
from fcnseg.volumes.geometry import Affine, Geometry
from fcnseg.volumes.volume import Volume

_INTEGER = re.compile(r"-?[0-9]{1,18}")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?|[+-]?inf|[+-]?nan")
_MILLIMETRES = {"mm", "millimeter", "millimeters", "?", "???"}  # or an unknown unit


@dataclasses.dataclass(frozen=True, eq=False)
class Described:
    """A volume as described by its header; no voxel is read yet.

    Attributes:
        voxels: Location of the voxels.
        affine: See `Geometry`.
        findings: Missing information of the header, and the values taken instead.
    """

    voxels: FileVoxels
    affine: Affine
    findings: tuple[Finding, ...]


@dataclasses.dataclass(frozen=True)
class TextFormat:
    """The reader of a format whose files have a text header.

    Attributes:
        describe: Reads the header of a file; raises `InputError` if it cannot be used.
    """

    describe: Callable[[str], Described]

    def read_geometry(self, path: str) -> Geometry:
        """Reads the grid, from the header alone."""
        found = self.describe(path)
        return Geometry(found.voxels.shape, found.affine, findings=found.findings)

    def read_ct(self, path: str) -> Volume:
        """Reads HU (z, y, x) as int16."""
        found = self.describe(path)
        return Volume(read_hu(found.voxels, path), found.affine, findings=found.findings)

    def read_label(self, path: str) -> Volume:
        """Reads ids (z, y, x): in the file's own type or the smallest that holds them."""
        found = self.describe(path)
        return Volume(read_ids(found.voxels, path), found.affine, findings=found.findings)


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


def sizes_of(
    header: Mapping[str, str], *, sizes: str, dimension: str, path: str
) -> tuple[int, ...]:
    """Parses the sizes (x, y, z, ...) of a header, all positive.

    Args:
        header: Its entries.
        sizes: Key of the sizes.
        dimension: Key of their number.
        path: The file, for errors.

    Raises:
        InputError: If they contradict their number, or are of no volume that a file can hold.
    """
    found = integers(header[sizes], sizes, path)
    if integers(header[dimension], dimension, path) != (len(found),):
        raise unreadable(path, f"{dimension} is {header[dimension]}, but {sizes} {header[sizes]}")
    if min(found) < 1 or math.prod(found) >= 2**60:
        raise unreadable(path, f"{sizes} must be positive and of a possible volume, got {found}")
    return found


def check_keys(header: Mapping[str, str], needed: Sequence[str], path: str) -> None:
    """Checks that a header has the entries without which it describes no volume.

    Raises:
        InputError: If not.
    """
    missing = [key for key in needed if not header.get(key)]
    if missing:
        raise unreadable(path, f"its header has no {', '.join(missing)}")


def not_scalar(components: object, path: str) -> InputError:
    """Makes the error for voxels of several numbers."""
    return InputError(
        f"voxels must be single numbers, got {components} (a colour or a vector) in {path}",
        code="not_scalar",
    )
