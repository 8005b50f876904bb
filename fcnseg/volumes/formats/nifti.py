"""NIfTI files: read without corrections, written on an exact grid and atomically."""

from __future__ import annotations

import contextlib
import contextvars
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt

from fcnseg.errors import InputError, one_line
from fcnseg.storage.whole_file import atomic_write
from fcnseg.volumes.formats.nifti_header import NIFTI_SUFFIXES, NiftiHeader, file_map
from fcnseg.volumes.formats.raw_voxels import (
    NOT_WHOLE,
    FileVoxels,
    reading_voxels,
    volume_shape,
)
from fcnseg.volumes.formats.rescale import read_hu, read_ids
from fcnseg.volumes.geometry import Geometry
from fcnseg.volumes.volume import Volume

PAIR_SUFFIXES = (".hdr", ".img")
# Errors of nibabel, gzip and the operating system for a file that is incomplete.
_UNREADABLE: tuple[type[Exception], ...] = (
    *NOT_WHOLE,
    ValueError,
    nib.spatialimages.HeaderDataError,
    nib.filebasedimages.ImageFileError,
)

TEXTS_OF_FORMAT = ("magic", "regular")  # the text fields without patient data


CARET = 30  # code of an extension with Connectome Workbench's XML

_IS_QUIET = contextvars.ContextVar("nibabel logs nothing", default=False)
nib.imageglobals.logger.addFilter(lambda _: not _IS_QUIET.get())

PathLike = str | os.PathLike[str]


def read_geometry(path: str) -> Geometry:
    """Reads the grid, from the header alone."""
    image, header = _load(path)
    return header.grid(volume_shape(image.shape, path))


def read_ct(path: str) -> Volume:
    """Reads HU (z, y, x) as int16, with the header."""
    return _read(path, read_hu)


def read_label(path: str) -> Volume:
    """Reads ids (z, y, x), with the header; in the file's type or the smallest that holds them."""
    return _read(path, read_ids)


def write_volume(volume: Volume, path: PathLike, *, label_table: str = "") -> None:
    """Writes a volume atomically, with its affine as both sform and qform.

    Args:
        volume: The volume; its header is left out.
        path: A `.nii` or `.nii.gz` file.
        label_table: See `write_mask`.

    Raises:
        InputError: If the path is not a NIfTI name.
    """
    _save(_image_of(volume, label_table), path)


def write_mask(
    mask: npt.NDArray[np.integer], path: PathLike, *, like: Volume, label_table: str = ""
) -> None:
    """Writes a mask on exactly the grid of the volume it was made from.

    The header is the source file's own, so affine, qform, sform and their codes are the same to the
    bit; its texts and extensions, which may name the patient, are emptied. The file is written
    atomically.

    Args:
        mask: Class ids (z, y, x), uint8 or uint16.
        path: A `.nii` or `.nii.gz` file.
        like: The volume that was segmented.
        label_table: Names and colours of the ids, as XML of Connectome Workbench, stored in an
            extension of the header.

    Raises:
        InputError: If the path is not a NIfTI name.
        GeometryError: If the mask has another shape than the volume.
    """
    _save(_image_like(mask, like, label_table), path)


def write_parts(parts: npt.NDArray[np.int16], path: PathLike, *, whole: int, like: Volume) -> None:
    """Writes fixed-point numbers (int16 with scl_slope), on the grid like `write_mask`.

    NIfTI-1 has no float16. int16 with a slope, by which readers multiply, is as small, and all of
    them read it.

    Args:
        parts: Fixed-point value of each voxel (z, y, x).
        path: A `.nii` or `.nii.gz` file.
        whole: Fixed-point value of 1.
        like: The volume whose grid is used.

    Raises:
        InputError: If the path is not a NIfTI name.
        GeometryError: If the number of voxels differs from the volume's.
    """
    image = _image_like(parts, like)
    image.header.set_slope_inter(1 / whole, 0)
    _save(image, Path(path))


def _image_of(volume: Volume, label_table: str) -> nib.Nifti1Image:
    image = nib.Nifti1Image(volume.array.T, volume.affine)
    image.set_sform(volume.affine, code="scanner")
    image.set_qform(volume.affine, code="scanner")
    if not np.allclose(image.get_qform(), volume.affine, atol=1e-3):
        image.set_qform(None, code="unknown")  # a sheared grid, which no rotation can represent
    image.header.set_xyzt_units("mm")
    _add_label_table(image.header, label_table)
    return image


def _image_like(
    array: npt.NDArray[np.integer], like: Volume, label_table: str = ""
) -> nib.Nifti1Image:
    """Makes an image of values (z, y, x) with the header of a volume, if it has one."""
    on_grid = like.with_array(array)
    if like.header is None:
        return _image_of(on_grid, label_table)
    header = like.header.copy()
    _clear_texts(header)
    header.set_data_offset(0)  # the offset of voxels follows from the extensions
    _add_label_table(header, label_table)
    header.set_data_dtype(array.dtype)
    header.set_slope_inter(1, 0)
    header["cal_min"] = header["cal_max"] = 0
    is_nifti2 = isinstance(header, nib.Nifti2Header)
    image_class = nib.Nifti2Image if is_nifti2 else nib.Nifti1Image
    return image_class(array.T, None, header)  # no affine: the header's is kept


def _clear_texts(header: nib.Nifti1Header) -> None:
    """Empties the fields in which converters and viewers put names, ids and dates of patients."""
    header.extensions.clear()
    fields: np.dtype[Any] = header.template_dtype
    for name in fields.names or ():
        if fields[name].kind == "S" and name not in TEXTS_OF_FORMAT:
            header[name] = b""


def _add_label_table(header: nib.Nifti1Header, label_table: str) -> None:
    if label_table:
        header.extensions.append(nib.nifti1.Nifti1Extension(CARET, label_table.encode()))


def _load(path: str) -> tuple[nib.Nifti1Pair, NiftiHeader]:
    header = NiftiHeader.read(path)
    try:
        with _without_advice(), np.errstate(all="ignore"):  # its affine may be NaN
            image = header.image_class.from_file_map(file_map(path))
    except _UNREADABLE as error:
        raise InputError(f"not a readable volume: {path}: {one_line(error)}") from error
    return image, header


@contextlib.contextmanager
def _without_advice() -> Iterator[None]:
    """Silences what nibabel logs of a header, without its file; `NiftiHeader` judges headers.

    Other threads' calls of nibabel are as before.
    """
    token = _IS_QUIET.set(True)
    try:
        yield
    finally:
        _IS_QUIET.reset(token)


def _read(path: str, read: Callable[..., npt.NDArray[Any]]) -> Volume:
    """Reads a volume whose header has the steps used, also if the file's has none."""
    image, header = _load(path)
    grid = header.grid(volume_shape(image.shape, path))
    array = read(_file_voxels(image, grid, path), path, scale=header.scale)
    if any(finding.code == "spacing_unknown" for finding in grid.findings):
        image.header["pixdim"][1:4] = grid.spacing[::-1]
    return Volume(array, grid.affine, image.header, grid.findings)


def _file_voxels(image: nib.Nifti1Pair, grid: Geometry, path: str) -> FileVoxels:
    """The location of the voxels, in a file large enough for them."""
    proxy: Any = image.dataobj
    if proxy.dtype.kind not in "iuf":
        raise InputError(f"voxels must be numbers, got {proxy.dtype} in {path}", code="not_scalar")
    voxels = FileVoxels(proxy.file_like, int(proxy.offset), grid.shape, proxy.dtype)
    with reading_voxels(path):  # the other file of a pair, which may not exist
        voxels.check_size()
    return voxels


def check_nifti_name(path: PathLike) -> None:
    """Checks that a path has the name of a NIfTI file, before there is anything to write.

    Raises:
        InputError: If not.
    """
    if not os.fspath(path).lower().endswith(NIFTI_SUFFIXES):
        raise InputError(f"a volume must be written to a .nii or .nii.gz file, got {path}")


def _save(image: nib.Nifti1Image, path: PathLike) -> None:
    check_nifti_name(path)
    with atomic_write(path) as unfinished:
        nib.save(image, unfinished)
