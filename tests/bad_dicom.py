"""DICOM that is no CT volume: each with the code that the reject has, and what its reason says."""

from __future__ import annotations

import numpy as np
from bad_files import BadFile
from dicom_series import AXIAL, SHAPE, make_enhanced, make_slices, set_pixels, stored_voxels, write
from pydicom.config import disable_value_validation
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items


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


def unchecked(make):
    """With values that pydicom does not like to write."""

    def make_so(folder):
        with disable_value_validation():
            return make(folder)

    return make_so


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


def one_enhanced(spoil=lambda made: None, **options):
    """A multi-frame object, after `spoil` did its worst to it."""

    def make(folder):
        made = make_enhanced(**options)
        spoil(made)
        return write([made], folder / "series")

    return make


def frame_rescale(at, keyword, value):
    """Another value in one frame; None leaves it out."""

    def spoil(made):
        (item,) = made.PerFrameFunctionalGroupsSequence[at].PixelValueTransformationSequence
        if value is None:
            delattr(item, keyword)
        else:
            setattr(item, keyword, value)

    return one_enhanced(spoil)


def without_rescale(*indices, empty=False):
    """Some slices tell no slope and no intercept."""

    def spoil(slices):
        for index in indices:
            if empty:
                slices[index].RescaleIntercept = None
            else:
                del slices[index].RescaleSlope, slices[index].RescaleIntercept

    return spoiled(spoil)


def frames_without_transformation(made):
    for at in (1, 3):
        del made.PerFrameFunctionalGroupsSequence[at].PixelValueTransformationSequence


def slope_for_all(made):
    """What all frames share, where none has a rescale of its own."""
    for frame in made.PerFrameFunctionalGroupsSequence:
        del frame.PixelValueTransformationSequence
    values = Dataset()
    values.RescaleSlope, values.RescaleIntercept = 0, -1024
    made.SharedFunctionalGroupsSequence[0].PixelValueTransformationSequence = Items([values])


def frame_not_told(made):
    made.PerFrameFunctionalGroupsSequence = made.PerFrameFunctionalGroupsSequence[:4]


def linked_to_nothing(folder):
    """What DataLad leaves of a file that was not fetched."""
    series = write(make_slices(), folder / "series")
    (series / "IM031_5.dcm").unlink()
    (series / "IM031_5").symlink_to("../.git/annex/objects/none")
    return series


def bare(keep):
    """The last slice has no preamble, and no file meta information either if so asked."""

    def make(folder):
        series = write(make_slices(), folder / "series")
        content = (series / "IM031_5.dcm").read_bytes()
        (series / "IM031_5.dcm").unlink()
        (series / "IM031_5.part").write_bytes(content[keep(content) :])
        return series

    return make


def meta_end(content):
    """Where the data set begins: behind the group length, which is the first element."""
    return 144 + int.from_bytes(content[140:144], "little")


def a_series_for_each_slice(folder):
    slices = make_slices()
    for number, made in enumerate(slices):
        made.SeriesInstanceUID = f"1.2.3.5{number}"
    return write(slices, folder / "series")


def fewer_rows(folder):
    """Of an image that is longer than its header tells."""
    slices = make_slices()
    for made in slices:
        made.Rows -= 1
    return write(slices, folder / "series")


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
    "cut in the pixels": BadFile("unreadable", "incomplete or corrupt volume: .*IM010", cut(-20)),
    "cut before the pixels": BadFile("unreadable", "IM010_5.dcm", cut(-100)),
    "cut in the header": BadFile("unreadable", "IM010_5.dcm: its header ends early", cut(500)),
    "cut in the preamble": BadFile("unreadable", "not a readable DICOM file: .*IM010", cut(100)),
    "empty file": BadFile("unreadable", "not a readable DICOM file: .*IM010", cut(0)),
    "empty file with no suffix": BadFile("unreadable", "not a readable", mixed("IM999", b"")),
    "text called .dcm": BadFile("unreadable", "not a readable", mixed("notes.dcm", b"notes")),
    "zeros called like a slice": BadFile(
        "unreadable", "IM999: .* is something else", mixed("IM999", bytes(1000))
    ),
    "a pointer of Git LFS": BadFile(
        "unreadable",
        "IM999: .* a pointer of git-annex or Git LFS",
        mixed("IM999", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"),
    ),
    "a pointer of git-annex": BadFile(
        "unreadable", "a pointer of git-annex", mixed("IM999", b"/annex/objects/MD5E-s9--0.dcm\n")
    ),
    "a link to nothing": BadFile(
        "file_missing", "IM031_5: .* a link to nothing", linked_to_nothing
    ),
    "no preamble": BadFile(
        "unreadable", "IM031_5.part: .* without the preamble", bare(lambda content: 132)
    ),
    "no preamble and no meta information": BadFile(
        "unreadable", "IM031_5.part: .* without the preamble", bare(meta_end)
    ),
    "a slice of no modality": BadFile(
        "dicom_not_ct",
        "of CT images alone, got modality none in .*IM031_5.dcm, of series",
        with_values(4, Modality=None),
    ),
    "a slice of another modality": BadFile(
        "dicom_not_ct", "got modality PT in .*IM031_5.dcm", with_values(4, Modality="PT")
    ),
    "a series for each slice": BadFile(
        "bad_geometry", "each of the 5 CT series in .* has one", a_series_for_each_slice
    ),
    "no rescale in some slices": BadFile(
        "dicom_bad_rescale",
        "RescaleSlope, or none, but 2 of 5 have none: IM010_5.dcm, IM031_5.dcm, in series",
        without_rescale(1, 4),
    ),
    "an empty intercept in one slice": BadFile(
        "dicom_bad_rescale",
        "RescaleIntercept, or none, but 1 of 5 have none: IM017_5.dcm",
        without_rescale(2, empty=True),
    ),
    "a slope of zero": BadFile(
        "dicom_bad_rescale",
        "a slope not 0, got 0.0 in .*IM017_5.dcm",
        with_values(2, RescaleSlope=0),
    ),
    "a slope that is no number": BadFile(
        "dicom_bad_rescale",
        "got nan in .*IM017_5.dcm",
        unchecked(with_values(2, RescaleSlope="nan")),
    ),
    "an endless intercept": BadFile(
        "dicom_bad_rescale",
        "got inf in .*IM003_5.dcm",
        unchecked(with_values(0, RescaleIntercept="inf")),
    ),
    "multi-frame, frames without transformation": BadFile(
        "dicom_bad_rescale",
        "2 of 5 have none: IM003_6.dcm frame 2, IM003_6.dcm frame 4",
        one_enhanced(frames_without_transformation),
    ),
    "multi-frame, a frame without intercept": BadFile(
        "dicom_bad_rescale",
        "RescaleIntercept, or none, but 1 of 5 have none: IM003_6.dcm frame 3",
        frame_rescale(2, "RescaleIntercept", None),
    ),
    "multi-frame, a slope of zero": BadFile(
        "dicom_bad_rescale",
        "got 0.0 in .*IM003_6.dcm frame 5",
        frame_rescale(4, "RescaleSlope", 0),
    ),
    "multi-frame, a shared slope of zero": BadFile(
        "dicom_bad_rescale", "got 0.0 in .*IM003_6.dcm frame 1", one_enhanced(slope_for_all)
    ),
    "multi-frame, no frame": BadFile(
        "unreadable",
        "one frame or more",
        one_enhanced(lambda made: setattr(made, "NumberOfFrames", 0)),
    ),
    "multi-frame, a frame that is not described": BadFile(
        "unreadable", "NumberOfFrames 5 and 4 of Per", one_enhanced(frame_not_told)
    ),
    # 2^31 - 1 slices at one position would take all memory before they are compared.
    "a slice that counts frames": BadFile(
        "unreadable",
        "NumberOfFrames 2147483647 and 1 of Per",
        with_values(1, NumberOfFrames=2**31 - 1),
    ),
    "bits that are not the lowest": BadFile(
        "unreadable",
        "one less than BitsStored, got 15 and 12 in .*IM010",
        with_values(1, BitsStored=12),
    ),
    "cut by its header": BadFile(
        "unreadable", "declares 70 bytes of pixels, but there are 84", fewer_rows
    ),
    "multi-frame, a frame missing": BadFile(
        "dicom_missing_slice",
        "IM003_6.dcm frame 2 at .* and IM003_6.dcm frame 3",
        one_enhanced(order=(0, 1, 3, 4)),
    ),
}
