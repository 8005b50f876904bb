"""Cases that are malformed, each in a way of its own, and cases that are odd and yet good."""

from __future__ import annotations

import contextlib
import dataclasses
import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import SimpleITK as sitk
from bad_dicom import BAD_DICOM
from bad_files import BAD_FILES, RGB, set_fields
from dicom_series import make_slices
from dicom_series import write as write_series
from small_cases import AFFINE, write_case

from fcnseg.errors import InputError
from fcnseg.volumes import Volume, read_geometry, write_volume

SHAPE = (12, 14, 16)


@dataclasses.dataclass
class Files:
    """The files of a case: at first a good one. A folder of masks may be the label."""

    image: Path
    label: Path

    def named(self, name: str) -> Path:
        """The image, the label, or a file in the folder of masks."""
        return {"image": self.image, "label": self.label}.get(name, self.label / name)


Spoil = Callable[[Files], Any]


@dataclasses.dataclass(frozen=True)
class Malformed:
    """What is wrong, and the reject it must have.

    Attributes:
        stage: Where it is found: `list`, `inspect` where the header tells, or `convert`.
        code: Of the reject.
        reason: Pattern that the reason matches.
        blamed: Which of the files it is, as `Files.named` names them.
        spoil: Changes the files of a good case.
        rows: How the case is listed: for each time, columns that have other values.
    """

    stage: str
    code: str
    reason: str
    blamed: str
    spoil: Spoil
    rows: tuple[dict[str, str], ...] = ({},)


def make_files(folder: Path, spoil: Spoil) -> Files:
    """Writes a good case into a folder and changes it."""
    write_case(folder, "case", seed=len(folder.name))
    files = Files(folder / "images/case.nii.gz", folder / "labels/case.nii.gz")
    spoil(files)
    return files


def no_spoil(files: Files) -> None:
    """The files are good."""


def image(array, affine=AFFINE) -> Spoil:
    return lambda files: write_volume(Volume(array, np.asarray(affine)), files.image)


def label(array, affine=AFFINE) -> Spoil:
    return lambda files: write_volume(Volume(array, np.asarray(affine)), files.label)


def both(array, affine) -> Spoil:
    """Image and label on one grid, which is wrong."""

    def spoil(files: Files) -> None:
        image(array, affine)(files)
        label(np.uint8(array > 900), affine)(files)

    return spoil


def plain_image(array, *, slope=1, intercept=0, kind=nib.Nifti1Image) -> Spoil:
    """An image as stored: nibabel's array (x, y, z) and more."""

    def spoil(files: Files) -> None:
        volume = kind(array, AFFINE)
        volume.header.set_slope_inter(slope, intercept)
        nib.save(volume, files.image)

    return spoil


def scaled_label(slope: float) -> Spoil:
    def spoil(files: Files) -> None:
        volume = nib.Nifti1Image(np.full(SHAPE[::-1], 5, np.uint8), AFFINE)
        volume.header.set_slope_inter(slope, 0)
        nib.save(volume, files.label)

    return spoil


def cut(part: str, share: float) -> Spoil:
    def spoil(files: Files) -> None:
        path = getattr(files, part)
        content = path.read_bytes()
        path.write_bytes(content[: int(share * len(content))])

    return spoil


def image_for_label(files: Files) -> None:
    """A label on the image's grid: the image itself, but DICOM images are never labels."""
    if not files.image.is_dir():
        files.label = files.image
        return
    with contextlib.suppress(InputError):  # where headers tell of no grid, no label is looked at
        grid = read_geometry(files.image)
        label(np.ones(grid.shape, np.uint8), grid.affine)(files)


def from_table(name: str, part: str) -> Spoil:
    """One of the files that no reader takes, in the place of the image or the label."""

    def spoil(files: Files) -> None:
        folder = files.image.parent.parent / "bad"
        folder.mkdir()
        setattr(files, part, BAD[name].write(folder))

    return spoil


def enlarge(files: Files) -> None:
    """Headers that promise 32767 x 32767 x 32767 voxels: sound, but no memory holds them."""
    for path in (files.image, files.label):
        header = bytearray(gzip.decompress(path.read_bytes()))
        header[42:48] = b"\xff\x7f" * 3
        path.write_bytes(gzip.compress(bytes(header)))


def header(*parts: str, **fields: Any) -> Spoil:
    """Other values in the NIfTI headers of image, label or both."""

    def spoil(files: Files) -> None:
        for part in parts or ("image", "label"):
            set_fields(getattr(files, part), **fields)

    return spoil


def as_nrrd(files: Files) -> None:
    picture = sitk.GetImageFromArray(CT)
    picture.SetSpacing((5, 7.5, 10))
    files.image = files.image.with_name("image.nrrd")
    sitk.WriteImage(picture, str(files.image))


def itk_pair(suffix: str, old: bytes, new: bytes, *parts: str) -> Spoil:
    """Image and label in an ITK format, slices enough for voxels of 1 mm; some headers changed."""

    def spoil(files: Files) -> None:
        for part, array in {"image": THICK, "label": np.uint8(THICK > 900)}.items():
            picture = sitk.GetImageFromArray(array)
            picture.SetSpacing((5, 7.5, 10))
            path = files.image.with_name(f"{part}{suffix}")
            sitk.WriteImage(picture, str(path))
            if part in parts:
                content = path.read_bytes()
                assert content.count(old) == 1
                path.write_bytes(content.replace(old, new))
            setattr(files, part, path)

    return spoil


def overlapping(files: Files) -> None:
    """3D Slicer's segments in two layers."""
    picture = sitk.GetImageFromArray(np.zeros((*SHAPE, 2), np.uint8), isVector=True)
    picture.SetSpacing((5, 7.5, 10))
    picture.SetMetaData("Segment0_Layer", "0")
    picture.SetMetaData("Segment1_Layer", "1")
    files.label = files.label.with_name("label.seg.nrrd")
    sitk.WriteImage(picture, str(files.label))
    as_nrrd(files)


def series_as_label(files: Files) -> None:
    """The CT once more in the place of its DICOM segmentation."""
    slices = make_slices(CT, spacing=(10, 7.5, 5))
    files.image = files.label = write_series(slices, files.image.parent / "series")


def two_scans(files: Files) -> None:
    """Every other slice of a series is of a second acquisition."""
    slices = make_slices(CT, spacing=(10, 7.5, 5))
    for z, made in enumerate(slices):
        made.AcquisitionNumber = 1 + z % 2
    files.image = write_series(slices, files.image.parent / "series")
    label(LIVER * np.uint8(5), read_geometry(files.image).affine)(files)


def masks(**arrays) -> Spoil:
    """A folder of binary masks instead of the label."""

    def spoil(files: Files) -> None:
        files.label = files.label.parent / "masks"
        files.label.mkdir()
        for name, array in arrays.items():
            write_volume(Volume(array, AFFINE), files.label / f"{name}.nii.gz")

    return spoil


def in_turn(*spoils: Spoil) -> Spoil:
    def spoil(files: Files) -> None:
        for one in spoils:
            one(files)

    return spoil


def with_affine(**places: float) -> np.ndarray:
    """The good affine with other values in some places, named as in `r0c3`."""
    affine = AFFINE.copy()
    for place, value in places.items():
        affine[int(place[1]), int(place[3])] = value
    return affine


def turned(**radians: float) -> np.ndarray:
    """The good affine, turned around its origin."""
    affine = AFFINE.copy()
    affine[:3, :3] = nib.eulerangles.euler2mat(**radians) @ AFFINE[:3, :3]
    return affine


def random_hu(shape=SHAPE, low=-1000, high=1000) -> np.ndarray:
    return np.random.default_rng(7).integers(low, high, shape, dtype=np.int16)


CT = random_hu()
THICK = random_hu((90, 14, 16))
"""HU of slices that make a patient also where they are 1 mm apart."""
POSITIVE = np.diag([5.0, 7.5, 10, 1])
"""The affine that is taken where a header leaves the orientation open."""
ZEROS = np.zeros(SHAPE)
LIVER = np.zeros(SHAPE, np.uint8)
LIVER[3:8, 3:9, 4:10] = 1
NOTHING = np.zeros(SHAPE, np.uint8)
FLIPPED = AFFINE @ np.diag([-1, 1, 1, 1])
PADDED = np.where(LIVER == 1, np.int16(-3024), CT)
"""HU in which a fifth is the value that some scanners write outside of the circle."""

OF_CASES = {
    # -- the list
    "listed twice": Malformed(
        "list", "duplicate_case", "got listed twice 2 times", "image", no_spoil, ({}, {})
    ),
    "in two splits": Malformed(
        "list",
        "patient_in_two_splits",
        "got p in test and train",
        "image",
        no_spoil,
        (
            {"patient_id": "p", "split": "train"},
            {"patient_id": "p", "split": "test", "case_id": "in two splits again"},
        ),
    ),
    # -- the grid
    "header in metres": Malformed(
        "inspect",
        "spacing_implausible",
        r"0\.2 to 10\.0 mm for a CT, got \(0\.01, 0\.0075, 0\.005\)",
        "image",
        both(CT, AFFINE / 1000),
    ),
    "header in tenths": Malformed(
        "inspect",
        "spacing_implausible",
        r"got \(100\.0, 75\.0, 50\.0\)",
        "image",
        both(CT, AFFINE * 10),
    ),
    "no spacing": Malformed(
        "inspect",
        "field_of_view_implausible",
        r"80 to 1000 mm wide .* got \(12\.0, 14\.0, 16\.0\) mm",
        "image",
        both(CT, np.eye(4)),
    ),
    "too wide": Malformed(
        "inspect",
        "field_of_view_implausible",
        r"got \(1020\.0, 1010\.0, 30\.0\) mm",
        "image",
        both(random_hu((102, 101, 3)), np.diag([10.0, 10, 10, 1])),
    ),
    "too long": Malformed(
        "inspect",
        "field_of_view_implausible",
        r"at most 2500 mm long, got \(2600\.0,",
        "image",
        both(random_hu((260, 14, 16)), AFFINE),
    ),
    "sheared": Malformed(
        "inspect",
        "sheared_grid",
        r"right angles, but miss them by 24 degrees",
        "image",
        both(CT, with_affine(r1c2=4, r2c2=9)),
    ),
    "codes of qform and sform 0": Malformed(
        "inspect",
        "orientation_unknown",
        "got 0 and 0; taken where accepted: x = pixdim",
        "image",
        header(qform_code=0, sform_code=0),
    ),
    "codes of no meaning": Malformed(
        "inspect",
        "orientation_unknown",
        "must be 1 to 5, .* got 6 and -1",
        "image",
        header(qform_code=6, sform_code=-1),
    ),
    "one code of no meaning": Malformed(
        "inspect",
        "orientation_unknown",
        "got 1 and 77; taken where accepted: the other form",
        "image",
        header(sform_code=77),
    ),
    "codes of the label 0": Malformed(
        "inspect",
        "orientation_unknown",
        "got 0 and 0",
        "label",
        in_turn(both(CT, POSITIVE), header("label", qform_code=0, sform_code=0)),
    ),
    "pixdim 0": Malformed(
        "inspect",
        "spacing_unknown",
        r"positive .* got 5, 7\.5, 0 \(x, y, z\); taken where accepted: 5, 7\.5, 1$",
        "image",
        in_turn(both(THICK, AFFINE), header(sform_code=0, pixdim=[1, 5, 7.5, 0, 0, 0, 0, 0])),
    ),
    "pixdim NaN": Malformed(
        "inspect",
        "spacing_unknown",
        "got nan, 7.5, 10 .*: the lengths of sform$",
        "image",
        header(qform_code=0, pixdim=[1, np.nan, 7.5, 10, 0, 0, 0, 0]),
    ),
    "pixdim negative": Malformed(
        "inspect",
        "spacing_unknown",
        r"got -5, 7\.5, 10 .*: 5, 7\.5, 10$",
        "image",
        header(sform_code=0, pixdim=[1, -5, 7.5, 10, 0, 0, 0, 0]),
    ),
    "MetaImage without its direction": Malformed(
        "inspect",
        "orientation_unknown",
        "TransformMatrix must be in the header; taken where accepted: the axes grow to left, post",
        "image",
        itk_pair(".mha", b"TransformMatrix", b"Nothing", "image", "label"),
    ),
    "MetaImage label without its direction": Malformed(
        "inspect or convert",
        "orientation_unknown",
        "TransformMatrix must be in the header",
        "label",
        itk_pair(".mha", b"TransformMatrix", b"Nothing", "label"),
    ),
    "MetaImage without spacing": Malformed(
        "inspect",
        "spacing_unknown",
        "ElementSpacing must be in the header; taken where accepted: 1 mm",
        "image",
        itk_pair(".mha", b"ElementSpacing", b"Nothing", "image", "label"),
    ),
    "NRRD without space": Malformed(
        "inspect",
        "orientation_unknown",
        "space must be of a patient, as left-posterior-superior, got ''",
        "image",
        itk_pair(
            ".nrrd", b"space: left-posterior-superior", b"space dimension: 3", "image", "label"
        ),
    ),
    "too large": Malformed(
        "inspect", "too_large", "1073741824 voxels, .* got 35181150961663", "image", enlarge
    ),
    "image cut": Malformed(
        "convert", "unreadable", "incomplete or corrupt volume", "image", cut("image", 0.7)
    ),
    # -- no HU
    "all zero": Malformed(
        "convert", "constant_image", "all are 0 HU", "image", image(np.int16(ZEROS))
    ),
    "air and padding alone": Malformed(
        "convert",
        "constant_image",
        "all are -3024 HU or padding",
        "image",
        image(np.int16(np.where(LIVER, -3024, -1000))),
    ),
    "scaled to 0..1": Malformed(
        "convert", "scaled_image", "values are 0 to 1", "image", image(np.float32(CT / 2000 + 0.5))
    ),
    "scaled to deviations": Malformed(
        "convert", "scaled_image", "values are -2 to 2", "image", image(np.float32(CT / 500))
    ),
    "8 bit": Malformed(
        "convert",
        "windowed_image",
        "values are 0 to 249: an image of 8 bit",
        "image",
        image(np.uint8(CT / 8 + 125)),
    ),
    "rescale left out": Malformed(
        "convert",
        "missing_rescale",
        "values are 25 to 2023 and 99 % are above 48, but",
        "image",
        image(CT + np.int16(1024)),
    ),
    "rescale left out beside padding": Malformed(
        "convert",
        "missing_rescale",
        "values are 27 to 2023",
        "image",
        image(np.where(LIVER == 1, np.int16(-2000), CT + np.int16(1024))),
    ),
    "rescaled twice": Malformed(
        "convert",
        "no_tissue",
        "values are -1400 to -401, but 99.5% lie below -4",
        "image",
        image(random_hu(low=-1400, high=-400)),
    ),
    "two scans in one series": Malformed(
        "convert",
        "dicom_mixed_scans",
        "of one AcquisitionNumber must not lie between those of another, got 1 in IM003_5.dcm, 2"
        " in IM010_5.dcm, 1 in IM017_5.dcm, of series",
        "image",
        two_scans,
    ),
    "one NaN": Malformed(
        "convert",
        "not_finite",
        "NaN or infinity",
        "image",
        image(np.where(CT[4, 5, 6] == CT, np.nan, CT).astype(np.float32)),
    ),
    "one infinity": Malformed(
        "convert",
        "not_finite",
        "NaN or infinity",
        "image",
        image(np.where(CT[4, 5, 6] == CT, np.inf, CT)),
    ),
    "complex numbers": Malformed(
        "convert",
        "not_scalar",
        "must be numbers, got complex64",
        "image",
        plain_image(CT.T.astype(np.complex64)),
    ),
    "colours": Malformed(
        "convert",
        "not_scalar",
        "must be numbers, got",
        "image",
        plain_image(np.zeros(SHAPE[::-1], RGB)),
    ),
    # -- image and label
    "a slice less": Malformed(
        "inspect", "shape_mismatch", r"\(12, 14, 16\) and \(11, 14, 16\)", "label", label(LIVER[1:])
    ),
    "axes in another order": Malformed(
        "inspect", "shape_mismatch", r"\(16, 14, 12\)", "label", label(LIVER.T.copy())
    ),
    "another spacing": Malformed(
        "inspect",
        "grid_mismatch",
        r"spacing \[10.0, 7.5, 5.0\] and \[9.0, 7.5, 5.0\]",
        "label",
        label(LIVER, with_affine(r2c2=9)),
    ),
    "another origin": Malformed(
        "inspect",
        "grid_mismatch",
        r"corners are 0.5 mm apart: origin \[200.0, .* and \[200.5,",
        "label",
        label(LIVER, with_affine(r0c3=200.5)),
    ),
    "turned": Malformed(
        "inspect",
        "grid_mismatch",
        "mm apart: directions differ",
        "label",
        label(LIVER, turned(z=0.05)),
    ),
    "flipped": Malformed(
        "inspect", "grid_mismatch", "orientation LPS and RPS", "label", label(LIVER, FLIPPED)
    ),
    # -- values of the label
    "fractions": Malformed(
        "convert", "label_not_integral", "integral, got 0.5", "label", label(ZEROS + 0.5)
    ),
    "scaled ids": Malformed(
        "convert", "label_not_integral", "integral, got 2.5", "label", scaled_label(0.5)
    ),
    "NaN in the label": Malformed(
        "convert", "not_finite", "NaN or infinity", "label", label(ZEROS * np.nan)
    ),
    "negative ids": Malformed(
        "convert",
        "label_negative",
        r"negative, got -1 \(2508 voxels\)",
        "label",
        label(LIVER.astype(np.int16) * 6 - 1),
    ),
    "the image as label": Malformed(
        "convert", "label_negative", r"negative, got -999 .* and \d+ more", "label", label(CT)
    ),
    "unknown ids": Malformed(
        "convert",
        "label_ids_unknown",
        r"label map, got 9 \(180 voxels\)",
        "label",
        label(LIVER * np.uint8(9)),
    ),
    "unknown large ids": Malformed(
        "convert",
        "label_ids_unknown",
        r"got 70000 \(180 voxels\)",
        "label",
        label(LIVER * np.int32(70000)),
    ),
    "no organ": Malformed(
        "convert", "label_empty", "all of its 1848 voxels are background", "label", label(NOTHING)
    ),
    "overlapping segments": Malformed(
        "inspect", "segments_overlap", "must not overlap", "label", overlapping
    ),
    "label cut": Malformed(
        "convert", "unreadable", "incomplete or corrupt volume", "label", cut("label", 0.7)
    ),
    "label cut in its header": Malformed(
        "inspect", "unreadable", "not a readable volume", "label", cut("label", 0.1)
    ),
    "a DICOM series as label": Malformed(
        "inspect", "dicom_not_seg", "one segmentation object", "label", series_as_label
    ),
    # -- folders of masks
    "a mask is missing": Malformed(
        "inspect", "masks_missing", "no spleen in", "label", masks(liver=LIVER)
    ),
    "two masks of a name": Malformed(
        "inspect",
        "mask_ambiguous",
        "one file, got liver.nii and liver.nii.gz",
        "label",
        in_turn(
            masks(liver=LIVER, spleen=NOTHING),
            lambda files: (files.label / "liver.nii").write_bytes(b""),
        ),
    ),
    "ids in a mask": Malformed(
        "convert",
        "mask_not_binary",
        "one other value, got 0, 1, 2 in",
        "liver.nii.gz",
        masks(liver=LIVER + np.roll(LIVER, 1, axis=0), spleen=NOTHING),
    ),
    "a mask of another shape": Malformed(
        "inspect",
        "shape_mismatch",
        r"\(11, 14, 16\)",
        "spleen.nii.gz",
        masks(liver=LIVER, spleen=NOTHING[1:]),
    ),
    "masks of nothing": Malformed(
        "convert", "label_empty", "are background", "label", masks(liver=NOTHING, spleen=NOTHING)
    ),
}

BAD = BAD_FILES | {f"DICOM: {name}": bad for name, bad in BAD_DICOM.items()}

# What no reader takes, in the place of image and label: it is the reader's to say how early it can
# be told. Their fields of view are too small.
UNREADABLE = {
    f"image: {name}": Malformed(
        "inspect or convert",
        bad.code,
        bad.reason,
        "image",
        in_turn(from_table(name, "image"), image_for_label),
    )
    for name, bad in BAD.items()
}

MALFORMED = OF_CASES | {
    f"label: {name}": Malformed(
        "inspect", BAD[name].code, BAD[name].reason, "label", from_table(name, "label")
    )
    for name in ("nothing there", "a picture", "junk .nii.gz", "4D .nii.gz", "zero step .nii.gz")
}

# Each: what is odd, and the codes of the warnings that it must have beside `thick_slices`.
ODD: dict[str, tuple[Spoil, set[str]]] = {
    "nothing odd": (no_spoil, set()),
    "one volume in four dimensions": (plain_image(CT.T[..., None]), set()),
    "NIfTI-2": (plain_image(CT.T, kind=nib.Nifti2Image), set()),
    "unsigned with an intercept": (
        plain_image((CT.T + np.int16(1024)).astype(np.uint16), intercept=-1024),
        set(),
    ),
    "doubles": (image(CT.astype(np.float64)), set()),
    "rows of the label from back to front": (
        label(
            LIVER[:, ::-1] * np.uint8(5),
            AFFINE @ np.array([[1, 0, 0, 0], [0, -1, 0, 13], [0, 0, 1, 0], [0, 0, 0, 1]]),
        ),
        set(),
    ),
    "float noise in the affine": (label(LIVER * np.uint8(5), AFFINE * (1 + 1e-8)), set()),
    "ids as doubles": (label(LIVER * 5.0), set()),
    "masks": (masks(liver=LIVER, spleen=np.roll(LIVER, 6, axis=0)), set()),
    "masks that overlap": (
        masks(liver=LIVER, spleen=np.roll(LIVER, 1, axis=0)),
        {"masks_overlap"},
    ),
    "masks beside other files": (
        in_turn(
            masks(liver=LIVER, spleen=NOTHING, lung=LIVER),
            lambda files: (files.label / "statistics.json").write_text("{}"),
        ),
        set(),
    ),
    "padding": (image(PADDED), {"padding"}),
    "coronal slices": (
        both(CT, np.array([[-5.0, 0, 0, 40], [0, 0, 10, 0], [0, 6, 0, 0], [0, 0, 0, 1]])),
        {"not_axial"},
    ),
    "oblique": (
        both(CT, turned(x=0.4)),
        {"oblique"},
    ),
}

# Sound files where a package, or memory, is lacking.
UNLUCKY = {
    "no package": Malformed(
        "inspect", "missing_extra", r"fcnseg's extra dicom, pip install ", "image", series_as_label
    ),
    "no memory": Malformed("convert", "unexpected_error", "MemoryError", "", no_spoil),
}
