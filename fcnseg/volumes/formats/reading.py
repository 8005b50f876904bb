"""Reading of volumes of any format, recognised by the file name."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fcnseg.errors import InputError
from fcnseg.volumes.formats import metaimage, nifti, nrrd
from fcnseg.volumes.formats.dicom import files, seg, series
from fcnseg.volumes.formats.text_header import TextFormat
from fcnseg.volumes.geometry import Geometry
from fcnseg.volumes.volume import Volume, of_case

PathLike = str | os.PathLike[str]

_READERS: dict[str, Any] = {
    **dict.fromkeys((*nifti.NIFTI_SUFFIXES, *nifti.PAIR_SUFFIXES), nifti),
    **dict.fromkeys(nrrd.SUFFIXES, TextFormat(nrrd.describe)),
    **dict.fromkeys(metaimage.SUFFIXES, TextFormat(metaimage.describe)),
    files.SUFFIX: series,
}
"""Modules and objects that read the files of each suffix, with functions of the same names."""

SUFFIXES = tuple(_READERS)
"""File name suffixes of volumes."""

HEADERS_ALONE = (".mhd", ".nhdr", ".hdr", ".img")
"""Suffixes of files whose voxels lie in others, most often of the same name."""


def read_geometry(
    path: PathLike,
    *,
    case_id: str | None = None,
    series_uid: str | None = None,
    like: Geometry | None = None,
) -> Geometry:
    """Reads the grid of a volume from its header alone.

    Args:
        path: A volume in any format that `read_ct` or `read_label` take.
        case_id: Named in errors.
        series_uid: The series to read; see `read_ct`.
        like: Grid of the image; see `read_label`.

    Raises:
        InputError: If the file is missing, unreadable or of no known format.
        GeometryError: If it does not contain a single three-dimensional volume.
    """
    with _naming(case_id):
        name = os.fspath(path)
        reader = _reader_of(name, series_uid)
        if reader is series:
            return series.read_geometry(name, series_uid=series_uid, like=like)
        return reader.read_geometry(name)


def read_ct(path: PathLike, *, case_id: str | None = None, series_uid: str | None = None) -> Volume:
    """Reads a CT volume.

    Args:
        path: A NIfTI, NRRD or MetaImage file, a folder of DICOM slices, or a multi-frame DICOM
            file.
        case_id: Named in errors.
        series_uid: The DICOM series of a folder to read; by default that with the most slices.

    Returns:
        HU (z, y, x) as int16: rescaled according to the header, rounded, and clipped to the range
        of int16. `findings` says which series was taken, if there were several.

    Raises:
        InputError: If the file is missing, unreadable or of no known format, or contains NaN or
            infinite values.
        GeometryError: If it does not contain a single three-dimensional volume.
    """
    with _naming(case_id):
        name = os.fspath(path)
        reader = _reader_of(name, series_uid)
        if reader is series:
            return series.read_ct(name, series_uid=series_uid)
        return reader.read_ct(name)


def read_label(
    path: PathLike, *, case_id: str | None = None, like: Geometry | None = None
) -> Volume:
    """Reads a label volume.

    Args:
        path: A NIfTI, NRRD (also `.seg.nrrd`) or MetaImage file, or a DICOM segmentation object.
        case_id: Named in errors.
        like: Grid of the image. A DICOM segmentation, which leaves out empty slices, is completed
            to it if it is a part of it; labels of other formats are complete.

    Returns:
        Ids (z, y, x) in an integer type: the file's own, or if that is longer than two bytes or not
        an integer, the smallest that holds them. For a DICOM segmentation they are its segment
        numbers.

    Raises:
        InputError: If the file is missing, unreadable or of no known format.
        GeometryError: If it does not contain a single three-dimensional volume.
        LabelError: If a value is not integral or not of 32 bits, or segments overlap.
    """
    with _naming(case_id):
        name = os.fspath(path)
        reader = _reader_of(name)
        if reader is series:
            return seg.read_label(name, like=like)
        return reader.read_label(name)


def _reader_of(path: str, series_uid: str | None = None) -> Any:
    if not os.path.exists(path):
        raise InputError(f"no such file: {path}", code="file_missing")
    if not (Path(path).is_file() or Path(path).is_dir()):  # reading a pipe waits for its writer
        raise InputError(f"a volume must be a file, got the pipe or device {path}")
    suffix = next((suffix for suffix in _READERS if path.lower().endswith(suffix)), None)
    is_dicom = Path(path).is_dir() or suffix == files.SUFFIX
    if is_dicom or (suffix is None and files.is_dicom(path)):
        return series
    if suffix is None:
        raise InputError(
            f"a volume must be a {', '.join(_READERS)} file or a folder of DICOM files, got {path}",
            code="unknown_format",
        )
    if series_uid is not None:
        raise InputError(f"series_uid is for DICOM alone, got {series_uid!r} for {path}")
    return _READERS[suffix]


@contextlib.contextmanager
def _naming(case_id: str | None) -> Iterator[None]:
    """Adds the case to each error of a reader."""
    try:
        yield
    except InputError as error:
        raise type(error)(f"{error}{of_case(case_id)}", code=error.code) from error.__cause__
