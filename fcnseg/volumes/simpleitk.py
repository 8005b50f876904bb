"""NRRD and MetaImage files, read by SimpleITK."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import numpy.typing as npt

from fcnseg.errors import GeometryError, InputError, LabelError, one_line, require_extra
from fcnseg.volumes import metaimage, nrrd
from fcnseg.volumes.affine import Affine, affine_from_lps, check_affine
from fcnseg.volumes.volume import Geometry, Volume
from fcnseg.volumes.voxels import to_int16, to_integral

SUFFIXES = (*nrrd.SUFFIXES, *metaimage.SUFFIXES)


def read_geometry(path: str) -> Geometry:
    """The grid, from the header alone."""
    reader = _header(path)
    width, height, depth = reader.GetSize()[:3]
    return Geometry((depth, height, width), _affine(reader, path))


def read_ct(path: str) -> Volume:
    """HU (z, y, x) as int16."""
    reader = _header(path)
    stored = _stored(reader, path)
    hu = stored if stored.dtype == np.int16 else to_int16(stored, 1, 0, what=path)
    return Volume(hu, _affine(reader, path))


def read_label(path: str) -> Volume:
    """Ids (z, y, x): of the file's own type or the smallest that holds them."""
    reader = _header(path)
    stored = _stored(reader, path)
    is_short = stored.dtype.kind in "iu" and stored.dtype.itemsize <= 2
    ids = stored if is_short else to_integral(stored, 1, 0, what=path)
    return Volume(ids, _affine(reader, path))


def _header(path: str) -> Any:
    """An `ImageFileReader` that knows the header of a scalar three-dimensional volume."""
    sitk = require_extra("SimpleITK", "dicom")
    sitk.ProcessObject.SetGlobalWarningDisplay(False)  # what matters is raised
    if path.endswith(metaimage.SUFFIXES):
        metaimage.check_header(path)
    reader = sitk.ImageFileReader()
    reader.SetFileName(path)
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise InputError(f"not a readable volume: {path}: {_reason(error)}") from error
    _check_scalar(reader, path)
    size = reader.GetSize()
    if len(size) < 3 or any(length != 1 for length in size[3:]):
        raise GeometryError(f"a volume must have three dimensions, got {size} in {path}")
    return reader


def _check_scalar(reader: Any, path: str) -> None:
    components = reader.GetNumberOfComponents()
    if components == 1:
        return
    if "Segment0_Layer" in reader.GetMetaDataKeys():
        raise LabelError(
            f"segments must not overlap, as a voxel has one class, but {path} keeps them in"
            f" {components} layers: export them as one labelmap",
            code="segments_overlap",
        )
    raise InputError(
        f"voxels must be single numbers, got {components} (a colour or a vector) in {path}",
        code="not_scalar",
    )


def _affine(reader: Any, path: str) -> Affine:
    dimensions = reader.GetDimension()
    direction = np.reshape(reader.GetDirection(), (dimensions, dimensions))[:3, :3]
    steps = direction * np.asarray(reader.GetSpacing()[:3])
    return check_affine(affine_from_lps(reader.GetOrigin()[:3], steps), what=path)


def _stored(reader: Any, path: str) -> npt.NDArray[Any]:
    (metaimage if path.endswith(metaimage.SUFFIXES) else nrrd).check_data(path)
    _affine(reader, path)  # SimpleITK itself would say less clearly what is wrong with it
    sitk = require_extra("SimpleITK", "dicom")
    try:
        stored = sitk.GetArrayFromImage(reader.Execute())
    except RuntimeError as error:
        raise InputError(f"not a whole volume: {path}: {_reason(error)}") from error
    return stored.reshape(stored.shape[-3:])  # trailing axes of one are first in an array


def _reason(error: RuntimeError) -> str:
    """The end of an ITK message: what is before it tells source files and addresses of objects."""
    last = re.split(r"ERROR: |\w+\(0x[0-9a-f]+\): |\[nrrd\] ", one_line(error))[-1]
    return last.strip()
