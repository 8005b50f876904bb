"""Made volumes of every format, and what may befall their headers."""

from __future__ import annotations

import dataclasses
import gzip
import io
import re
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from dicom_series import make_enhanced, make_slices
from pydicom.dataset import Dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGLSLossless,
    RLELossless,
)

SHAPE = (4, 6, 5)  # (z, y, x)
AFFINE = np.array([[-2.0, 0.1, 0, 30], [0.1, -3, 0.2, 40], [0, 0.2, 5, -50], [0, 0, 0, 1]])
DTYPES = ("<i2", ">i2", "u1", "<f4", "<i4")

# What a number or a word in a header may become.
WORDS = [
    *"""0 -1 1 2 3 7 1e308 -1e-300 nan inf 99999999999999999999 2147483648 -2147483648 65536 1_0
    %s%s%n %d LIST LOCAL True False none (1,0,0) () ../good.raw /etc/hostname good.raw ???
    left-anterior-superior RAS gzip raw ascii MET_FLOAT MET_UCHAR MET_LONG double short big
    little é""".split(),
    *("", " ", "4 3 2", "0 0 0", "1 2 3 4", "\0", "a b"),
]

Files = dict[str, bytes]
"""The files of a volume by name; the first is the one to read, or they are DICOM slices."""


@dataclasses.dataclass(frozen=True)
class Mutated:
    """A volume whose files have been changed.

    Attributes:
        kind: Its format and form.
        files: What is written, by name.
        main: The file to read; empty for the folder itself.
    """

    kind: str
    files: Files
    main: str

    def write(self, folder: Path) -> Path:
        """Writes the files into a new folder, and returns the path to read."""
        folder.mkdir()
        for name, content in self.files.items():
            (folder / name).write_bytes(content)
        return folder / self.main if self.main else folder


def mutate(index: int, *, seed: int) -> Mutated:
    """One of the volumes, changed; the same for the same numbers."""
    rng = np.random.default_rng([seed, index])
    name = tuple(FORMATS)[index % len(FORMATS)]
    return FORMATS[name](rng)


def voxels(rng: np.random.Generator, dtype: str) -> np.ndarray:
    """Values that no other volume has."""
    return rng.integers(0, 256 if dtype == "u1" else 3000, SHAPE).astype(dtype)


def pick(rng: np.random.Generator, among: Any) -> Any:
    return among[int(rng.integers(len(among)))]


def change_bytes(content: bytes, rng: np.random.Generator, *, first: int) -> bytes:
    """Some bytes of the first few are others, are missing, or stand there twice."""
    changed = bytearray(content)
    for _ in range(int(rng.integers(1, 4))):
        at = int(rng.integers(max(1, min(first, len(changed)))))
        end = at + int(rng.integers(1, 9))
        kind = int(rng.integers(5))
        if kind == 0 and changed:
            changed[at] ^= 1 << int(rng.integers(8))
        elif kind == 1 and changed:
            changed[at] = int(pick(rng, (0, 255, 128, 37, 10, 32)))
        elif kind == 2:
            del changed[at:end]
        elif kind == 3:
            changed[at:at] = changed[at:end]
        else:
            changed[at:at] = pick(rng, WORDS).encode()
    if rng.integers(10) == 0:
        del changed[int(rng.integers(len(changed) + 1)) :]
    return bytes(changed)


# -- NIfTI

_INTERESTING = (0, 1, -1, 2, 3, 5, 6, 99, 32767, -32768, 1e30, -0.5, np.nan, np.inf, 352, 353, 348)


def nifti(rng: np.random.Generator) -> Mutated:
    """A NIfTI file or pair; fields of its header are others, or bytes."""
    form = pick(rng, ("ct.nii", "ct.nii.gz", "ct.hdr", "two.nii", "two.nii.gz"))
    array = voxels(rng, pick(rng, DTYPES))
    image_class = {"t": nib.Nifti2Image, "c": nib.Nifti1Image}[form[0]]
    if form.endswith(".hdr"):
        image_class = nib.Nifti1Pair
    header = image_class.header_class(endianness="<>"[int(rng.integers(2))])
    image = image_class(array.T.astype(array.dtype.newbyteorder("=")), AFFINE, header)
    image.header.set_slope_inter(*pick(rng, ((1, 0), (1, -1024), (2, 3))))
    image.set_sform(AFFINE, code=int(rng.integers(1, 3)))
    image.set_qform(AFFINE, code=int(rng.integers(0, 2)))
    plain = form.removesuffix(".gz")
    file_map = image_class.make_file_map({key: io.BytesIO() for key in image_class.make_file_map()})
    image.to_file_map(file_map)
    parts = {key: holder.fileobj.getvalue() for key, holder in file_map.items()}
    head = "header" if "header" in parts else "image"
    parts[head] = _change_nifti(parts[head], rng, image_class)
    names = {"image": plain if head == "image" else "ct.img", "header": plain}
    files = {names[key]: content for key, content in parts.items()}
    if form.endswith(".gz"):
        files = {form: gzip.compress(files[plain], mtime=0)}
        if rng.integers(8) == 0:
            files[form] = change_bytes(files[form], rng, first=10**6)
    return Mutated(f"NIfTI {form}", files, form)


def _change_nifti(content: bytes, rng: np.random.Generator, image_class: Any) -> bytes:
    kind = image_class.header_class
    if rng.integers(3) == 0:
        return change_bytes(content, rng, first=kind.sizeof_hdr)
    raw = np.frombuffer(content[: kind.sizeof_hdr], kind.template_dtype.newbyteorder("<")).copy()
    for _ in range(int(rng.integers(1, 4))):
        key = pick(rng, kind.template_dtype.names)
        field = raw[key].reshape(-1)
        at = int(rng.integers(len(field)))
        with np.errstate(all="ignore"):
            if field.dtype.kind == "S":
                field[at] = pick(rng, (b"", b"n+1", b"ni1", b"n+2", b"%s"))
            else:
                value = np.array(float(pick(rng, _INTERESTING)))
                field[at] = value.astype(field.dtype)
        raw[key] = field.reshape(raw[key].shape)
    return raw.tobytes() + content[kind.sizeof_hdr :]


# -- text headers


def change_lines(lines: list[str], rng: np.random.Generator) -> list[str]:
    """Lines are missing, doubled, in another order, or have other words or keys."""
    changed = list(lines)
    for _ in range(int(pick(rng, (1, 1, 1, 2, 3)))):
        at, other = (int(rng.integers(len(changed))) for _ in range(2))
        kind = int(rng.integers(8))
        if kind == 0 and len(changed) > 1:
            del changed[at]
        elif kind == 1:
            changed.insert(other, changed[at])
        elif kind == 2:
            changed[at], changed[other] = changed[other], changed[at]
        elif kind == 3:
            key = re.match(r".*?(: | = |$)", changed[at])
            changed[at] = (key.group() if key else "") + pick(rng, WORDS)
        elif kind == 4:
            key, value = (re.split(r"(?<=: )|(?<= = )", changed[one])[0] for one in (at, other))
            changed[at] = key + changed[at].removeprefix(key) + value
        elif kind == 5:
            digit = str(rng.integers(10))
            changed[at] = re.sub(r"\d", digit, changed[at], count=int(rng.integers(1, 3)))
        else:
            words = re.split(r"([ (),]+)", changed[at])
            words[int(rng.integers(len(words)))] = pick(rng, WORDS)
            changed[at] = "".join(words)
    return changed


def _with_header(
    kind: str, name: str, lines: list[str], end: str, data: bytes, rng: np.random.Generator
) -> Mutated:
    """A text header before its data or beside them."""
    changed = change_lines(lines, rng) if rng.integers(4) else lines
    header = ("\n".join(changed) + end).encode()
    if changed is lines:
        header = change_bytes(header, rng, first=len(header))
    if rng.integers(8) == 0:
        data = change_bytes(data, rng, first=10**6)
    if name.endswith((".mhd", ".nhdr")):
        good = voxels(rng, "<i2").tobytes()  # of another patient, for names that become its
        return Mutated(kind, {name: header, "ct.raw": data, "good.raw": good}, name)
    return Mutated(kind, {name: header + data}, name)


def metaimage(rng: np.random.Generator) -> Mutated:
    """A MetaImage file, raw or packed, whole or in two parts."""
    name, dtype = pick(rng, ("ct.mha", "ct.mhd")), pick(rng, DTYPES)
    array, is_packed = voxels(rng, dtype), bool(rng.integers(2))
    data = zlib.compress(array.tobytes()) if is_packed else array.tobytes()
    kinds = {"i2": "SHORT", "u1": "UCHAR", "f4": "FLOAT", "i4": "INT"}
    lps = np.diag([-1, -1, 1]) @ AFFINE[:3, :3]
    steps = np.linalg.norm(lps, axis=0)
    lines = [
        "ObjectType = Image",
        "NDims = 3",
        "BinaryData = True",
        f"BinaryDataByteOrderMSB = {array.dtype.byteorder == '>'}",
        f"CompressedData = {is_packed}",
        *([f"CompressedDataSize = {len(data)}"] if is_packed else []),
        "TransformMatrix = " + " ".join(map(str, (lps / steps).T.ravel())),
        "Offset = -30 -40 -50",
        "ElementSpacing = " + " ".join(map(str, steps)),
        "DimSize = " + " ".join(map(str, SHAPE[::-1])),
        f"ElementType = MET_{kinds[array.dtype.str[1:]]}",
        f"ElementDataFile = {'LOCAL' if name == 'ct.mha' else 'ct.raw'}",
    ]
    return _with_header(f"MetaImage {name}", name, lines, "\n", data, rng)


def nrrd(rng: np.random.Generator) -> Mutated:
    """An NRRD file, raw or packed, whole or in two parts."""
    name, dtype = pick(rng, ("ct.nrrd", "ct.nhdr")), pick(rng, DTYPES)
    array, is_packed = voxels(rng, dtype), bool(rng.integers(2))
    data = gzip.compress(array.tobytes(), mtime=0) if is_packed else array.tobytes()
    kinds = {"i2": "short", "u1": "uchar", "f4": "float", "i4": "int"}
    space = pick(rng, ("left-posterior-superior", "RAS", "left-anterior-superior"))
    lines = [
        "NRRD0004",
        f"type: {kinds[array.dtype.str[1:]]}",
        "dimension: 3",
        f"space: {space}",
        "sizes: " + " ".join(map(str, SHAPE[::-1])),
        "space directions: " + " ".join(f"({','.join(map(str, v))})" for v in AFFINE[:3, :3].T),
        "kinds: domain domain domain",
        f"endian: {'big' if array.dtype.byteorder == '>' else 'little'}",
        f"encoding: {'gzip' if is_packed else 'raw'}",
        "space origin: (30,40,-50)",
        "made:=yes",
        *([] if name == "ct.nrrd" else ["data file: ct.raw"]),
    ]
    return _with_header(f"NRRD {name}", name, lines, "\n\n", data, rng)


# -- DICOM

_KEYWORDS = """Rows Columns BitsAllocated BitsStored HighBit PixelRepresentation SamplesPerPixel
    PhotometricInterpretation NumberOfFrames RescaleSlope RescaleIntercept PixelSpacing
    ImagePositionPatient ImageOrientationPatient PixelPaddingValue Modality ImageType
    SeriesInstanceUID FrameOfReferenceUID SOPInstanceUID SOPClassUID SliceThickness
    PlanarConfiguration AcquisitionNumber""".split()
_VALUES: tuple[Any, ...] = (
    0,
    1,
    2,
    7,
    8,
    12,
    16,
    32,
    65535,
    "",
    "0",
    "-1",
    "nan",
    "1e400",
    "x",
    [1, 2],
    [],
    None,
    [0, 0, 0],
    [1, 0, 0, 0, 1, 0],
    "MR",
    "MONOCHROME1",
    "RGB",
    "1.2.3",
    [0.5, "nan"],
    -1,
)
_SYNTAXES: tuple[Any, ...] = (
    None,
    None,
    ImplicitVRLittleEndian,
    DeflatedExplicitVRLittleEndian,
    RLELossless,
    JPEGLSLossless,
)


def dicom(rng: np.random.Generator) -> Mutated:
    """A series of slices, or a multi-frame object; elements of some are others, or bytes."""
    stored = rng.integers(0, 3000, (4, 6, 8)).astype(pick(rng, (np.int16, np.uint16)))
    syntax = pick(rng, _SYNTAXES)
    is_enhanced = rng.integers(4) == 0
    objects = [make_enhanced(stored)] if is_enhanced else make_slices(stored)
    chosen = objects if rng.integers(2) else [pick(rng, objects)]
    for one in objects:
        if syntax in (RLELossless, JPEGLSLossless):
            one.compress(syntax, generate_instance_uid=False)
        elif syntax is not None:
            one.file_meta.TransferSyntaxUID = syntax
    by_bytes = rng.integers(2)
    if not by_bytes:
        for _ in range(int(rng.integers(1, 3))):
            _change_elements(chosen, rng)
    files = {}
    for at, one in enumerate(objects):
        content = _dicom_bytes(one)
        if by_bytes and any(one is other for other in chosen):
            first = len(content) if rng.integers(4) == 0 or syntax else len(content) - 96
            content = change_bytes(content, rng, first=first)
        files[f"{at}.dcm"] = content
    kind = "enhanced" if is_enhanced else "series"
    return Mutated(f"DICOM {kind} {syntax.name if syntax else 'plain'}", files, "")


def _change_elements(objects: list[Dataset], rng: np.random.Generator) -> None:
    keyword, value, kind = pick(rng, _KEYWORDS), pick(rng, _VALUES), int(rng.integers(4))
    for one in objects:
        holder = one
        if "SharedFunctionalGroupsSequence" in one and rng.integers(2):
            groups = pick(rng, list(one.PerFrameFunctionalGroupsSequence))
            holder = next(iter(groups))[0] if len(groups) else one
        if kind == 0:
            holder.pop(keyword, None)
        else:
            _set(holder, keyword, value)


def _set(dataset: Dataset, keyword: str, value: Any) -> None:
    """Sets a value, or removes what pydicom cannot write."""
    try:
        setattr(dataset, keyword, value)
        _dicom_bytes(dataset if "SOPClassUID" in dataset else _wrapped(dataset))
    except Exception:  # pydicom raises of many kinds
        dataset.pop(keyword, None)


def _wrapped(item: Dataset) -> Dataset:
    whole = make_slices()[0]
    whole.update(item)
    return whole


def _dicom_bytes(dataset: Dataset) -> bytes:
    with io.BytesIO() as file:
        dataset.save_as(file, enforce_file_format=True)
        return file.getvalue()


FORMATS: dict[str, Callable[[np.random.Generator], Mutated]] = {
    "NIfTI": nifti,
    "NRRD": nrrd,
    "MetaImage": metaimage,
    "DICOM": dicom,
}
