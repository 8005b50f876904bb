"""MetaImage files, read by our own code: MetaIO trusts the names and sizes in a header."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from fcnseg.codes import Finding
from fcnseg.errors import GeometryError
from fcnseg.volumes.formats import text_header
from fcnseg.volumes.formats.raw_voxels import FileVoxels, Packing, volume_shape
from fcnseg.volumes.formats.text_header import Described, numbers, unreadable
from fcnseg.volumes.geometry import Affine, check_affine, make_affine

SUFFIXES = (".mha", ".mhd")

_MOST_HEADER = 2**16  # bytes; a header is a few hundred
_DTYPES = {
    "MET_CHAR": "i1",
    "MET_UCHAR": "u1",
    "MET_SHORT": "i2",
    "MET_USHORT": "u2",
    "MET_INT": "i4",
    "MET_UINT": "u4",
    "MET_LONG_LONG": "i8",
    "MET_ULONG_LONG": "u8",
    "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}
_OF_LONG = ("MET_LONG", "MET_ULONG")  # types of four or eight bytes, by the machine that wrote them
# Each entry by its names in MetaIO, of which the last is the usual one.
_ORIGIN = ("Position", "Origin", "Offset")
_DIRECTION = ("Rotation", "Orientation", "TransformMatrix")
_SPACING = ("ElementSize", "ElementSpacing")
_BIG_ENDIAN = ("ElementByteOrderMSB", "BinaryDataByteOrderMSB")
_SLICES = re.compile(r"LIST( \d+)?|.*%.*( \d+){2,3}", re.IGNORECASE)  # one file for each slice
_UNIT_TOLERANCE = 0.01  # of the length of a direction; cosines have three digits

_Header = Mapping[str, str]


def describe(path: str) -> Described:
    """Reads the header.

    Raises:
        InputError: If it breaks a rule of the format, or is of a form that is not read.
        GeometryError: If it is of no single three-dimensional volume.
    """
    header, length = _read_header(path)
    _check_kind(header, path)
    sizes = text_header.sizes_of(header, sizes="DimSize", dimension="NDims", path=path)
    affine, findings = _grid(header, len(sizes), path)
    return Described(_voxels(header, sizes, length, path), affine, findings)


def _read_header(path: str) -> tuple[dict[str, str], int]:
    """Reads the header's entries and its length in bytes."""
    header: dict[str, str] = {}
    with open(path, "rb") as file:
        while "ElementDataFile" not in header and file.tell() < _MOST_HEADER:
            line = file.readline(_MOST_HEADER)
            if not line:
                break
            key, is_entry, value = (part.strip() for part in os.fsdecode(line).partition("="))
            if not is_entry and key:
                break  # the rest is not part of the header
            if key in header:
                raise unreadable(path, f"its header has {key} twice")
            if key:
                header[key] = value
        length = file.tell()
    needed = ("NDims", "DimSize", "ElementType", "ElementDataFile")
    text_header.check_keys(header, needed, path)
    return header, length


def _check_kind(header: _Header, path: str) -> None:
    """Checks that the file is an image of binary numbers, whose values are stored unscaled."""
    if header.get("ObjectType", "Image") != "Image":
        raise unreadable(path, f"ObjectType must be Image, got {header['ObjectType']!r}")
    if not _flag(header, ("BinaryData",), path, default=True):
        raise unreadable(path, "voxels written as text are not read")
    channels = header.get("ElementNumberOfChannels", "1")
    if text_header.integers(channels, "ElementNumberOfChannels", path) != (1,):
        raise text_header.not_scalar(channels, path)
    for key, nothing in (("Slope", 1.0), ("Offset", 0.0)):
        name = f"ElementToIntensityFunction{key}"
        if numbers(header.get(name, f"{nothing}"), name, path, count=1) != (nothing,):
            raise unreadable(path, f"{name} must be {nothing:g}, as programs do not apply it")


def _flag(header: _Header, keys: tuple[str, ...], path: str, *, default: bool) -> bool:
    key, text = _entry(header, keys, path) or (keys[-1], str(default))
    if text.lower() not in ("true", "false", "1", "0"):
        raise unreadable(path, f"{key} must be True or False, got {text!r}")
    return text.lower() in ("true", "1")


def _entry(header: _Header, keys: tuple[str, ...], path: str) -> tuple[str, str] | None:
    """Gives the entry under any of its names.

    Raises:
        InputError: If it occurs under two, with two values.
    """
    found = [(key, header[key]) for key in keys if key in header]
    if len({value for _, value in found}) > 1:
        raise unreadable(path, f"its header has {' and '.join(f'{k} = {v}' for k, v in found)}")
    return found[-1] if found else None


def _grid(header: _Header, dimensions: int, path: str) -> tuple[Affine, tuple[Finding, ...]]:
    """The affine, and findings about what the header leaves out of it."""
    if dimensions < 3:
        raise GeometryError(f"a volume must have three dimensions, got {dimensions} in {path}")
    findings = text_header.spacing_in(header.get("DistanceUnits", ""))
    spacing, directions = np.ones(dimensions), np.eye(dimensions)
    origin = np.zeros(dimensions)
    if entry := _entry(header, _ORIGIN, path):
        origin = np.array(numbers(entry[1], entry[0], path, count=dimensions))
    key = next((key for key in reversed(_SPACING) if key in header), None)
    if key is None:
        findings.append(text_header.unknown_spacing("ElementSpacing must be in the header"))
    else:
        spacing = np.array(numbers(header[key], key, path, count=dimensions))
    if entry := _entry(header, _DIRECTION, path):
        values = numbers(entry[1], entry[0], path, count=dimensions**2)
        directions = np.reshape(values, (dimensions, dimensions)).T  # axis after axis in the file
    else:
        findings.append(text_header.unknown_orientation("TransformMatrix must be in the header"))
    affine = check_affine(make_affine(origin[:3], directions[:3, :3] * spacing[:3]), what=path)
    lengths = np.linalg.norm(directions[:, :3], axis=0)
    if not np.allclose(lengths, 1, rtol=0, atol=_UNIT_TOLERANCE):
        raise GeometryError(
            f"directions must be of length 1, got {np.round(lengths, 4).tolist()} in {path}",
            code="bad_affine",
        )
    return affine, tuple(findings)


def _voxels(header: _Header, sizes: tuple[int, ...], length: int, path: str) -> FileVoxels:
    """Locates the voxels: after the header, or in the file that it names."""
    shape = volume_shape(sizes, path)
    dtype = _dtype(header, path)
    name = header["ElementDataFile"]
    is_packed = _flag(header, ("CompressedData",), path, default=False)
    skipped = text_header.integers(header.get("HeaderSize", "0"), "HeaderSize", path)[0]
    is_local = name.upper() == "LOCAL"
    if skipped < -1 or (skipped and (is_local or is_packed)):
        raise unreadable(
            path, f"HeaderSize must be 0 where data are compressed or LOCAL: {skipped}"
        )
    if is_local:
        file, start = path, length
    else:
        file = _detached(name, path)
        start = text_header.start_of_data(file, skipped, math.prod(sizes) * dtype.itemsize)
    packing: Packing = "zlib" if is_packed else "none"
    return FileVoxels(file, 0, shape, dtype, start=start, packing=packing, is_rest=True)


def _detached(name: str, path: str) -> str:
    if _SLICES.fullmatch(name) and not (Path(path).parent / name).is_file():
        raise unreadable(path, f"data in several files are not read: ElementDataFile = {name!r}")
    return text_header.data_file(name, path)


def _dtype(header: _Header, path: str) -> np.dtype:
    kind = header["ElementType"]
    if kind not in _DTYPES:
        also = "of 4 bytes or of 8, by the machine: " if kind in _OF_LONG else ""
        raise unreadable(path, f"ElementType {kind!r} is not read: {also}write MET_INT or another")
    is_big = _flag(header, _BIG_ENDIAN, path, default=False)
    return np.dtype(_DTYPES[kind]).newbyteorder(">" if is_big else "<")
