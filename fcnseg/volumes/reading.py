"""Reading a volume of any format: the name of the file tells which."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from types import ModuleType

from fcnseg.errors import InputError
from fcnseg.volumes import nifti, simpleitk
from fcnseg.volumes.volume import Geometry, Volume, of_case

PathLike = str | os.PathLike[str]

_READERS: dict[str, ModuleType] = {
    **dict.fromkeys((*nifti.NIFTI_SUFFIXES, *nifti.PAIR_SUFFIXES), nifti),
    **dict.fromkeys(simpleitk.SUFFIXES, simpleitk),
}
"""Which module reads files of each suffix; each has the same three functions."""

SUFFIXES = tuple(_READERS)
"""How the names of volumes end."""


def read_geometry(path: PathLike, *, case_id: str | None = None) -> Geometry:
    """Reads the grid of a volume from its header alone.

    Args:
        path: A volume in any format that `read_ct` or `read_label` take.
        case_id: Named in errors.

    Raises:
        InputError: If the file is missing, unreadable or of no known format.
        GeometryError: If it holds no single three-dimensional volume.
    """
    with _naming(case_id):
        name = os.fspath(path)
        return _reader_of(name).read_geometry(name)


def read_ct(path: PathLike, *, case_id: str | None = None) -> Volume:
    """Reads a CT volume.

    Args:
        path: A NIfTI, NRRD or MetaImage file.
        case_id: Named in errors.

    Returns:
        HU (z, y, x) as int16: rescaled as the header says, rounded, and clipped to what int16
        holds.

    Raises:
        InputError: If the file is missing, unreadable or of no known format, or holds NaN or
            infinite values.
        GeometryError: If it holds no single three-dimensional volume.
    """
    with _naming(case_id):
        name = os.fspath(path)
        return _reader_of(name).read_ct(name)


def read_label(path: PathLike, *, case_id: str | None = None) -> Volume:
    """Reads a label volume.

    Args:
        path: A NIfTI, NRRD (also `.seg.nrrd`) or MetaImage file.
        case_id: Named in errors.

    Returns:
        Ids (z, y, x) in the file's own integer type; integral floats become int32.

    Raises:
        InputError: If the file is missing, unreadable or of no known format.
        GeometryError: If it holds no single three-dimensional volume.
        LabelError: If a value is not integral, or segments overlap.
    """
    with _naming(case_id):
        name = os.fspath(path)
        return _reader_of(name).read_label(name)


def _reader_of(path: str) -> ModuleType:
    suffix = next((suffix for suffix in _READERS if path.endswith(suffix)), None)
    if suffix is None:
        raise InputError(
            f"a volume must be a {', '.join(_READERS)} file, got {path}", code="unknown_format"
        )
    if not os.path.isfile(path):
        raise InputError(f"no such file: {path}", code="file_missing")
    return _READERS[suffix]


@contextlib.contextmanager
def _naming(case_id: str | None) -> Iterator[None]:
    """Lets each error of a reader name the case."""
    try:
        yield
    except InputError as error:
        raise type(error)(f"{error}{of_case(case_id)}", code=error.code) from error.__cause__
