"""The voxels of a NIfTI file in the graph: unpacked, and converted to HU slab by slab."""

from __future__ import annotations

import functools
import gzip
from collections.abc import Callable

import tensorflow as tf

from fcnseg.inference.checks import checked
from fcnseg.saved_model.nifti.header import HEADER_BYTES, ITEM_BYTES, HeaderFields, Layout

_GZIP = b"\x1f\x8b"  # signature of compressed data
# Start of a packed file in which the header lies: a gzip header may have 64 KiB before it. A bomb
# makes 67 MB of it.
_PACKED_START = 2**16 + 2**10
# Appended to a packed file, it comes out at the end if what is before it is whole.
_WHOLE = b"is whole"
_PACKED_END = 2**16  # bytes in which empty members at the end are looked for
_SIZE_BYTES = 4  # of the unpacked size, at the end of a packed file
_SPARE_BYTES = 2**20  # that may follow the voxels
# A member of gzip without content, at which the op fails: plain, named, or as bgzip ends a file.
# Regular expressions of TensorFlow are of UTF-8, so a byte above 127 is any byte.
_EMPTY_MEMBER = (
    r"\x1f\C\x08(?:\x00\C{6}|\x08\C{6}[^\x00]+\x00|\x04\C{6}\x06\x00BC\x02\x00\x1b\x00)"
    r"(?:\x03\x00|\x01\x00\x00\C\C)\x00{8}"
)
_ZEROS = r"\x00+\z"  # padding, behind those that belong to the size in the trailer
_SLAB_VOXELS = 2**20  # converted at once: 8 MiB of float64
# Types as `decode_raw` has them, by code of the header; unsigned ones of 4 and 8 bytes are bitcast.
_STORED = {
    2: tf.uint8,
    4: tf.int16,
    8: tf.int32,
    16: tf.float32,
    64: tf.float64,
    256: tf.int8,
    512: tf.uint16,
    768: tf.int32,
    1024: tf.int64,
    1280: tf.int64,
}
_UNSIGNED = {768: tf.uint32, 1280: tf.uint64}

_OfText = Callable[[tf.Tensor], tf.Tensor]


def is_packed(file_bytes: tf.Tensor) -> tf.Tensor:
    """Tells whether the bytes of a file, a scalar string, are compressed by gzip."""
    return tf.equal(tf.strings.substr(file_bytes, 0, len(_GZIP)), _GZIP)


def start_of(file_bytes: tf.Tensor) -> tf.Tensor:
    """Gives the bytes at the start of a file, unpacked, in which its header lies."""
    start = tf.cond(
        is_packed(file_bytes),
        lambda: _start_of_packed(file_bytes),
        lambda: file_bytes,
    )
    return tf.strings.substr(start, 0, HEADER_BYTES)


def _start_of_packed(file_bytes: tf.Tensor) -> tf.Tensor:
    """Unpacks the start of a file; all of a short one."""
    start = tf.strings.substr(file_bytes, 0, _PACKED_START)
    return _unpacked_by(
        _unpacked, start, is_right=lambda unpacked: _length(unpacked) >= HEADER_BYTES
    )


def read_hu(file_bytes: tf.Tensor, header: HeaderFields, layout: Layout) -> tf.Tensor:
    """Reads the voxels of a file as HU: rescaled, rounded, and clipped to the range of int16.

    Args:
        file_bytes: Scalar string, compressed by gzip or not.
        header: The header in them.
        layout: The place of the voxels.

    Returns:
        int16 (k, j, i), in the order of the file.

    Raises:
        tf.errors.InvalidArgumentError: If the file is incomplete, or a value is NaN or infinite.
    """
    content = tf.cond(
        is_packed(file_bytes), lambda: _all_unpacked(file_bytes, layout), lambda: file_bytes
    )
    content = checked(
        content,
        _length(content) >= layout.end,
        "incomplete or corrupt volume: {} bytes, where its header promises {}",
        _length(content),
        layout.end,
    )
    is_hu = tf.equal(layout.code, 4) & tf.reduce_all(tf.equal(layout.scale, [1.0, 0.0]))
    return tf.cond(
        is_hu,
        lambda: _as_stored(content, header, layout),
        lambda: _converted(content, header, layout),
    )


def _all_unpacked(file_bytes: tf.Tensor, layout: Layout) -> tf.Tensor:
    """Unpacks a file, after checking that it does not unpack to more than its header promises."""
    end = tf.strings.substr(
        file_bytes, tf.maximum(_length(file_bytes) - _PACKED_END, 0), _PACKED_END
    )
    size = _unpacked_size(tf.strings.regex_replace(end, _EMPTY_MEMBER, ""))
    file_bytes = checked(
        file_bytes,
        size <= layout.end + _SPARE_BYTES,
        "a compressed volume must decompress to the {} bytes that its header promises, but has {}",
        layout.end,
        size,
    )
    ended = _unpacked_by(_unpacked_to_end, file_bytes, is_right=_is_whole)
    ended = checked(
        ended,
        _is_whole(ended),
        "incomplete or corrupt volume: its {} compressed bytes cannot be decompressed",
        _length(file_bytes),
    )
    return tf.strings.substr(ended, tf.constant(0, tf.int64), _length(ended) - len(_WHOLE))


def _unpacked_to_end(packed: tf.Tensor) -> tf.Tensor:
    """Unpacks a file; the text `_WHOLE` comes behind its bytes if they are all of them."""
    return _unpacked(tf.strings.join([packed, gzip.compress(_WHOLE, mtime=0)]))


def _is_whole(ended: tf.Tensor) -> tf.Tensor:
    begin = tf.maximum(_length(ended) - len(_WHOLE), 0)
    end = tf.strings.substr(ended, begin, tf.constant(len(_WHOLE), tf.int64))
    return tf.equal(end, _WHOLE)


def _cleaned(packed: tf.Tensor) -> list[tf.Tensor]:
    """A packed file without empty members and zeros at its end, but for some.

    The size in the trailer may end with zeros itself: with none, one, two or three.
    """
    full = tf.strings.regex_replace(packed, _EMPTY_MEMBER, "")
    stripped = tf.strings.regex_replace(full, _ZEROS, "")
    made = [tf.strings.join([stripped, b"\0" * count]) for count in range(_SIZE_BYTES)]
    return [tf.where(_length(each) <= _length(full), each, full) for each in made]  # none is added


def _unpacked_by(unpack: _OfText, packed: tf.Tensor, *, is_right: _OfText) -> tf.Tensor:
    """Unpacks a file as it is, and only if the result is not right without what hinders it."""

    def unpacked_or(unpacked: tf.Tensor, other: Callable[[], tf.Tensor]) -> tf.Tensor:
        return tf.cond(is_right(unpacked), lambda: unpacked, other)

    def unpacked_when_cleaned() -> tf.Tensor:
        unpacked = tf.constant("")
        for cleaned in _cleaned(packed):
            unpacked = unpacked_or(unpacked, functools.partial(unpack, cleaned))
        return unpacked

    return unpacked_or(unpack(packed), unpacked_when_cleaned)


def _unpacked_size(packed: tf.Tensor) -> tf.Tensor:
    """The size, int64, that the last bytes of a packed file tell."""
    begin = tf.maximum(_length(packed) - _SIZE_BYTES, 0)
    last = tf.io.decode_raw(tf.strings.substr(packed, begin, _SIZE_BYTES), tf.uint8)
    return tf.reduce_sum(tf.cast(last, tf.int64) * [1, 2**8, 2**16, 2**24])


def _unpacked(packed: tf.Tensor) -> tf.Tensor:
    """Unpacks gzip, of one member or several; an empty string if it is broken.

    The op fails with DATA_LOSS, a fault of the server's; a dataset may ignore the error. The op
    ends without one where the input ends too early, and after 2 GiB.
    """
    unpacked = tf.data.Dataset.from_tensors(packed).map(
        lambda each: tf.io.decode_compressed(each, "GZIP")
    )
    return unpacked.ignore_errors().reduce(tf.constant(""), lambda _, each: each)


def _length(text: tf.Tensor) -> tf.Tensor:
    """Bytes of a scalar string, int64."""
    return tf.cast(tf.strings.length(text), tf.int64)


def _as_stored(content: tf.Tensor, header: HeaderFields, layout: Layout) -> tf.Tensor:
    """Voxels (k, j, i) that are int16 HU as they are."""
    voxels = tf.strings.substr(content, layout.offset, layout.end - layout.offset)
    return tf.reshape(_decoded(voxels, tf.int16, header.is_big), layout.shape)


def _converted(content: tf.Tensor, header: HeaderFields, layout: Layout) -> tf.Tensor:
    """Voxels (k, j, i) of any type, converted to int16 HU slab by slab."""
    plane = layout.shape[1] * layout.shape[2]
    depth = tf.maximum(_SLAB_VOXELS // plane, 1)
    count = -(-layout.shape[0] // depth)
    bytes_of_slice = (layout.end - layout.offset) // tf.cast(layout.shape[0], tf.int64)
    slabs = tf.TensorArray(
        tf.int16, size=count, infer_shape=False, element_shape=[None, None, None]
    )
    for number in tf.range(count):
        tf.autograph.experimental.set_loop_options(parallel_iterations=1)
        slices = tf.minimum(depth, layout.shape[0] - number * depth)
        start = layout.offset + tf.cast(number * depth, tf.int64) * bytes_of_slice
        slab = tf.strings.substr(content, start, tf.cast(slices, tf.int64) * bytes_of_slice)
        hu = _to_hu(slab, header, layout)
        slabs = slabs.write(number, tf.reshape(hu, [slices, layout.shape[1], layout.shape[2]]))
    return slabs.concat()


def _to_hu(slab: tf.Tensor, header: HeaderFields, layout: Layout) -> tf.Tensor:
    """Converts the bytes of voxels to HU, int16 (count,)."""
    which = tf.argmax(tf.cast(tf.equal(layout.code, list(_STORED)), tf.int32), output_type=tf.int32)
    return tf.switch_case(
        which, [functools.partial(_rescaled, slab, header, layout, code) for code in _STORED]
    )


def _rescaled(slab: tf.Tensor, header: HeaderFields, layout: Layout, code: int) -> tf.Tensor:
    """Converts the bytes of voxels of one type to HU, as `fcnseg.volumes.formats.rescale` does."""
    stored = _decoded(slab, _STORED[code], header.is_big)
    if code in _UNSIGNED:
        stored = tf.bitcast(stored, _UNSIGNED[code])
    exact = tf.float64 if ITEM_BYTES[code] > 2 else tf.float32
    slope, intercept = tf.unstack(tf.cast(layout.scale, exact))
    values = tf.cast(stored, exact) * slope + intercept
    values = checked(
        values,
        tf.reduce_all(tf.math.is_finite(values)),
        "voxels must be finite, got NaN or infinity",
    )
    limits = tf.constant([tf.int16.min, tf.int16.max], exact)
    return tf.cast(tf.clip_by_value(tf.round(values), limits[0], limits[1]), tf.int16)


def _decoded(voxels: tf.Tensor, dtype: tf.DType, is_big: tf.Tensor) -> tf.Tensor:
    """Decodes numbers of either byte order, (count,)."""
    return tf.cond(
        is_big,
        lambda: tf.io.decode_raw(voxels, dtype, little_endian=False),
        lambda: tf.io.decode_raw(voxels, dtype),
    )
