"""The header of a NIfTI file, read from its bytes: both versions, both byte orders."""

from __future__ import annotations

import dataclasses
from typing import Any

import nibabel as nib
import numpy as np
import tensorflow as tf

from fcnseg.inference.checks import checked
from fcnseg.volumes.formats.nifti_header import LARGEST_OFFSET

KINDS: tuple[type[nib.Nifti1Header], ...] = (nib.Nifti1Header, nib.Nifti2Header)
HEADER_BYTES = nib.Nifti2Header.sizeof_hdr
"""Bytes at the start of a file that contain the header of either version."""

ITEM_BYTES = {2: 1, 4: 2, 8: 4, 16: 4, 64: 8, 256: 1, 512: 2, 768: 4, 1024: 8, 1280: 8}
"""Bytes of a voxel by the code of its type: integers and floats, no complex numbers or colours."""


_MOST_DIMS = 7
# What op `DecodeCompressed` unpacks at most, and a message of gRPC contains.
_MOST_BYTES = 2**31 - 1


@dataclasses.dataclass(frozen=True, eq=False)
class HeaderFields:
    """A header as stored.

    Attributes:
        block: Scalar string that starts with the header.
        is_nifti2: Scalar bool, True for NIfTI-2.
        is_big: Scalar bool, True for big-endian numbers.
    """

    block: tf.Tensor
    is_nifti2: tf.Tensor
    is_big: tf.Tensor

    def read(self, name: str) -> tf.Tensor:
        """Reads the numbers of a field, float64 (count,)."""
        first, second = (self._of_kind(kind, name) for kind in KINDS)
        return tf.where(self.is_nifti2, second, first)

    def read_one(self, name: str) -> tf.Tensor:
        """Reads the number of a field, float64 scalar."""
        return self.read(name)[0]

    def steps(self) -> tf.Tensor:
        """The sizes (x, y, z) of pixdim as stored, float64 (3,)."""
        return self.read("pixdim")[1:4]

    def _of_kind(self, kind: type[nib.Nifti1Header], name: str) -> tf.Tensor:
        offset, dtype = field_of(kind, name)
        stored = tf.strings.substr(self.block, offset, dtype.itemsize)
        little, big = (
            tf.io.decode_raw(stored, tf.as_dtype(dtype.base), little_endian=is_little)
            for is_little in (True, False)
        )
        return tf.cast(tf.where(self.is_big, big, little), tf.float64)


@dataclasses.dataclass(frozen=True, eq=False)
class Layout:
    """The place of the voxels in a file, and their numbers.

    Attributes:
        shape: int32 (3,), voxels (z, y, x).
        code: Code of their type, int32 scalar.
        offset: Bytes before the first voxel, int64 scalar.
        end: Bytes up to the end of the last voxel, int64 scalar.
        scale: Slope and intercept, float64 (2,).
    """

    shape: tf.Tensor
    code: tf.Tensor
    offset: tf.Tensor
    end: tf.Tensor
    scale: tf.Tensor


def field_of(kind: type[nib.Nifti1Header], name: str) -> tuple[int, np.dtype[Any]]:
    """The byte at which a field of a header starts, and its type."""
    fields: Any = kind.template_dtype.fields
    dtype, offset, *_ = fields[name]
    return offset, dtype


def read_header(start: tf.Tensor) -> HeaderFields:
    """Reads the header of a file.

    Args:
        start: Scalar string, the first `HEADER_BYTES` of the file, or all of a shorter one.

    Raises:
        tf.errors.InvalidArgumentError: If it is not a header of a single NIfTI file.
    """
    length = tf.strings.length(start)
    block = tf.strings.join([start, b"." * HEADER_BYTES])  # so that each field can be read
    first, second = (
        (length >= kind.sizeof_hdr) & tf.equal(_magic(block, kind), kind.single_magic + b"\0")
        for kind in KINDS
    )
    is_nifti2 = ~first & second & _has_size_of_second(block)
    block = checked(
        block,
        first | is_nifti2,
        "nifti_bytes must be a NIfTI file, .nii or .nii.gz, but has no header of a single file in"
        " its {} bytes",
        length,
    )
    # The number of dimensions, 1 to 7, tells the byte order, as in nibabel.
    little = HeaderFields(block, is_nifti2, tf.constant(False)).read("dim")[0]
    is_big = ~((little >= 1) & (little <= _MOST_DIMS))
    header = HeaderFields(block, is_nifti2, is_big)
    return dataclasses.replace(header, block=_with_line_ends(header))


def read_layout(header: HeaderFields, *, max_voxels: int) -> Layout:
    """Reads the place of the voxels.

    Args:
        header: The header.
        max_voxels: Voxels above which the file is refused, before any is unpacked.

    Raises:
        tf.errors.InvalidArgumentError: If the header defines no volume of integers or floats, or
            one that is too large.
    """
    shape = _shape(header)
    shape = checked(
        shape,
        tf.reduce_prod(shape) <= max_voxels,
        f"volume must have at most {max_voxels} voxels, got shape {{}}",
    )
    code, item_bytes = _type(header)
    offset = _offset(header)
    end = offset + tf.reduce_prod(shape) * item_bytes
    end = checked(
        end,
        end <= _MOST_BYTES,
        f"a NIfTI file must have at most {_MOST_BYTES} bytes uncompressed, got a header of {{}}",
    )
    return Layout(
        tf.cast(shape, tf.int32),
        code,
        tf.cast(offset, tf.int64),
        tf.cast(end, tf.int64),
        _scale(header),
    )


def _magic(block: tf.Tensor, kind: type[nib.Nifti1Header]) -> tf.Tensor:
    offset, _ = field_of(kind, "magic")
    return tf.strings.substr(block, offset, 4)


def _has_size_of_second(block: tf.Tensor) -> tf.Tensor:
    """Tells whether the size of the header is that of NIfTI-2; readers of NIfTI-1 ignore it."""
    size = tf.strings.substr(block, 0, 4)
    found = [
        tf.io.decode_raw(size, tf.int32, little_endian=is_little)[0] for is_little in (True, False)
    ]
    return tf.reduce_any(tf.equal(found, nib.Nifti2Header.sizeof_hdr))


def _with_line_ends(header: HeaderFields) -> tf.Tensor:
    """The block after checking that no program took it for text and changed its ends of lines."""
    offset, dtype = field_of(nib.Nifti2Header, "eol_check")
    stored = tf.io.decode_raw(tf.strings.substr(header.block, offset, dtype.itemsize), tf.int8)
    right = nib.Nifti2Header.default_structarr()["eol_check"]
    is_right = tf.reduce_all(tf.equal(stored, right)) | tf.reduce_all(tf.equal(stored, 0))
    return checked(
        header.block,
        is_right | ~header.is_nifti2,
        f"eol_check of a NIfTI-2 file must be {right.tolist()} or 0, got {{}}",
        stored,
    )


def _shape(header: HeaderFields) -> tf.Tensor:
    """Voxels (z, y, x), float64 (3,): three dimensions of at least one voxel, all others 1."""
    dims = header.read("dim")
    count, sizes = dims[0], dims[1:]
    number = tf.range(1.0, 8.0, dtype=tf.float64)
    is_other = (number > 3) & (number <= count)
    is_volume = (
        (count >= 3)
        & (count <= _MOST_DIMS)
        & tf.reduce_all(sizes[:3] >= 1)
        & tf.reduce_all(tf.equal(sizes, 1) | ~is_other)
    )
    dims = checked(dims, is_volume, "a volume must have three dimensions, got dim {}")
    return tf.reverse(dims[1:4], [0])


def _type(header: HeaderFields) -> tuple[tf.Tensor, tf.Tensor]:
    """Code of the type of voxels, int32, and its bytes, float64."""
    code = tf.cast(header.read_one("datatype"), tf.int32)
    is_type = tf.equal(code, list(ITEM_BYTES))
    code = checked(
        code,
        tf.reduce_any(is_type),
        f"datatype of a NIfTI file must be of {', '.join(map(str, ITEM_BYTES))}, integers and"
        " floats, got {}",
    )
    sizes = tf.constant(list(ITEM_BYTES.values()), tf.float64)
    return code, tf.reduce_sum(tf.where(is_type, sizes, tf.zeros_like(sizes)))


def _offset(header: HeaderFields) -> tf.Tensor:
    offset = header.read_one("vox_offset")
    first, second = (float(kind.single_vox_offset) for kind in KINDS)
    least = tf.where(header.is_nifti2, tf.constant(second, tf.float64), first)
    is_offset = (
        (offset >= least) & (offset <= LARGEST_OFFSET) & tf.equal(offset, tf.math.floor(offset))
    )
    return checked(
        offset,
        is_offset,
        "vox_offset must be a whole number of bytes, got {}; the least is {}",
        offset,
        least,
    )


def _scale(header: HeaderFields) -> tf.Tensor:
    """Slope and intercept, float64 (2,); a slope of 0 means no scale."""
    scale = tf.stack([header.read_one("scl_slope"), header.read_one("scl_inter")])
    scale = checked(
        scale,
        tf.reduce_all(tf.math.is_finite(scale)),
        "scl_slope and scl_inter must be finite, got {}",
    )
    return tf.where(tf.equal(scale[0], 0), tf.constant([1.0, 0.0], tf.float64), scale)
