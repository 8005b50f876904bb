"""NRRD files, 3D Slicer's segmentations among them, read by our own code."""

from __future__ import annotations

import dataclasses
import math
import os
import re
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from fcnseg.codes import Finding
from fcnseg.errors import GeometryError, LabelError
from fcnseg.volumes.formats import text_header
from fcnseg.volumes.formats.raw_voxels import FileVoxels, Packing, volume_shape
from fcnseg.volumes.formats.text_header import Described, integers, numbers, unreadable
from fcnseg.volumes.geometry import LPS, Affine, check_affine, make_affine
from fcnseg.volumes.zyx import Shape

SUFFIXES = (".nrrd", ".nhdr")

_MAGIC = re.compile(rb"NRRD000[1-5]\r?\n")
_MOST_HEADER = 2**24  # bytes; a segmentation describes each segment in some hundred
_DTYPES: dict[str, str] = {
    **dict.fromkeys(("signed char", "int8", "int8_t"), "i1"),
    **dict.fromkeys(("uchar", "unsigned char", "uint8", "uint8_t"), "u1"),
    **dict.fromkeys(
        ("short", "short int", "signed short", "signed short int", "int16", "int16_t"), "i2"
    ),
    **dict.fromkeys(("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"), "u2"),
    **dict.fromkeys(("int", "signed int", "int32", "int32_t"), "i4"),
    **dict.fromkeys(("uint", "unsigned int", "uint32", "uint32_t"), "u4"),
    **dict.fromkeys(
        (
            "longlong",
            "long long",
            "long long int",
            "signed long long",
            "signed long long int",
            "int64",
            "int64_t",
        ),
        "i8",
    ),
    **dict.fromkeys(
        (
            "ulonglong",
            "unsigned long long",
            "unsigned long long int",
            "uint64",
            "uint64_t",
        ),
        "u8",
    ),
    "float": "f4",
    "double": "f8",
}
# Fields of the definition, some of them under two names. Unknown ones are refused, as by teem: they
# may be a misspelt field for the position.
_FIELDS = {
    *("type", "dimension", "sizes", "endian", "encoding", "data file", "line skip", "byte skip"),
    *("space", "space dimension", "space directions", "space origin", "space units"),
    *("spacings", "axis mins", "axis maxs", "thicknesses", "measurement frame"),
    *("kinds", "labels", "units", "centerings", "content", "sample units", "number", "block size"),
    *("min", "max", "old min", "old max"),
}
_ALIASES = {name.replace(" ", ""): name for name in _FIELDS if name.split()[0] != "space"} | {
    "centers": "centerings"
}
_PACKINGS: dict[str, Packing] = {"raw": "none", "gzip": "gzip", "gz": "gzip"}
_ORDERS: dict[str, Literal["<", ">"]] = {"little": "<", "big": ">"}
# Directions of each space's axes, as signs of right, anterior and superior.
_SPACES = {
    ("right-anterior-superior", "ras"): (1, 1, 1),
    ("left-anterior-superior", "las"): (-1, 1, 1),
    ("left-posterior-superior", "lps"): (-1, -1, 1),
}
_ENDS = {3: ("", ""), 4: ("-time", "t")}  # suffixes of a space's names, by its dimensions
_OF_SPACE = {  # kinds of axes along which voxels lie, not the components of a voxel
    "domain",
    "space",
    "time",
    "none",
    "???",
}
_VECTOR = re.compile(r"none|\([^()]*\)", re.IGNORECASE)
_SLICES = re.compile(r"LIST( \d+)?|.*%.*( -?\d+){3,4}")  # one file for each slice


@dataclasses.dataclass(frozen=True)
class _Header:
    """Contents of a header.

    Attributes:
        fields: The fields that NRRD defines, names in lower case.
        keys: The keys added by programs.
        length: Bytes before the data.
        is_ended: True if there is the empty line that ends it.
    """

    fields: Mapping[str, str]
    keys: frozenset[str]
    length: int
    is_ended: bool


@dataclasses.dataclass(frozen=True)
class _Axis:
    """One axis: its number of samples, its step in space and its kind."""

    size: int
    step: tuple[float, ...] | None
    spacing: float
    is_of_space: bool


def describe(path: str) -> Described:
    """Reads the header.

    Raises:
        InputError: If it breaks a rule of the format, or is of a form that is not read.
        GeometryError: If it is of no single three-dimensional volume.
        LabelError: If it is of segments in several layers.
    """
    header = _read_header(path)
    fields = header.fields
    text_header.check_keys(fields, ("dimension", "type", "sizes", "encoding"), path)
    axes = _without_components(_axes(fields, path), header, path)
    shape = volume_shape(tuple(axis.size for axis in axes), path)
    affine, findings = _grid(axes[:3], fields, path)
    return Described(_voxels(header, shape, path), affine, findings)


def _read_header(path: str) -> _Header:
    fields: dict[str, str] = {}
    keys = set()
    with open(path, "rb") as file:
        if not _MAGIC.fullmatch(file.readline(16)):
            raise unreadable(path, "it does not begin with NRRD0001 to NRRD0005")
        while line := os.fsdecode(file.readline(_MOST_HEADER)):
            text = line.strip()
            if not text or file.tell() > _MOST_HEADER:
                break
            if text.startswith("#"):
                continue
            key, colon, value = text.partition(": ")
            if ":=" in key:
                keys.add(key.partition(":=")[0])
                continue
            name = _ALIASES.get(key.lower(), key.lower())
            if not colon or name not in _FIELDS:
                raise unreadable(path, f"its header has {text!r}, which is no field of NRRD")
            if name in fields:
                raise unreadable(path, f"its header has {key!r} twice")
            fields[name] = value.strip()
        return _Header(fields, frozenset(keys), file.tell(), line != "" and not text)


def _axes(fields: Mapping[str, str], path: str) -> list[_Axis]:
    """The axes, the fastest first."""
    sizes = text_header.sizes_of(fields, sizes="sizes", dimension="dimension", path=path)
    count = len(sizes)
    steps: Sequence[tuple[float, ...] | None] = (None,) * count
    if "space directions" in fields:
        steps = _vectors(fields["space directions"], "space directions", path)
    kinds = fields.get("kinds", "domain " * count).lower().split()
    if len(steps) != count or len(kinds) != count:
        raise unreadable(path, f"space directions and kinds must be of {count} axes")
    spacings = (math.nan,) * count
    if "spacings" in fields:
        spacings = numbers(fields["spacings"], "spacings", path, count=count)
    has_directions = "space directions" in fields
    return [
        _Axis(size, step, spacing, kind in _OF_SPACE and (step is not None or not has_directions))
        for size, step, spacing, kind in zip(sizes, steps, spacings, kinds, strict=True)
    ]


def _vectors(text: str, key: str, path: str) -> list[tuple[float, ...] | None]:
    """Parses vectors as in `(1,0,0) none (0,1,0)`."""
    if _VECTOR.sub("", text).strip():
        raise unreadable(path, f"{key} must be vectors such as (1,0,0), got {text!r}")
    vectors: list[tuple[float, ...] | None] = []
    for word in _VECTOR.findall(text):
        parts = word.strip("()").split(",")
        is_vector = word.startswith("(")
        vectors.append(numbers(" ".join(parts), key, path, count=len(parts)) if is_vector else None)
    return vectors


def _without_components(axes: list[_Axis], header: _Header, path: str) -> list[_Axis]:
    """Selects the axes along which voxels lie.

    Raises:
        LabelError: If segments lie in several layers.
        InputError: If voxels are colours or vectors.
        GeometryError: If there are several volumes.
    """
    others = [axis for axis in axes if not axis.is_of_space and axis.size > 1]
    if others and others != axes[:1]:
        sizes = tuple(axis.size for axis in axes)
        raise GeometryError(f"a volume must have three dimensions, got {sizes} in {path}")
    if others and "Segment0_Layer" in header.keys:
        raise LabelError(
            f"segments must not overlap, as a voxel has one class, but {path} keeps them in"
            f" {others[0].size} layers: export them as one labelmap",
            code="segments_overlap",
        )
    if others:
        raise text_header.not_scalar(others[0].size, path)
    return [axis for axis in axes if axis.is_of_space]


def _grid(
    axes: Sequence[_Axis], fields: Mapping[str, str], path: str
) -> tuple[Affine, tuple[Finding, ...]]:
    """The affine of three axes, and findings about what the header leaves out of it."""
    findings = [*text_header.spacing_in(fields.get("space units", ""))]
    steps = [axis.step for axis in axes]
    dimensions = _dimensions(steps, path)
    signs = _signs(fields, dimensions)
    spacings = np.array([axis.spacing for axis in axes])
    if None not in steps:
        matrix = _matrix(steps, path)
        if signs is None:
            space = fields.get("space", "")
            findings.append(
                text_header.unknown_orientation(
                    f"space must be of a patient, as left-posterior-superior, got {space!r}"
                )
            )
    else:
        findings.append(text_header.unknown_orientation("space directions must be in the header"))
        if not np.isfinite(spacings).all():
            findings.append(text_header.unknown_spacing("spacings must be in the header"))
            spacings = np.ones(3)
        matrix = np.diag(spacings)
    origin = _origin(fields, dimensions, path)
    affine = make_affine(origin, matrix, signs=signs or LPS)
    return check_affine(affine, what=path), tuple(findings)


def _signs(fields: Mapping[str, str], dimensions: int) -> tuple[int, int, int] | None:
    """The signs of a space with so many dimensions, of which the fourth is time."""
    space = fields.get("space", "").lower()
    for names, signs in _SPACES.items():
        if space in [name + end for name, end in zip(names, _ENDS[dimensions], strict=True)]:
            return signs
    return None


def _dimensions(steps: Sequence[tuple[float, ...] | None], path: str) -> int:
    """Number of components of a vector in the space: 3, or with time 4."""
    lengths = {3 if step is None else len(step) for step in steps}
    if lengths not in ({3}, {4}):
        raise GeometryError(f"a space must have three dimensions, got {lengths} in {path}")
    return lengths.pop()


def _matrix(steps: Sequence[tuple[float, ...] | None], path: str) -> np.ndarray:
    """The steps (3, 3) as columns, without a fourth axis of space, which is time."""
    matrix = np.array(steps, dtype=float).T
    if matrix[3:].any():
        raise GeometryError(f"axes of space must not lie along time in {path}", code="bad_affine")
    return matrix[:3]


def _origin(fields: Mapping[str, str], dimensions: int, path: str) -> tuple[float, ...]:
    """The position of the first voxel's centre; 0 if the header has none."""
    if "space origin" in fields:
        (vector, *more) = _vectors(fields["space origin"], "space origin", path) or [None]
        if vector is None or more or len(vector) != dimensions:
            raise unreadable(path, f"space origin is no vector: {fields['space origin']!r}")
        return vector[:3]
    mins = fields.get("axis mins", "")
    if "space directions" not in fields and set(mins.lower().split()) - {"nan", "0"}:
        raise unreadable(path, "a position given by axis mins is not read: write a space origin")
    return 0.0, 0.0, 0.0


def _voxels(header: _Header, shape: Shape, path: str) -> FileVoxels:
    """Locates the voxels: after the header, or in the file that it names."""
    fields = header.fields
    encoding, dtype = fields["encoding"].lower(), _dtype(fields, path)
    if encoding not in _PACKINGS:
        raise unreadable(path, f"encoding must be raw or gzip, got {encoding!r}")
    (skipped,) = integers(fields.get("byte skip", "0"), "byte skip", path)[:1]
    lines = fields.get("line skip", "0")
    if lines != "0" or skipped < -1 or (skipped == -1 and encoding != "raw"):
        raise unreadable(path, f"line skip {lines} and byte skip {skipped} are not read")
    name = fields.get("data file")
    if name is None:
        if not header.is_ended:
            raise unreadable(path, "its header does not end with an empty line")
        file, start = path, header.length
    else:
        file, start = _detached(name, path), 0
    offset = skipped
    if skipped == -1:
        offset = text_header.start_of_data(file, -1, math.prod(shape) * dtype.itemsize) - start
    packing = _PACKINGS[encoding]
    return FileVoxels(
        file, max(0, offset), shape, dtype, start=start, packing=packing, is_rest=True
    )


def _detached(name: str, path: str) -> str:
    if _SLICES.fullmatch(name):
        raise unreadable(path, f"data in several files are not read: data file: {name!r}")
    return text_header.data_file(name, path)


def _dtype(fields: Mapping[str, str], path: str) -> np.dtype:
    kind = fields["type"].lower()
    if kind not in _DTYPES:
        raise unreadable(path, f"type {kind!r} is not read")
    dtype = np.dtype(_DTYPES[kind])
    endian = fields.get("endian", "little" if dtype.itemsize == 1 else "missing").lower()
    if endian not in _ORDERS:
        raise unreadable(path, f"endian must be little or big, got {endian}")
    return dtype.newbyteorder(_ORDERS[endian])
