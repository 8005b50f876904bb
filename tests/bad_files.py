"""Files that are no volume: each with the code that the reject has, and what its reason says."""

from __future__ import annotations

import dataclasses
import gzip
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import SimpleITK as sitk

from fcnseg.volumes import Volume, write_volume

SHAPE = (8, 9, 10)


@dataclasses.dataclass(frozen=True)
class BadFile:
    """What is wrong, and how such a file is made.

    Attributes:
        code: Of the reject.
        reason: Pattern that the error matches.
        write: Takes a folder, writes into it and returns the path to read.
    """

    code: str
    reason: str
    write: Callable[[Path], Path]


def voxels(*, shape=SHAPE, dtype=np.int16):
    return np.arange(np.prod(shape)).reshape(shape).astype(dtype)


def write_itk(path, array, *, compressed=False, is_vector=False):
    sitk.WriteImage(sitk.GetImageFromArray(array, isVector=is_vector), str(path), compressed)
    return path


def itk_with(name, old, new):
    """A good MHA or NRRD file in which a part of the header is another."""

    def write(folder):
        path = write_itk(folder / name, voxels())
        content = path.read_bytes()
        assert content.count(old) == 1
        path.write_bytes(content.replace(old, new))
        return path

    return write


def itk_of(name, array, *, is_vector=False):
    return lambda folder: write_itk(folder / name, array, is_vector=is_vector)


def cut(name, *, compressed=False, keep=None):
    """A good file that ends early."""

    def write(folder):
        if ".nii" in name:
            path = folder / name
            write_volume(Volume(voxels(), np.eye(4)), path)
        else:
            path = write_itk(folder / name, voxels(), compressed=compressed)
        path.write_bytes(path.read_bytes()[: keep or -100])
        return path

    return write


def flipped(name):
    """A packed file in which a bit is another: only the checksum tells."""

    def write(folder):
        path = write_itk(
            folder / name, np.random.default_rng(0).integers(0, 99, SHAPE), compressed=True
        )
        content = bytearray(path.read_bytes())
        content[-200] ^= 1
        path.write_bytes(content)
        return path

    return write


def junk(name, content=b"hello"):
    def write(folder):
        (folder / name).write_bytes(content)
        return folder / name

    return write


def nifti_of(array, *, affine=None):
    def write(folder):
        header = nib.Nifti1Image(array, np.eye(4)).header
        if affine is not None:
            header["srow_x"], header["srow_y"], header["srow_z"] = affine[:3]
        nib.save(nib.Nifti1Image(array, None, header), folder / "ct.nii.gz")
        return folder / "ct.nii.gz"

    return write


def huge_nifti(folder):
    """A header that promises 70 TB, where memory was once asked for before the file was."""
    header = bytearray(nib.Nifti1Image(voxels(), np.eye(4)).to_bytes())
    header[42:48] = b"\xff\x7f" * 3
    (folder / "ct.nii.gz").write_bytes(gzip.compress(bytes(header)))
    return folder / "ct.nii.gz"


def forms(folder):
    image = nib.Nifti1Image(voxels(), np.eye(4))
    image.set_qform(np.diag([-1, 1, 1, 1]), code=1)  # as if a program flipped one of the two
    image.set_sform(np.eye(4), code=1)
    nib.save(image, folder / "ct.nii")
    return folder / "ct.nii"


def bent_quaternion(folder):
    image = nib.Nifti1Image(voxels(), np.eye(4))
    image.set_qform(np.eye(4), code=1)
    image.set_sform(np.eye(4), code=1)
    image.header["quatern_b"] = 2
    nib.save(image, folder / "ct.nii")
    return folder / "ct.nii"


def set_fields(path, **fields):
    """Gives fields of a NIfTI header other values, in the file as it is; arrays from a place on."""
    packed = path.name.endswith(".gz")
    content = bytearray(gzip.decompress(path.read_bytes()) if packed else path.read_bytes())
    size = int(np.frombuffer(content[:4], "<i4")[0])
    kind = nib.Nifti1Header if size == nib.Nifti1Header.sizeof_hdr else nib.Nifti2Header
    header = kind(bytes(content[:size]), check=False)
    for name, value in fields.items():
        header[name] = value
    content[:size] = header.binaryblock
    path.write_bytes(gzip.compress(bytes(content)) if packed else bytes(content))
    return path


def nifti_with(*, kind=nib.Nifti1Image, name="ct.nii", of=None, **fields):
    """A good NIfTI file in whose header fields have other values.

    Args:
        kind: Class of nibabel.
        name: Of the file to read.
        of: The file with the header, if it is another.
        fields: The values.
    """

    def write(folder):
        image = kind(voxels(), np.eye(4))
        image.set_qform(np.eye(4), code=1)
        nib.save(image, folder / name)
        set_fields(folder / (of or name), **fields)
        return folder / name

    return write


def pair_without_data(folder):
    nib.save(nib.Nifti1Pair(voxels(), np.eye(4)), folder / "ct.hdr")
    (folder / "ct.img").unlink()
    return folder / "ct.hdr"


def analyze(folder):
    nib.save(nib.AnalyzeImage(voxels(), np.eye(4)), folder / "ct.hdr")
    return folder / "ct.hdr"


def mhd_without_data(folder):
    write_itk(folder / "ct.mhd", voxels())
    (folder / "ct.raw").unlink()
    return folder / "ct.mhd"


def four_dimensional(name):
    def write(folder):
        image = sitk.GetImageFromArray(voxels())
        sitk.WriteImage(sitk.JoinSeries([image, image]), str(folder / name))
        return folder / name

    return write


RGB = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])
NAN = np.full(SHAPE, np.nan, np.float32)
DIRECTIONS = b"(1,0,0) (0,1,0) (0,0,1)"
MATRIX, STEP = b"1 0 0 0 1 0 0 0 1", b"ElementSpacing = 1 1 1"

BAD_FILES = {
    "nothing there": BadFile("file_missing", "no such file", lambda f: f / "ct.nii.gz"),
    "a picture": BadFile("unknown_format", r"must be a \.nii", junk("ct.jpg")),
    "junk .nii": BadFile("unreadable", "not a readable volume", junk("ct.nii")),
    "junk .nii.gz": BadFile("unreadable", "not a readable volume", junk("ct.nii.gz")),
    "junk .nrrd": BadFile("unreadable", "not a readable volume", junk("ct.nrrd")),
    "junk .mha": BadFile("unreadable", "has no NDims", junk("ct.mha")),
    "empty .nii.gz": BadFile("unreadable", "not a readable volume", junk("ct.nii.gz", b"")),
    "empty .nrrd": BadFile("unreadable", "not a readable volume", junk("ct.nrrd", b"")),
    "empty .mha": BadFile("unreadable", "not a readable volume", junk("ct.mha", b"")),
    "not NIfTI in gzip": BadFile(
        "unreadable", "not a readable volume", junk("ct.nii.gz", gzip.compress(b"0" * 999))
    ),
    "cut .nii": BadFile("unreadable", "incomplete or corrupt volume", cut("ct.nii")),
    "cut .nii.gz": BadFile("unreadable", "incomplete or corrupt volume", cut("ct.nii.gz")),
    "cut .nrrd": BadFile("unreadable", "incomplete or corrupt volume", cut("ct.nrrd")),
    "cut gzip .nrrd": BadFile(
        "unreadable", "incomplete or corrupt vol", cut("ct.nrrd", compressed=True)
    ),
    "cut header .nrrd": BadFile("unreadable", "not a readable vol", cut("ct.nrrd", keep=60)),
    "cut .mha": BadFile(
        "unreadable", "1340 bytes of data, where its header promises 1440", cut("ct.mha")
    ),
    "cut packed .mha": BadFile(
        "unreadable", "compressed data (end|cannot make)", cut("ct.mha", compressed=True)
    ),
    "flipped bit .mha": BadFile("unreadable", "incomplete or corrupt volume", flipped("ct.mha")),
    "flipped bit .nrrd": BadFile("unreadable", "incomplete or corrupt volume", flipped("ct.nrrd")),
    "flipped bit .nii.gz": BadFile(
        "unreadable", "incomplete or corrupt volume", flipped("ct.nii.gz")
    ),
    "cut header .mha": BadFile("unreadable", "has no DimSize", cut("ct.mha", keep=60)),
    "huge .mha": BadFile(
        "unreadable",
        "1440 bytes of data, .* promises 14400000000",
        itk_with("ct.mha", b"DimSize = 10 9 8", b"DimSize = 100000 9000 8"),
    ),
    "huge .nii.gz": BadFile("unreadable", "cannot make|bytes expected", huge_nifti),
    "odd size .mha": BadFile(
        "unreadable",
        "DimSize must be whole numbers",
        itk_with("ct.mha", b"DimSize = 10 9 8", b"DimSize = 10 9 z"),
    ),
    ".mhd without its data": BadFile("file_missing", "no such file: 'ct.raw'", mhd_without_data),
    ".hdr without its data": BadFile("unreadable", "incomplete or corrupt vol", pair_without_data),
    "gzip called .nii": BadFile(
        "unreadable", "compressed, so name it .nii.gz", junk("ct.nii", gzip.compress(b"0" * 999))
    ),
    "Analyze": BadFile("unreadable", "no header of NIfTI", analyze),
    "NaN .nii.gz": BadFile("not_finite", "must be finite", nifti_of(NAN)),
    "NaN .nrrd": BadFile("not_finite", "must be finite", itk_of("ct.nrrd", NAN)),
    "RGB .nii.gz": BadFile("not_scalar", "must be numbers", nifti_of(np.zeros(SHAPE, RGB))),
    "RGB .nrrd": BadFile(
        "not_scalar",
        "single numbers, got 3",
        itk_of("ct.nrrd", np.zeros((*SHAPE, 3), np.uint8), is_vector=True),
    ),
    "2D .nii.gz": BadFile("bad_geometry", "three dimensions", nifti_of(voxels(shape=(9, 8)))),
    "2D .mha": BadFile("bad_geometry", "three dim", itk_of("ct.mha", voxels(shape=(9, 8)))),
    "negative length .nii": BadFile(
        "bad_geometry", r"\(-10, 9, 10\)", nifti_with(dim=[3, -10, 9, 10, 1, 1, 1, 1])
    ),
    "4D .nii.gz": BadFile("bad_geometry", "three dimensions", nifti_of(voxels(shape=(5, 4, 3, 2)))),
    "4D .nrrd": BadFile("bad_geometry", r"\(10, 9, 8, 2\)", four_dimensional("ct.nrrd")),
    "4D .mha": BadFile("bad_geometry", r"\(10, 9, 8, 2\)", four_dimensional("ct.mha")),
    "zero step .nii.gz": BadFile(
        "bad_affine", "invertible", nifti_of(voxels(), affine=np.diag([1, 0, 1, 1]))
    ),
    "NaN affine .nii.gz": BadFile(
        "bad_affine", "finite", nifti_of(voxels(), affine=np.diag([1, np.nan, 1, 1]))
    ),
    "zero step .nrrd": BadFile(
        "bad_affine", "finite", itk_with("ct.nrrd", DIRECTIONS, b"(1,0,0) (0,1,0) (0,0,0)")
    ),
    "flat .nrrd": BadFile(
        "bad_affine", "invertible", itk_with("ct.nrrd", DIRECTIONS, b"(1,0,0) (0,1,0) (1,0,0)")
    ),
    "zero step .mha": BadFile(
        "bad_affine", "invertible", itk_with("ct.mha", STEP, b"ElementSpacing = 1 0 1")
    ),
    "flat .mha": BadFile(
        "bad_affine", "invertible", itk_with("ct.mha", MATRIX, b"1 0 0 0 1 0 0 0 0")
    ),
    # -- NIfTI headers that leave open where the voxels are, or their scale
    **{
        f"vox_offset {offset} of {kind.__name__}": BadFile(
            "unreadable",
            "vox_offset must be a whole number",
            nifti_with(kind=kind, name=name, of=of, vox_offset=offset),
        )
        for kind, name, of, offsets in (
            (nib.Nifti1Image, "ct.nii", None, (0, 351, 352.5, -16, np.nan, np.inf, 1e30)),
            (nib.Nifti1Image, "ct.nii.gz", None, (0, 1e30)),
            (nib.Nifti2Image, "ct.nii", None, (0, 352, -16, 2**40)),
            (nib.Nifti1Pair, "ct.hdr", None, (-16, 0.5)),
            (nib.Nifti1Pair, "ct.img", "ct.hdr", (-16,)),
        )
        for offset in offsets
    },
    "vox_offset beyond the file": BadFile(
        "unreadable", "incomplete or corrupt volume", nifti_with(vox_offset=4096)
    ),
    "vox_offset beyond the packed file": BadFile(
        "unreadable", "incomplete or corrupt volume", nifti_with(name="ct.nii.gz", vox_offset=2**30)
    ),
    "more voxels than bytes": BadFile(
        "unreadable",
        "(bytes of data, where its header promises|bytes of compressed data cannot make)",
        nifti_with(dim=[3, 32767, 32767, 32767, 1, 1, 1, 1]),
    ),
    "more voxels than packed bytes": BadFile(
        "unreadable",
        "(bytes of data, where its header promises|bytes of compressed data cannot make)",
        nifti_with(name="ct.nii.gz", dim=[3, 32767, 32767, 32767, 1, 1, 1, 1]),
    ),
    "more voxels than numbers count": BadFile(
        "unreadable",
        "(bytes of data, where its header promises|bytes of compressed data cannot make)",
        nifti_with(kind=nib.Nifti2Image, dim=[3, 2**21, 2**21, 2**20, 1, 1, 1, 1]),
    ),
    "n+1 in a pair": BadFile(
        "unreadable",
        "magic must be b'ni1'",
        nifti_with(kind=nib.Nifti1Pair, name="ct.hdr", magic=b"n+1"),
    ),
    "ni1 in one file": BadFile("unreadable", r"magic must be b'n\+1'", nifti_with(magic=b"ni1")),
    **{
        f"slope {slope}, intercept {intercept}": BadFile(
            "not_finite",
            "scl_slope and scl_inter must be finite",
            nifti_with(scl_slope=slope, scl_inter=intercept),
        )
        for slope, intercept in (
            (np.nan, 0),
            (np.nan, np.nan),
            (-np.inf, 0),
            (1, np.nan),
            (0, np.inf),
        )
    },
    "sform of unit cosines": BadFile(
        "qform_sform_disagree",
        r"voxels of 1, 1, 1 and 2, 1, 5 mm \(x, y, z\)",
        nifti_with(pixdim=[1, 2, 1, 5, 0, 0, 0, 0], qform_code=0, sform_code=1),
    ),
    "qfac of no meaning": BadFile(
        "bad_affine", r"pixdim\[0\] of 1 or -1, got -2", nifti_with(pixdim=[-2] + [1] * 7)
    ),
    "qform flipped": BadFile("qform_sform_disagree", "14 mm apart", forms),
    "qform no rotation": BadFile("bad_affine", "must be a rotation", bent_quaternion),
}
