"""What a file holds by readers that are not ours, for `fuzz_readers.py`."""

from __future__ import annotations

import contextlib
import gzip
import os
import re
import zlib
from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import SimpleITK as sitk

TO_RAS = np.diag([-1.0, -1, 1, 1])
Held = tuple[np.ndarray, np.ndarray]
"""Values (z, y, x), not yet rounded, and the affine to RAS."""


def held_by(path: Path) -> Iterator[Held]:
    """What each independent reader makes of a file; one that raises makes nothing of it."""
    if path.is_dir():
        readers = [by_pydicom]
    elif path.name.endswith((".nii", ".nii.gz", ".hdr")):
        readers = [by_nibabel]
    else:
        readers = [by_definition, by_simpleitk]
    for reader in readers:
        with contextlib.suppress(Exception):  # a broken file
            yield reader(path)


def by_nibabel(path: Path) -> Held:
    image = nib.load(path)
    values = np.asarray(image.dataobj, np.float64)
    return values.reshape(values.shape[:3]).T, image.affine


def by_simpleitk(path: Path) -> Held:
    """SimpleITK, which may crash or make things up: its word is taken where it agrees alone."""
    image = sitk.ReadImage(str(path))
    values = sitk.GetArrayFromImage(image)
    size = image.GetDimension()
    affine = np.eye(4)
    steps = np.reshape(image.GetDirection(), (size, size)) * image.GetSpacing()
    affine[:3, :3], affine[:3, 3] = steps[:3, :3], image.GetOrigin()[:3]
    return values.reshape(values.shape[-3:]), TO_RAS @ affine


def by_definition(path: Path) -> Held:
    """A text header and numbers, read in the plainest way that the formats' definitions allow."""
    content = path.read_bytes()
    if content.startswith(b"NRRD"):
        head, _, data = content.partition(b"\n\n")
        pairs = [line.split(": ", 1) for line in os.fsdecode(head).splitlines() if ": " in line]
        return _nrrd({key.lower(): value.strip() for key, value in pairs}, data, path)
    last = re.search(rb"(?m)^\s*ElementDataFile\s*=.*\n", content)
    start = last.end() if last else len(content)
    pairs = [
        line.split("=", 1) for line in os.fsdecode(content[:start]).splitlines() if "=" in line
    ]
    return _metaimage({k.strip(): v.strip() for k, v in pairs}, content[start:], path)


def _nrrd(fields: dict[str, str], data: bytes, path: Path) -> Held:
    name = fields.get("data file") or fields.get("datafile")
    data = (path.parent / name).read_bytes() if name else data
    if fields["encoding"].lower() in ("gzip", "gz"):
        data = gzip.decompress(data)
    kind = {
        "short": "i2", "ushort": "u2", "uchar": "u1", "float": "f4", "int": "i4", "double": "f8",
    }[fields["type"]]  # fmt: skip
    order = ">" if fields.get("endian", "").lower() == "big" else "<"
    vectors = re.findall(r"\(([^)]*)\)", fields["space directions"])
    affine = np.eye(4)
    affine[:3, :3] = np.array([[float(word) for word in one.split(",")] for one in vectors]).T
    origin = fields.get("space origin", "(0,0,0)").strip("()").split(",")
    affine[:3, 3] = [float(word) for word in origin]
    letters = {"left": "l", "right": "r", "anterior": "a", "posterior": "p", "superior": "s"}
    space = "".join(letters.get(word, word) for word in fields["space"].lower().split("-"))
    signs = [{"r": 1, "l": -1}[space[0]], {"a": 1, "p": -1}[space[1]], {"s": 1}[space[2]], 1]
    return _shaped(data, order + kind, fields["sizes"]), np.diag(signs) @ affine


def _metaimage(fields: dict[str, str], data: bytes, path: Path) -> Held:
    name = fields["ElementDataFile"]
    data = data if name.upper() == "LOCAL" else (path.parent / name).read_bytes()
    if fields.get("CompressedData", "").lower() in ("true", "1"):
        data = zlib.decompress(data)
    kind = {
        "SHORT": "i2", "USHORT": "u2", "UCHAR": "u1", "FLOAT": "f4", "INT": "i4", "DOUBLE": "f8",
    }[fields["ElementType"].removeprefix("MET_")]  # fmt: skip
    order = ">" if fields.get("BinaryDataByteOrderMSB", "").lower() in ("true", "1") else "<"
    affine = np.eye(4)
    matrix = np.array(fields["TransformMatrix"].split(), float).reshape(3, 3)
    affine[:3, :3] = matrix.T * np.array(fields["ElementSpacing"].split(), float)
    affine[:3, 3] = np.array(fields.get("Offset", "0 0 0").split(), float)
    return _shaped(data, order + kind, fields["DimSize"]), TO_RAS @ affine


def _shaped(data: bytes, dtype: str, sizes: str) -> np.ndarray:
    shape = [int(word) for word in sizes.split()]
    count = int(np.prod(shape))
    return np.frombuffer(data[-count * np.dtype(dtype).itemsize :], dtype).reshape(shape[2::-1])


def by_pydicom(folder: Path) -> Held:
    """The slices of the series with the most, by their positions."""
    slices: dict[str, list[pydicom.Dataset]] = {}
    for file in sorted(folder.iterdir()):
        dataset = pydicom.dcmread(file)
        if dataset.get("Modality") != "CT":
            continue
        found = slices.setdefault(str(dataset.get("SeriesInstanceUID", "")), [])
        found.append(dataset)
    chosen = [
        one
        for dataset in max(slices.values(), key=len)
        for one in (
            _frames(dataset)
            if "PerFrameFunctionalGroupsSequence" in dataset
            else [_slice(dataset, dataset)]
        )
    ]
    across, down = chosen[0][1][:3], chosen[0][1][3:]
    normal = np.cross(across, down)
    chosen.sort(key=lambda one: float(normal @ one[0]))
    first, last = chosen[0], chosen[-1]
    row_step, column_step = first[2]
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1] = across * column_step, down * row_step
    affine[:3, 2] = (last[0] - first[0]) / (len(chosen) - 1)
    affine[:3, 3] = first[0]
    return np.array([one[3] for one in chosen]), TO_RAS @ affine


_GROUPS = {
    "PlanePositionSequence": ("ImagePositionPatient",),
    "PlaneOrientationSequence": ("ImageOrientationPatient",),
    "PixelMeasuresSequence": ("PixelSpacing",),
    "PixelValueTransformationSequence": ("RescaleSlope", "RescaleIntercept"),
}


def _frames(dataset: pydicom.Dataset) -> list[tuple[np.ndarray, ...]]:
    planes = dataset.pixel_array
    planes = planes[np.newaxis] if planes.ndim == 2 else planes
    shared = dataset.SharedFunctionalGroupsSequence[0]
    made = []
    for plane, groups in zip(planes, dataset.PerFrameFunctionalGroupsSequence, strict=True):
        flat = pydicom.Dataset()
        for name, keywords in _GROUPS.items():
            holders = [one[name].value[0] for one in (groups, shared) if one.get(name)]
            for keyword in keywords:
                holder = next((one for one in (*holders, dataset) if keyword in one), None)
                if holder is not None:
                    setattr(flat, keyword, holder.get(keyword))
        made.append(_slice(flat, dataset, plane))
    return made


def _slice(
    place: pydicom.Dataset, dataset: pydicom.Dataset, plane: np.ndarray | None = None
) -> tuple[np.ndarray, ...]:
    """Position, orientation, steps and HU of a slice."""
    stored = dataset.pixel_array if plane is None else plane
    slope, intercept = (place.get(f"Rescale{part}") for part in ("Slope", "Intercept"))
    hu = stored.astype(float) * float(1 if slope is None else slope)
    hu = hu + float(0 if intercept is None else intercept)
    numbers = (place.ImagePositionPatient, place.ImageOrientationPatient, place.PixelSpacing)
    position, orientation, steps = (np.array(one, float) for one in numbers)
    return position, orientation, steps, hu
