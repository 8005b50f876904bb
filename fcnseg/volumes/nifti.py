"""NIfTI files: read as they are, written on an exact grid, never half written."""

from __future__ import annotations

import os
import zlib
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt

from fcnseg.errors import GeometryError, InputError, one_line
from fcnseg.volumes.volume import Geometry, Volume, of_case
from fcnseg.volumes.voxels import to_int16, to_integral
from fcnseg.whole_file import written_whole

NIFTI_SUFFIXES = (".nii", ".nii.gz")
# What nibabel, gzip and the operating system raise for a file that is not whole.
_UNREADABLE = (OSError, EOFError, zlib.error, ValueError, nib.spatialimages.HeaderDataError)

PathLike = str | os.PathLike[str]


def read_geometry(path: PathLike, *, case_id: str | None = None) -> Geometry:
    """Reads the grid of a volume from its header alone.

    Raises:
        InputError: If the file is missing or unreadable.
        GeometryError: If it holds no single three-dimensional volume.
    """
    image = _load(path, case_id)
    return Geometry(_shape(image, path, case_id), _affine(image, path, case_id))


def read_ct(path: PathLike, *, case_id: str | None = None) -> Volume:
    """Reads a CT volume.

    Args:
        path: A `.nii` or `.nii.gz` file.
        case_id: Named in errors.

    Returns:
        HU (z, y, x) as int16: rescaled as the header says, rounded, and clipped to what int16
        holds.

    Raises:
        InputError: If the file is missing or unreadable, or holds NaN or infinite values.
        GeometryError: If it holds no single three-dimensional volume.
    """
    image = _load(path, case_id)
    stored, slope, inter = _stored_array(image, path, case_id)
    if stored.dtype != np.int16 or (slope, inter) != (1, 0):
        stored = to_int16(stored, slope, inter, what=f"{path}{of_case(case_id)}")
    return Volume(stored, _affine(image, path, case_id), image.header)


def read_label(path: PathLike, *, case_id: str | None = None) -> Volume:
    """Reads a label volume.

    Args:
        path: A `.nii` or `.nii.gz` file.
        case_id: Named in errors.

    Returns:
        Ids (z, y, x) in the file's own integer type; integral floats become int32.

    Raises:
        InputError: If the file is missing or unreadable.
        GeometryError: If it holds no single three-dimensional volume.
        LabelError: If a value is not integral.
    """
    image = _load(path, case_id)
    stored, slope, inter = _stored_array(image, path, case_id)
    if stored.dtype.kind == "f" or (slope, inter) != (1, 0):
        stored = to_integral(stored, slope, inter, what=f"{path}{of_case(case_id)}")
    return Volume(stored, _affine(image, path, case_id), image.header)


def write_volume(volume: Volume, path: PathLike) -> None:
    """Writes a volume with its affine as both sform and qform; the file appears when it is whole.

    Raises:
        InputError: If the path is not a NIfTI name.
    """
    image = nib.Nifti1Image(volume.array.T, volume.affine)
    image.set_sform(volume.affine, code="scanner")
    image.set_qform(volume.affine, code="scanner")
    image.header.set_xyzt_units("mm")
    _save(image, Path(path))


def write_mask(mask: npt.NDArray[np.integer], path: PathLike, *, like: Volume) -> None:
    """Writes a mask on exactly the grid of the volume it was made from.

    The header is the source file's own, so affine, qform, sform and their codes are the same to
    the bit. The file appears under its name when it is whole.

    Args:
        mask: Class ids (z, y, x), uint8 or uint16.
        path: A `.nii` or `.nii.gz` file.
        like: The volume that was segmented.

    Raises:
        InputError: If the path is not a NIfTI name.
        GeometryError: If the mask has another shape than the volume.
    """
    on_grid = like.with_array(mask)
    if like.header is None:
        write_volume(on_grid, path)
        return
    header = like.header.copy()
    header.extensions.clear()  # a source's extension may hold the patient's name
    header.set_data_dtype(mask.dtype)
    header.set_slope_inter(1, 0)
    header["cal_min"] = header["cal_max"] = 0
    is_nifti2 = isinstance(header, nib.Nifti2Header)
    image_class = nib.Nifti2Image if is_nifti2 else nib.Nifti1Image
    _save(image_class(mask.T, None, header), Path(path))  # no affine: the header's stays as it is


def _load(path: PathLike, case_id: str | None) -> nib.Nifti1Image:
    name = os.fspath(path)
    if not name.endswith(NIFTI_SUFFIXES):
        raise InputError(f"a volume must be a .nii or .nii.gz file, got {name}{of_case(case_id)}")
    if not os.path.isfile(name):
        raise InputError(f"no such file: {name}{of_case(case_id)}")
    try:
        image = nib.load(name)
    except (*_UNREADABLE, nib.filebasedimages.ImageFileError) as error:
        raise InputError(
            f"not a readable volume: {name}: {one_line(error)}{of_case(case_id)}"
        ) from error
    if not isinstance(image, nib.Nifti1Image):
        raise InputError(f"not a NIfTI volume: {name}{of_case(case_id)}")
    return image


def _shape(image: nib.Nifti1Image, path: PathLike, case_id: str | None) -> tuple[int, int, int]:
    """Voxels (z, y, x); trailing axes of length one are dropped."""
    shape = image.shape
    if len(shape) < 3 or any(length != 1 for length in shape[3:]) or 0 in shape:
        raise GeometryError(
            f"a volume must have three dimensions, got {shape} in {path}{of_case(case_id)}"
        )
    width, height, depth = (int(length) for length in shape[:3])
    return depth, height, width


def _affine(image: nib.Nifti1Image, path: PathLike, case_id: str | None) -> npt.NDArray[np.float64]:
    affine = np.asarray(image.affine, dtype=np.float64)
    if not np.isfinite(affine).all() or np.linalg.matrix_rank(affine[:3, :3]) < 3:
        raise GeometryError(
            f"the affine must be finite and invertible, got {affine[:3].tolist()} in"
            f" {path}{of_case(case_id)}"
        )
    return affine


def _stored_array(
    image: nib.Nifti1Image, path: PathLike, case_id: str | None
) -> tuple[npt.NDArray[Any], float, float]:
    """The array (z, y, x) as stored, with slope and intercept that make its values."""
    _, height, width = _shape(image, path, case_id)
    proxy: Any = image.dataobj
    try:
        stored = proxy.get_unscaled()
    except _UNREADABLE as error:
        raise InputError(
            f"not a whole volume: {path}: {one_line(error)}{of_case(case_id)}"
        ) from error
    if stored.dtype.kind not in "iuf":
        raise InputError(f"voxels must be numbers, got {stored.dtype} in {path}{of_case(case_id)}")
    array = stored.reshape(width, height, -1, order="F").T  # a view of the file's own memory
    native = array.dtype.newbyteorder("=")
    return array.astype(native, copy=False), float(proxy.slope), float(proxy.inter)


def _save(image: nib.Nifti1Image, path: Path) -> None:
    if not path.name.endswith(NIFTI_SUFFIXES):
        raise InputError(f"a volume must be written to a .nii or .nii.gz file, got {path}")
    with written_whole(path) as unfinished:
        nib.save(image, unfinished)
