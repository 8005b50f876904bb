"""DICOM that is no CT volume: each with the code that the reject has, and what its reason says."""

from __future__ import annotations

import numpy as np
from bad_files import BadFile
from dicom_series import AXIAL, SHAPE, make_enhanced, make_slices, set_pixels, stored_voxels, write


def spoiled(spoil):
    """A good series of five slices, after `spoil` did its worst to the list."""

    def make(folder):
        slices = make_slices()
        spoil(slices)
        return write(slices, folder / "series")

    return make


def moved(index, position):
    """One slice has another position."""
    return spoiled(lambda slices: setattr(slices[index], "ImagePositionPatient", position))


def with_values(index, **values):
    def spoil(slices):
        for key, value in values.items():
            setattr(slices[index], key, value)

    return spoiled(spoil)


def tilted(folder):
    """Slices that are turned about the patient's x axis, on a table that moves along z."""
    slices = make_slices()
    for made in slices:
        made.ImageOrientationPatient = [1, 0, 0, 0, 0.970296, -0.241922]
    return write(slices, folder / "series")


def all_localizers(folder):
    slices = make_slices()
    for made in slices:
        made.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    return write(slices, folder / "series")


def two_sizes(folder):
    slices = make_slices()
    set_pixels(slices[3], stored_voxels((7, 7)))
    return write(slices, folder / "series")


def colours(folder):
    slices = make_slices()
    for made in slices:
        set_pixels(made, np.zeros(SHAPE[1:], np.uint16))
        made.SamplesPerPixel, made.PhotometricInterpretation = 3, "RGB"
        made.BitsAllocated, made.BitsStored, made.HighBit = 8, 8, 7
        made.PlanarConfiguration = 0
        made.add_new("PixelData", "OW", bytes(3 * SHAPE[1] * SHAPE[2]))
    return write(slices, folder / "series")


def cut(keep, *, name="IM010_5.dcm"):
    """One file ends early."""

    def make(folder):
        series = write(make_slices(), folder / "series")
        content = (series / name).read_bytes()
        (series / name).write_bytes(content[:keep])
        return series

    return make


def mixed(old, new):
    """Files of a good series beside one that is not DICOM."""

    def make(folder):
        series = write(make_slices(), folder / "series")
        (series / old).write_bytes(new)
        return series

    return make


def empty_folder(folder):
    (folder / "series").mkdir()
    (folder / "series/notes.txt").write_text("no DICOM here")
    return folder / "series"


def one_enhanced(**spoil):
    def make(folder):
        made = make_enhanced(**spoil)
        return write([made], folder / "series")

    return make


def two_phases(folder):
    """Arterial and venous phase in one series: each position is there twice."""
    slices = make_slices()
    again = make_slices()
    for number, made in enumerate(again):
        made.SOPInstanceUID = f"1.2.3.5.{number + 100}"
    return write([*slices, *again], folder / "series")


OTHER_AXES = np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0]])

BAD_DICOM = {
    "no DICOM in the folder": BadFile("dicom_no_series", "no DICOM files", empty_folder),
    "MR": BadFile(
        "dicom_not_ct", "got modality MR", lambda f: write(make_slices(modality="MR"), f / "s")
    ),
    "localizers alone": BadFile(
        "dicom_localizer", "all 5 images .* are localizers", all_localizers
    ),
    "one slice": BadFile(
        "bad_geometry", "two slices or more", lambda f: write(make_slices()[:1], f / "s")
    ),
    "a slice missing": BadFile(
        "dicom_missing_slice",
        r"but 1 must .*: IM010_5.dcm at 114.50 mm and IM017_5.dcm at 119.50 mm, others 2.50",
        spoiled(lambda slices: slices.pop(2)),
    ),
    "a slice missing of three": BadFile(
        "dicom_missing_slice",
        "others 2.50 mm",
        lambda f: write([make_slices()[z] for z in (0, 1, 3)], f / "s"),
    ),
    "a slice twice": BadFile(
        "dicom_duplicate_slice",
        "IM003_5.dcm at 112.00 mm and IM010_5.dcm at 112.00 mm",
        moved(1, [-31.5, 20.25, 112]),
    ),
    "two phases": BadFile("dicom_duplicate_slice", "one position", two_phases),
    "uneven steps": BadFile(
        "dicom_uneven_slices", "evenly spaced: IM0", moved(2, [-31.5, 20.25, 117.8])
    ),
    "gantry tilt": BadFile("dicom_gantry_tilt", "gantry tilt of 14.0 degrees", tilted),
    "a shifted slice": BadFile("dicom_gantry_tilt", "shift by 3.0", moved(2, [-28.5, 20.25, 117])),
    "two orientations": BadFile(
        "dicom_mixed_orientations",
        "one direction, got .*IM0",
        with_values(2, ImageOrientationPatient=np.ravel(OTHER_AXES[:2]).tolist()),
    ),
    "two sizes": BadFile("dicom_mixed_sizes", r"rows and columns, got \(6, 7\)", two_sizes),
    "two spacings": BadFile(
        "dicom_mixed_sizes", "pixel spacing, got", with_values(1, PixelSpacing=[0.9, 0.8])
    ),
    "no position": BadFile(
        "bad_geometry", "tell ImagePositionPatient", with_values(0, ImagePositionPatient=None)
    ),
    "no orientation": BadFile(
        "bad_geometry", "tell ImageOrientation", with_values(0, ImageOrientationPatient=None)
    ),
    "bent orientation": BadFile(
        "bad_affine",
        "perpendicular unit vectors",
        lambda f: write(make_slices(axes=AXIAL + 0.3), f / "s"),
    ),
    "no pixel spacing": BadFile(
        "bad_geometry", "tell PixelSpacing", with_values(3, PixelSpacing=None)
    ),
    "zero pixel spacing": BadFile(
        "bad_affine",
        "invertible",
        lambda f: write(make_slices(spacing=(2.5, 0, 0.7)), f / "s"),
    ),
    "RGB": BadFile("not_scalar", "colours", colours),
    "cut in the pixels": BadFile("unreadable", "not a whole volume: .*IM010", cut(-20)),
    "cut before the pixels": BadFile("unreadable", "IM010_5.dcm", cut(-100)),
    "cut in the header": BadFile("unreadable", "IM010_5.dcm: its header ends early", cut(500)),
    "cut in the preamble": BadFile("unreadable", "not a readable DICOM file: .*IM010", cut(100)),
    "empty file": BadFile("unreadable", "not a readable DICOM file: .*IM010", cut(0)),
    "empty file with no suffix": BadFile("unreadable", "not a readable", mixed("IM999", b"")),
    "text called .dcm": BadFile("unreadable", "not a readable", mixed("notes.dcm", b"notes")),
    "multi-frame, a frame missing": BadFile(
        "dicom_missing_slice",
        "IM003_6.dcm frame 2 at .* and IM003_6.dcm frame 3",
        one_enhanced(order=(0, 1, 3, 4)),
    ),
}
