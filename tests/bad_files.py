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


def negative_length(folder):
    nib.save(nib.Nifti1Image(voxels(), np.eye(4)), folder / "ct.nii")
    content = bytearray((folder / "ct.nii").read_bytes())
    content[42:44] = np.int16(-10).tobytes()
    (folder / "ct.nii").write_bytes(content)
    return folder / "ct.nii"


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
    "cut .nii": BadFile("unreadable", "not a whole volume", cut("ct.nii")),
    "cut .nii.gz": BadFile("unreadable", "not a (whole|readable) volume", cut("ct.nii.gz")),
    "cut .nrrd": BadFile("unreadable", "not a whole volume", cut("ct.nrrd")),
    "cut gzip .nrrd": BadFile("unreadable", "not a whole vol", cut("ct.nrrd", compressed=True)),
    "cut header .nrrd": BadFile("unreadable", "not a readable vol", cut("ct.nrrd", keep=60)),
    "cut .mha": BadFile(
        "unreadable", "1340 bytes of data, where its header promises 1440", cut("ct.mha")
    ),
    "cut packed .mha": BadFile(
        "unreadable", "packed data (end|cannot make)", cut("ct.mha", compressed=True)
    ),
    "flipped bit .mha": BadFile("unreadable", "not a whole volume", flipped("ct.mha")),
    "flipped bit .nrrd": BadFile("unreadable", "not a whole volume", flipped("ct.nrrd")),
    "flipped bit .nii.gz": BadFile("unreadable", "not a whole volume", flipped("ct.nii.gz")),
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
    ".hdr without its data": BadFile("unreadable", "not a (whole|read)", pair_without_data),
    "Analyze": BadFile("unreadable", "not a NIfTI volume", analyze),
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
    "negative length .nii": BadFile("bad_geometry", r"\(-10, 9, 10\)", negative_length),
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
    "qform flipped": BadFile("qform_sform_disagree", "14 mm apart", forms),
    "qform no rotation": BadFile("bad_affine", "must be a rotation", bent_quaternion),
}
