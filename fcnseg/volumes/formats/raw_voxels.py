"""The voxels in a file, compressed by gzip or not, read a few slices at a time to the last byte."""

from __future__ import annotations

import contextlib
import dataclasses
import gzip
import io
import math
import os
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Literal, cast

import numpy as np
import numpy.typing as npt

from fcnseg.errors import GeometryError, InputError, one_line
from fcnseg.volumes.formats.zlib_stream import Unpacked
from fcnseg.volumes.zyx import Shape, Zyx

Packing = Literal["none", "gzip", "zlib"]

open_gzip: Any = gzip.open
_PackingError = cast(type[Exception], zlib.error)
with contextlib.suppress(ImportError):  # decompresses in 0.4 of the time
    from isal import igzip, isal_zlib

    open_gzip, _PackingError = igzip.open, cast(type[Exception], isal_zlib.error)

NOT_WHOLE: tuple[type[Exception], ...] = (OSError, EOFError, zlib.error, _PackingError)
"""Errors of reading an incomplete file, a wrong checksum among them."""

# Bytes read from a file at once: on a scan of 439 x 364 x 168 voxels 1 MB takes two thirds of the
# time of reading all at once, as the decompressed bytes are still in the processor's cache.
READ_BYTES = 2**20
_MOST_UNPACKED = 1032  # maximum compression ratio of deflate


@contextlib.contextmanager
def reading_voxels(path: str) -> Iterator[None]:
    """Makes each of `NOT_WHOLE` an error that names the volume.

    Raises:
        InputError: If one of them is raised inside.
    """
    try:
        yield
    except NOT_WHOLE as error:
        raise InputError(f"incomplete or corrupt volume: {path}: {one_line(error)}") from error


def volume_shape(sizes: Sequence[int], path: str) -> Shape:
    """Gives the voxels (z, y, x) of sizes (x, y, z), after which all must be 1.

    Raises:
        GeometryError: If they are not three-dimensional, or a size is 0.
    """
    if len(sizes) < 3 or any(size != 1 for size in sizes[3:]) or min(sizes) < 1:
        raise GeometryError(f"a volume must have three dimensions, got {sizes} in {path}")
    return Zyx(map(int, sizes[2::-1]))


@dataclasses.dataclass(frozen=True)
class FileVoxels:
    """The location of voxels in a file.

    Reading raises one of `NOT_WHOLE` if the file is incomplete.

    Attributes:
        path: The file.
        offset: Bytes before the first voxel, after decompression.
        shape: Voxels (z, y, x); x is the fastest.
        dtype: Stored type, in either byte order.
        start: Offset of the data in the file, compressed or not.
        packing: Compression of the data; by default gzip if the name ends in `.gz`.
        is_rest: True if the file must end with the last voxel.
    """

    path: str
    offset: int
    shape: Shape
    dtype: np.dtype[Any]
    start: int = 0
    packing: Packing | None = None
    is_rest: bool = False

    @property
    def num_bytes(self) -> int:
        """Size of the voxels in bytes, after decompression."""
        return math.prod(self.shape) * self.dtype.itemsize

    def read(self) -> npt.NDArray[Any]:
        """Reads all voxels, in the byte order of this machine."""
        with self._opened() as file:
            array = np.empty(self.shape, self.dtype)
            _fill(array, file)
            self._finish(file)
        if array.dtype.isnative:
            return array
        return array.byteswap(inplace=True).view(array.dtype.newbyteorder("="))

    def slabs(self) -> Iterator[npt.NDArray[Any]]:
        """Yields slabs of slices (n, y, x); each is valid until the next one."""
        with self._opened() as file:
            depth, height, width = self.shape
            most = max(1, READ_BYTES // (height * width * self.dtype.itemsize))
            room = np.empty((min(most, depth), height, width), self.dtype)
            for start in range(0, depth, most):
                slab = room[: depth - start]
                _fill(slab, file)
                yield slab
            self._finish(file)

    def check_size(self) -> None:
        """Checks that the file can hold the voxels, before memory is allocated for them.

        Raises:
            EOFError: If it cannot.
        """
        present = Path(self.path).stat().st_size - self.start
        promised = self.offset + self.num_bytes
        is_right = present == promised if self.is_rest else present >= promised
        if self._packing == "none" and not is_right:
            raise EOFError(f"{max(present, 0)} bytes of data, where its header promises {promised}")
        if promised > present * _MOST_UNPACKED:
            raise EOFError(f"{present} bytes of compressed data cannot make {promised}")

    @property
    def _packing(self) -> Packing:
        return self.packing or ("gzip" if self.path.lower().endswith(".gz") else "none")

    @contextlib.contextmanager
    def _opened(self) -> Iterator[BinaryIO]:
        self.check_size()
        with open(self.path, "rb") as file:
            file.seek(self.start)
            with _unpacked(file, self._packing) as stream:
                if self.offset:  # zlib streams have no seek
                    stream.seek(self.offset, os.SEEK_CUR)
                yield stream

    def _finish(self, file: BinaryIO) -> None:
        """Reads to the end, where gzip stores the checksum."""
        while file.read(READ_BYTES):
            if self.is_rest:
                raise EOFError(
                    f"more data than the {self.num_bytes} bytes that its header promises"
                )


def _unpacked(file: BinaryIO, packing: Packing) -> contextlib.AbstractContextManager[BinaryIO]:
    if packing == "gzip":
        return cast(BinaryIO, open_gzip(file, "rb"))
    if packing == "zlib":
        return cast(BinaryIO, io.BufferedReader(Unpacked(file), READ_BYTES))
    return contextlib.nullcontext(file)


def _fill(array: npt.NDArray[Any], file: BinaryIO) -> None:
    into = array.reshape(-1).view(np.uint8).data
    done = 0
    while done < len(into):
        count = file.readinto(into[done : done + READ_BYTES])  # type: ignore[attr-defined]
        if not count:
            raise EOFError(f"{len(into)} bytes of voxels expected, {done} found")
        done += count
