"""The voxels in a file, packed by gzip or not, read a few slices at a time to the last byte."""

from __future__ import annotations

import contextlib
import dataclasses
import gzip
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO, cast

import numpy as np
import numpy.typing as npt

from fcnseg.volumes.volume import Shape

_open_gzip: Any = gzip.open
_PackingError = cast(type[Exception], zlib.error)
with contextlib.suppress(ImportError):  # unpacks in 0.4 of the time
    from isal import igzip, isal_zlib

    _open_gzip, _PackingError = igzip.open, cast(type[Exception], isal_zlib.error)

NOT_WHOLE: tuple[type[Exception], ...] = (OSError, EOFError, zlib.error, _PackingError)
"""What reading raises for a file that is not whole, a wrong checksum among it."""

# Bytes asked of a file at once: on a scan of 439 x 364 x 168 voxels a MB takes two thirds of the
# time that the whole takes, as what is unpacked is still in the processor's cache.
_READ = 2**20


@dataclasses.dataclass(frozen=True)
class FileVoxels:
    """Where the voxels lie in a file.

    Reading raises one of `NOT_WHOLE` where the file is not whole.

    Attributes:
        path: The file; one that ends in `.gz` is unpacked.
        offset: Bytes before the first voxel, as unpacked.
        shape: Voxels (z, y, x); x is the fastest.
        dtype: As stored, in either byte order.
    """

    path: str
    offset: int
    shape: Shape
    dtype: np.dtype[Any]

    def read(self) -> npt.NDArray[Any]:
        """All voxels, in the byte order of this machine."""
        array = np.empty(self.shape, self.dtype)
        with self._opened() as file:
            _fill(array, file)
            _finish(file)
        if array.dtype.isnative:
            return array
        return array.byteswap(inplace=True).view(array.dtype.newbyteorder("="))

    def slabs(self) -> Iterator[npt.NDArray[Any]]:
        """Some slices (n, y, x) after the other; each is good until the next is asked for."""
        depth, height, width = self.shape
        most = max(1, _READ // (height * width * self.dtype.itemsize))
        room = np.empty((min(most, depth), height, width), self.dtype)
        with self._opened() as file:
            for start in range(0, depth, most):
                slab = room[: depth - start]
                _fill(slab, file)
                yield slab
            _finish(file)

    def _opened(self) -> BinaryIO:
        opened = _open_gzip if self.path.lower().endswith(".gz") else open
        file = cast(BinaryIO, opened(self.path, "rb"))
        file.seek(self.offset)
        return file


def _fill(array: npt.NDArray[Any], file: BinaryIO) -> None:
    into = array.reshape(-1).view(np.uint8).data
    done = 0
    while done < len(into):
        count = file.readinto(into[done : done + _READ])  # type: ignore[attr-defined]
        if not count:
            raise EOFError(f"{len(into)} bytes of voxels expected, {done} found")
        done += count


def _finish(file: BinaryIO) -> None:
    """Reads on to the end, where gzip keeps the checksum."""
    while file.read(_READ):
        pass
