"""The bytes of a mask's NIfTI file in the graph, as `fcnseg.volumes.write_mask` writes it."""

from __future__ import annotations

import io
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from fcnseg.saved_model.nifti.header import KINDS, HeaderFields, Layout, field_of
from fcnseg.volumes.formats.nifti import CARET, TEXTS_OF_FORMAT
from fcnseg.volumes.formats.nifti_header import LAST_CODE

_UINT8 = 2  # code of the type of voxels


def encode_mask(
    labels: tf.Tensor, header: HeaderFields, layout: Layout, *, steps: tf.Tensor, label_table: str
) -> tf.Tensor:
    """Encodes a mask on the grid of its image, with the header's texts and extensions left out.

    Args:
        labels: Class ids, uint8 (k, j, i).
        header: Header of the image.
        layout: Place of the image's voxels.
        steps: Millimetres of voxels along i, j and k, for a header that lacks them, float64 (3,).
        label_table: Names and colours of the classes, as XML of Connectome Workbench.

    Returns:
        Scalar string, a file that is not compressed.
    """
    first, second = (
        lambda kind=kind: _header_bytes(header, layout, steps, label_table, kind) for kind in KINDS
    )
    start = tf.cond(header.is_nifti2, second, first)
    content = tf.concat([start, tf.reshape(labels, [-1])], axis=0)
    # A serialized tensor of uint8 ends with its bytes: no other op makes a string of numbers.
    serialized = tf.io.serialize_tensor(content)
    length = tf.strings.length(serialized)
    return tf.strings.substr(serialized, length - tf.size(content), tf.size(content))


def _header_bytes(
    header: HeaderFields,
    layout: Layout,
    steps: tf.Tensor,
    label_table: str,
    kind: type[nib.Nifti1Header],
) -> tf.Tensor:
    """Bytes before the voxels of a mask, uint8 (count,)."""
    stored = tf.io.decode_raw(tf.strings.substr(header.block, 0, kind.sizeof_hdr), tf.uint8)
    extension = nib.nifti1.Nifti1Extension(CARET, label_table.encode())
    offset = kind.single_vox_offset + extension.get_sizeondisk()
    fields = _changed_fields(header, layout, steps, kind) | {"vox_offset": [float(offset)]}
    places = sorted((*field_of(kind, name), value) for name, value in fields.items())
    parts, end = [], 0
    for begin, dtype, value in places:
        parts += [stored[end:begin], _encoded(value, dtype, header.is_big)]
        end = begin + dtype.itemsize
    little, big = (_extension_bytes(extension, byteswap=is_big) for is_big in (False, True))
    return tf.concat([*parts, stored[end:], tf.where(header.is_big, big, little)], axis=0)


def _changed_fields(
    header: HeaderFields, layout: Layout, steps: tf.Tensor, kind: type[nib.Nifti1Header]
) -> dict[str, Any]:
    """Numbers float64 by name of the field; None for one that is emptied."""
    dims, pixdim = header.read("dim"), header.read("pixdim")
    is_volume = tf.equal(dims[0], 3)
    shape = tf.cast(tf.reverse(layout.shape, [0]), tf.float64)
    plain = tf.concat([[3.0], shape, tf.ones([4], tf.float64)], axis=0)
    qfac = tf.where(tf.equal(tf.abs(pixdim[:1]), 1), pixdim[:1], 1.0)
    is_known = tf.reduce_all(tf.math.is_finite(header.steps()) & (header.steps() > 0))
    sizes = tf.where(is_known, header.steps(), steps)
    others = tf.where(is_volume, pixdim[4:], tf.ones([4], tf.float64))
    fields: dict[str, Any] = {
        "sizeof_hdr": [float(kind.sizeof_hdr)],
        "datatype": [float(_UINT8)],
        "bitpix": [8.0],
        "scl_slope": [1.0],
        "scl_inter": [0.0],
        "cal_min": [0.0],
        "cal_max": [0.0],
        "dim": tf.where(is_volume, dims, plain),
        "pixdim": tf.concat([qfac, sizes, others], axis=0),
    }
    for name in ("qform_code", "sform_code"):
        code = header.read(name)
        fields[name] = tf.where((code >= 0) & (code <= LAST_CODE), code, 0.0)
    names: Any = kind.template_dtype.names
    texts = [name for name in names if field_of(kind, name)[1].kind == "S"]
    return fields | {name: None for name in texts if name not in TEXTS_OF_FORMAT}


def _encoded(value: Any, dtype: np.dtype[Any], is_big: tf.Tensor) -> tf.Tensor:
    """Encodes numbers float64 (count,) of a field, or its emptiness, as uint8 (itemsize,)."""
    if value is None:
        return tf.zeros([dtype.itemsize], tf.uint8)
    little = tf.bitcast(tf.cast(value, tf.as_dtype(dtype.base)), tf.uint8)
    return tf.reshape(tf.where(is_big, tf.reverse(little, [1]), little), [-1])


def _extension_bytes(
    extension: nib.nifti1.Nifti1Extension, *, byteswap: bool
) -> npt.NDArray[np.uint8]:
    """The flag that there are extensions, and the extension, in one of the byte orders."""
    file = io.BytesIO()
    file.write(b"\x01\x00\x00\x00")
    extension.write_to(file, byteswap)
    return np.frombuffer(file.getvalue(), np.uint8)
