"""DICOM: geometry from positions, HU from each slice's own rescale, and no slice out of place."""

from __future__ import annotations

import logging
import warnings
from itertools import permutations, product

import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from bad_dicom import BAD_DICOM
from dicom_series import (
    ORIGIN,
    SPACING,
    make_enhanced,
    make_slices,
    stored_voxels,
    write,
)
from highdicom import AlgorithmIdentificationSequence
from highdicom.seg import (
    SegmentAlgorithmTypeValues,
    Segmentation,
    SegmentationTypeValues,
    SegmentDescription,
)
from pydicom.encaps import encapsulate, get_frame
from pydicom.sr.codedict import codes
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEGLSLossless,
    RLELossless,
)

from fcnseg.codes import ACCEPTABLE, CODES, WARNINGS
from fcnseg.conversion.rejects import CaseError, opened
from fcnseg.errors import GeometryError, InputError, LabelError
from fcnseg.evaluation import pair_files, read_case
from fcnseg.volumes import (
    AIR_HU,
    Geometry,
    LabelMap,
    case_id_of,
    check_same_grid,
    list_series,
    list_volumes,
    read_ct,
    read_geometry,
    read_label,
    to_canonical,
    turn_like,
    write_mask,
)
from fcnseg.volumes.formats.dicom.headers import quiet

# Where rows, columns and the stack go: all 24 right-handed ways, as slices have them.
SIGNED_AXES = [
    np.eye(3)[list(order)] * np.array(signs)[:, np.newaxis]
    for order in permutations(range(3))
    for signs in product((1, -1), repeat=3)
]
SIGNED_AXES = [axes for axes in SIGNED_AXES if np.linalg.det(axes) > 0]


def tilt(degrees):
    """A rotation about the patient's x axis, as of a head that is not straight."""
    angle = np.deg2rad(degrees)
    return np.array(
        [[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]]
    )


@pytest.mark.parametrize("suffix", [".dcm", ""])
def test_a_series_is_a_volume(tmp_path, suffix):
    """Whatever the order of the file names, and with positions, not the thickness, as the step."""
    series = write(make_slices(), tmp_path / "case_7", suffix=suffix)
    (series / "LICENSE").write_text("passed over")
    (series / "DICOMDIR").write_bytes(b"\0" * 128 + b"DICM")
    volume = read_ct(series)
    np.testing.assert_array_equal(volume.array, stored_voxels())
    assert volume.array.dtype == np.int16
    assert volume.spacing == pytest.approx(SPACING)
    assert volume.orientation == "LPS"
    np.testing.assert_allclose(volume.affine[:3, 3], np.multiply(ORIGIN, (-1, -1, 1)))
    check_same_grid(volume, read_geometry(series))
    assert volume.findings == ()
    assert case_id_of(f"{series}/") == "case_7"
    assert list(list_volumes(tmp_path)) == ["case_7"]


@pytest.mark.parametrize("degrees", [0, 17])
def test_every_voxel_lies_where_its_slice_says(tmp_path, degrees):
    """The formula of the standard (C.7.6.2.1.1), for slices in any direction, and back again."""
    for number, axes in enumerate(SIGNED_AXES):
        slices = make_slices(stored_voxels((3, 4, 5)), axes=axes @ tilt(degrees))
        volume = read_ct(write(slices, tmp_path / f"series_{number}"))
        for made in slices:
            across, down = np.reshape(made.ImageOrientationPatient, (2, 3)).astype(float)
            row_step, column_step = made.PixelSpacing
            z = int(made.InstanceNumber) - 1
            for y, x in ((0, 0), (3, 0), (0, 4), (2, 1)):
                lps = np.array(made.ImagePositionPatient, float)
                lps += across * column_step * x + down * row_step * y
                np.testing.assert_allclose(
                    (volume.affine @ (x, y, z, 1))[:3], lps * (-1, -1, 1), atol=1e-3
                )
        np.testing.assert_array_equal(volume.array, stored_voxels((3, 4, 5)))
        assert to_canonical(volume).orientation == "RAS"


@pytest.mark.parametrize(
    ("dtype", "bits", "stored", "slope", "intercept", "expected"),
    [
        (np.uint16, 12, [0, 1024, 4095], 1, -1024, [-1024, 0, 3071]),
        (np.int16, 16, [-1024, 0, 3071], 1, 0, [-1024, 0, 3071]),
        (np.int16, 16, [-2, 0, 3], 2.5, 1, [-4, 1, 8]),  # 8.5 rounds to even
        (np.uint16, 16, [0, 1024, 65535], 1, -1024, [-1024, 0, 32767]),
    ],
)
def test_stored_numbers_become_hu(tmp_path, dtype, bits, stored, slope, intercept, expected):
    slices = make_slices(np.array([stored] * 2, dtype).reshape(2, 1, 3), bits=bits)
    for made in slices:
        made.RescaleSlope, made.RescaleIntercept = slope, intercept
    volume = read_ct(write(slices, tmp_path / "series"))
    assert volume.array.dtype == np.int16
    assert volume.array[1].ravel().tolist() == expected


def test_each_slice_has_its_own_rescale(tmp_path):
    slices = make_slices(np.full((3, 2, 2), 100, np.int16))
    slices[1].RescaleSlope, slices[1].RescaleIntercept = 2, -50
    volume = read_ct(write(slices, tmp_path / "series"))
    assert volume.array[:, 0, 0].tolist() == [100, 150, 100]


def test_bits_above_those_stored_are_no_part_of_a_value(tmp_path):
    """Old scanners kept overlays there."""
    stored = np.array([0, 1024, 4095] * 2, np.uint16).reshape(2, 1, 3)
    slices = make_slices(stored | 0x3000, bits=12)
    assert (read_ct(write(slices, tmp_path / "series")).array == stored).all()


@pytest.mark.parametrize(
    ("padding", "limit", "expected"),
    [
        (-2000, None, [AIR_HU, -1500, 0, 40]),
        (-2000, -1500, [AIR_HU, AIR_HU, 0, 40]),
        (63536, None, [AIR_HU, -1500, 0, 40]),  # -2000 written as an unsigned number
        (0, None, [-2000, -1500, 0, 40]),  # water too: taken for an error of the header
        (-2000, 4000, [-2000, -1500, 0, 40]),
        (None, None, [-2000, -1500, 0, 40]),
    ],
)
def test_padding_is_air(tmp_path, padding, limit, expected):
    slices = make_slices(np.array([-2000, -1500, 0, 40] * 2, np.int16).reshape(2, 2, 2))
    for made in slices:
        if padding is not None:
            made.add_new("PixelPaddingValue", "US" if padding > 0 else "SS", padding)
        if limit is not None:
            made.add_new("PixelPaddingRangeLimit", "SS", limit)
    assert read_ct(write(slices, tmp_path / "series")).array[0].ravel().tolist() == expected


ITK_SYNTAXES = {"JPEG lossless": "JPEG", "JPEG 2000": "JPEG2000"}  # and ITK's names


def compress_by_itk(made, syntax, scratch):
    """What pydicom alone does not write."""
    writer = sitk.ImageFileWriter()
    writer.SetImageIO("GDCMImageIO")
    writer.SetFileName(str(scratch))
    writer.SetUseCompression(True)
    writer.SetCompressor(ITK_SYNTAXES[syntax])
    writer.Execute(sitk.GetImageFromArray(made.pixel_array[np.newaxis]))
    written = pydicom.dcmread(scratch)
    assert syntax.lower() in written.file_meta.TransferSyntaxUID.name.lower()
    made.file_meta.TransferSyntaxUID = written.file_meta.TransferSyntaxUID
    made["PixelData"] = written["PixelData"]


@pytest.mark.parametrize("dtype", [np.int16, np.uint16])
@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless, *ITK_SYNTAXES], ids=str)
def test_compressed_slices_read_the_same(tmp_path, syntax, dtype):
    stored = (stored_voxels((3, 32, 40)) - (1000 if dtype == np.int16 else 0)).astype(dtype)
    slices = make_slices(stored)
    for made in slices:
        if syntax in ITK_SYNTAXES:
            compress_by_itk(made, syntax, tmp_path / "scratch.dcm")
        else:
            made.compress(syntax, generate_instance_uid=False)
    write(slices, tmp_path / "series")
    np.testing.assert_array_equal(read_ct(tmp_path / "series").array, stored)


def test_steps_that_the_scanner_rounded_are_even(tmp_path):
    """0.625 mm written to a tenth: 0.6, 0.7, 0.6 ..."""
    slices = make_slices(stored_voxels((9, 2, 2)))
    for z, made in enumerate(slices):
        made.ImagePositionPatient = [*ORIGIN[:2], round(ORIGIN[2] + 0.625 * z, 1)]
    assert read_geometry(write(slices, tmp_path / "series")).spacing[0] == pytest.approx(0.625)


def test_the_largest_series_is_taken_and_the_others_are_told(tmp_path):
    write(make_slices(stored_voxels((3, 4, 4)), series_uid="1.2.3.8"), tmp_path / "case/thick")
    write(make_slices(), tmp_path / "case/thin")
    write(
        make_slices(stored_voxels((9, 4, 4)), modality="MR", series_uid="1.2.9"), tmp_path / "case"
    )
    volume = read_ct(tmp_path / "case")
    assert volume.shape == (5, 6, 7)
    (finding,) = volume.findings
    assert finding.code == "dicom_series_chosen"
    assert finding.code in WARNINGS
    assert finding.reason == (
        "took series 1.2.3.5 ('Series 5', 5 slices), left series 1.2.3.8 ('Series 8', 3 slices)"
    )
    assert [(one.uid, len(one.slices)) for one in list_series(tmp_path / "case")] == [
        ("1.2.3.5", 5),
        ("1.2.3.8", 3),
    ]


def test_pictures_in_colour_do_not_hide_the_slices(tmp_path):
    """Of rendered views and dose reports, which are CT too, there may be more than slices."""
    pictures = [*make_slices(stored_voxels((9, 4, 4)), series_uid="1.2.3.9")]
    for made in pictures:
        made.SamplesPerPixel, made.PhotometricInterpretation = 3, "RGB"
        del made.ImagePositionPatient
    volume = read_ct(write([*make_slices(), *pictures], tmp_path / "case"))
    np.testing.assert_array_equal(volume.array, stored_voxels())
    with pytest.raises(InputError, match="colours") as caught:
        read_ct(tmp_path / "case", series_uid="1.2.3.9")
    assert caught.value.code == "not_scalar"


def test_broken_rle_refuses_its_case_alone(tmp_path):
    """pylibjpeg's decoder, where it is installed, would end the whole process."""
    slices = make_slices(stored_voxels((3, 32, 40)))
    for made in slices:
        made.compress(RLELossless, generate_instance_uid=False)
    series = write(slices, tmp_path / "series")
    content = bytearray((series / "IM010_5.dcm").read_bytes())
    rng = np.random.default_rng(0)
    for at in rng.integers(len(content) - 900, len(content), 400):
        content[at] = rng.integers(256)
    (series / "IM010_5.dcm").write_bytes(content)
    with pytest.raises(InputError, match="incomplete or corrupt volume: .*IM010_5.dcm"):
        read_ct(series)


def test_cut_jpeg_is_refused(tmp_path):
    """Of which libjpeg would make up the rest."""
    slices = make_slices(stored_voxels((3, 32, 40)))
    for made in slices:
        compress_by_itk(made, "JPEG lossless", tmp_path / "scratch.dcm")
    frame = get_frame(slices[1].PixelData, 0, number_of_frames=1)
    slices[1].PixelData = encapsulate([frame[:-50]])
    series = write(slices, tmp_path / "series")
    with pytest.raises(InputError, match="IM010_5.dcm: .* stream ends early"):
        read_ct(series)


def test_a_series_can_be_asked_for(tmp_path):
    write(make_slices(stored_voxels((3, 4, 4)), series_uid="1.2.3.8"), tmp_path / "case")
    write(make_slices(), tmp_path / "case")
    volume = read_ct(tmp_path / "case", series_uid="1.2.3.8")
    assert volume.shape == (3, 4, 4)
    assert volume.findings == ()
    assert read_geometry(tmp_path / "case", series_uid="1.2.3.8").shape == (3, 4, 4)
    with pytest.raises(InputError, match=r"no series 1\.2\.4 .* has series 1\.2\.3\.5") as caught:
        read_ct(tmp_path / "case", series_uid="1.2.4")
    assert caught.value.code == "dicom_no_series"
    (tmp_path / "ct.nii").touch()
    with pytest.raises(InputError, match="series_uid is for DICOM alone"):
        read_ct(tmp_path / "ct.nii", series_uid="1.2.4")


def test_localizers_are_left_out_and_told(tmp_path):
    scout = make_slices(stored_voxels((1, 30, 40)))[0]
    scout.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    scout.ImageOrientationPatient = [1, 0, 0, 0, 0, -1]
    scout.SOPInstanceUID = "1.2.3.5.99"
    volume = read_ct(write([*make_slices(), scout], tmp_path / "series"))
    np.testing.assert_array_equal(volume.array, stored_voxels())
    (finding,) = volume.findings
    assert (finding.code, finding.reason[:18]) == (
        "dicom_localizers_left_out",
        "left 1 localizers ",
    )
    assert finding.code in WARNINGS


@pytest.mark.parametrize("order", [(), (4, 2, 0, 1, 3)])
@pytest.mark.parametrize("name", ["ct.dcm", "ct"])
def test_a_multi_frame_object_is_a_volume(tmp_path, order, name):
    """Frames in any order, each with a rescale of its own: HU are 10 z less than stored."""
    make_enhanced(order=order).save_as(tmp_path / name, enforce_file_format=True)
    volume = read_ct(tmp_path / name)
    expected = stored_voxels() - 10 * np.arange(5).reshape(5, 1, 1)
    np.testing.assert_array_equal(volume.array, expected)
    check_same_grid(volume, read_ct(write(make_slices(), tmp_path / "series")))
    check_same_grid(volume, read_geometry(tmp_path / name))


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless], ids=str)
def test_a_compressed_multi_frame_object_reads_the_same(tmp_path, syntax):
    stored = stored_voxels((5, 32, 40))
    plain, packed = (make_enhanced(stored, order=(4, 2, 0, 1, 3)) for _ in range(2))
    packed.compress(syntax, generate_instance_uid=False)
    for name, made in (("plain.dcm", plain), ("packed.dcm", packed)):
        made.save_as(tmp_path / name, enforce_file_format=True)
    np.testing.assert_array_equal(
        read_ct(tmp_path / "packed.dcm").array, read_ct(tmp_path / "plain.dcm").array
    )


@pytest.mark.parametrize("name", BAD_DICOM)
def test_what_is_no_ct_volume_is_refused_by_name_and_code(tmp_path, name):
    bad = BAD_DICOM[name]
    path = bad.write(tmp_path)
    with pytest.raises(InputError, match=bad.reason) as caught:
        read_ct(path, case_id="liver_017")
    assert str(path) in str(caught.value)
    assert str(caught.value).endswith("(case liver_017)")
    assert "\n" not in str(caught.value)
    with pytest.raises(CaseError) as rejected, opened(str(path)) as local:
        read_ct(local)
    assert rejected.value.code == bad.code
    assert rejected.value.code in CODES


GEOMETRY_TOLD_BY_HEADERS = [name for name, bad in BAD_DICOM.items() if not name.startswith("cut")]


@pytest.mark.parametrize("name", GEOMETRY_TOLD_BY_HEADERS)
def test_the_headers_alone_tell(tmp_path, name):
    with pytest.raises(InputError, match=BAD_DICOM[name].reason):
        read_geometry(BAD_DICOM[name].write(tmp_path))


# -- one scan in a series

# Each: values of a keyword in the five slices from foot to head, and whether they are of one scan.
SCANS = {
    "one acquisition": ("AcquisitionNumber", "11111", True),
    "one after the other": ("AcquisitionNumber", "11222", True),
    "a number for each turn": ("AcquisitionNumber", "35142", True),
    "not told everywhere": ("AcquisitionNumber", "1 1 1", True),
    "interleaved acquisitions": ("AcquisitionNumber", "12121", False),
    "a slice of another acquisition": ("AcquisitionNumber", "11211", False),
    "interleaved kernels": ("ConvolutionKernel", "ABABA", False),
    "interleaved voltages": ("KVP", "18181", False),
    "interleaved events": ("IrradiationEventUID", "12121", False),
    "two patients": ("PatientID", "11122", False),
    "two studies": ("StudyInstanceUID", "11122", False),
    "two frames of reference": ("FrameOfReferenceUID", "11122", False),
    "frames of reference that are not told everywhere": ("FrameOfReferenceUID", "11  1", True),
}


@pytest.mark.parametrize("name", SCANS)
def test_several_scans_in_one_series_are_told(tmp_path, name):
    keyword, values, is_one = SCANS[name]
    slices = make_slices()
    for made, value in zip(slices, values, strict=True):
        setattr(made, keyword, value.strip() or None)
    volume = read_ct(write(slices, tmp_path / "series"))
    np.testing.assert_array_equal(volume.array, stored_voxels())
    codes = [finding.code for finding in volume.findings]
    assert codes == ([] if is_one else ["dicom_mixed_scans"])
    assert set(codes) <= set(ACCEPTABLE)
    assert is_one or f"one {keyword}" in volume.findings[0].reason


FRAME_SCANS = {  # group, its keyword, type of the value
    "AcquisitionNumber": ("FrameContentSequence", "FrameAcquisitionNumber", int),
    "StackID": ("FrameContentSequence", "StackID", str),
    "ConvolutionKernel": ("CTReconstructionSequence", "ConvolutionKernel", str),
}


@pytest.mark.parametrize("keyword", FRAME_SCANS)
@pytest.mark.parametrize(("values", "is_one"), [("11222", True), ("12121", False)])
def test_several_scans_in_one_multi_frame_object_are_told(tmp_path, keyword, values, is_one):
    group, inner, kind = FRAME_SCANS[keyword]
    made = make_enhanced()
    for frame, value in zip(made.PerFrameFunctionalGroupsSequence, values, strict=True):
        item = pydicom.Dataset()
        setattr(item, inner, kind(value))
        setattr(frame, group, [item])
    findings = read_ct(write([made], tmp_path / "series")).findings
    assert [finding.code for finding in findings] == ([] if is_one else ["dicom_mixed_scans"])
    assert is_one or "frame 2" in findings[0].reason


def test_stored_numbers_are_hu_where_no_slice_tells_a_rescale(tmp_path):
    slices = make_slices()
    for made in slices:
        del made.RescaleSlope, made.RescaleIntercept
    np.testing.assert_array_equal(
        read_ct(write(slices, tmp_path / "series")).array, stored_voxels()
    )


# -- files of a folder


def test_other_files_are_passed_over_or_told(tmp_path):
    series = write(make_slices(), tmp_path / "series")
    for name, content in {
        "LICENSE": b"text",
        "notes.txt": "größe".encode("latin-1"),
        "DICOMDIR": b"\0" * 128 + b"DICM",
        ".hidden": bytes(99),
        ".git/annex/IM000_5.dcm": (series / "IM003_5.dcm").read_bytes(),
    }.items():
        (series / name).parent.mkdir(parents=True, exist_ok=True)
        (series / name).write_bytes(content)
    assert read_ct(series).findings == ()
    (series / "viewer.exe").write_bytes(b"MZ\0\0")
    (series / "IM017_5.dcm.gz").write_bytes(b"\x1f\x8b\0")
    (series / "README.md").symlink_to("../nothing")
    volume = read_ct(series)
    np.testing.assert_array_equal(volume.array, stored_voxels())
    (finding,) = volume.findings
    assert finding.code == "dicom_files_left_out"
    assert finding.code in WARNINGS
    assert finding.reason == (
        f"left files that are not DICOM out of {series}: IM017_5.dcm.gz, README.md, viewer.exe"
    )


def test_links_to_folders_and_files_are_followed(tmp_path):
    """Also where they lead in a circle, and no file counts twice."""
    slices = make_slices()
    write(slices[:2], tmp_path / "series/here")
    write(slices[2:], tmp_path / "elsewhere")
    (tmp_path / "series/there").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "series/there too").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "series/here/up").symlink_to(tmp_path / "series")
    np.testing.assert_array_equal(read_ct(tmp_path / "series").array, stored_voxels())


@pytest.mark.parametrize("name", ["IM001", "IM001.dcm", "1.2.840.99"])
def test_a_folder_of_slices_that_are_lost_is_a_case(tmp_path, name):
    """It is rejected by its name, and not passed over."""
    (tmp_path / "case_7").mkdir()
    (tmp_path / "case_7" / name).symlink_to("../nothing")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes/LICENSE").write_text("no case")
    assert list(list_volumes(tmp_path)) == ["case_7"]
    with pytest.raises(InputError, match="a link to nothing"):
        read_ct(tmp_path / "case_7")


def test_a_file_that_may_not_be_opened_refuses_its_folder(tmp_path, monkeypatch):
    series = write(make_slices(), tmp_path / "series")

    def locked(path, mode):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("fcnseg.volumes.formats.dicom.files.open", locked, raising=False)
    with pytest.raises(InputError, match="cannot read .*IM003_5.dcm.* Permission denied"):
        read_ct(series)


@pytest.mark.parametrize(
    "syntax",
    [DeflatedExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian],
    ids=str,
)
def test_the_order_of_bytes_does_not_matter(tmp_path, syntax):
    slices, frames = make_slices(), make_enhanced()
    for made in (*slices, frames):
        made.file_meta.TransferSyntaxUID = syntax
        if syntax == ExplicitVRBigEndian:
            made["PixelData"].value = np.frombuffer(made.PixelData, "<i2").astype(">i2").tobytes()
    np.testing.assert_array_equal(
        read_ct(write(slices, tmp_path / "series")).array, stored_voxels()
    )
    expected = stored_voxels() - 10 * np.arange(5).reshape(5, 1, 1)
    np.testing.assert_array_equal(read_ct(write([frames], tmp_path / "frames")).array, expected)


# -- segmentation objects


def describe(number, label):
    return SegmentDescription(
        segment_number=number,
        segment_label=label,
        segmented_property_category=codes.SCT.Organ,
        segmented_property_type=codes.SCT.Liver,
        algorithm_type=SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=AlgorithmIdentificationSequence(
            name="made", version="1", family=codes.DCM.ArtificialIntelligence
        ),
    )


def write_segmentation(path, slices, mask, *, kind=SegmentationTypeValues.BINARY):
    """Segments by highdicom, which leaves out slices where there is none."""
    for made in slices:
        made.PatientName, made.PatientBirthDate, made.PatientSex = "A^B", "", ""
        made.StudyDate, made.StudyTime, made.StudyID = "20200101", "000000", "1"
        made.AccessionNumber, made.ReferringPhysicianName, made.SeriesNumber = "1", "", 1
    count = mask.shape[-1] if mask.ndim == 4 else int(mask.max())
    Segmentation(
        source_images=slices,
        pixel_array=mask,
        segmentation_type=kind,
        segment_descriptions=[describe(number + 1, f"organ {number}") for number in range(count)],
        series_instance_uid="1.2.3.77",
        series_number=2,
        sop_instance_uid="1.2.3.77.1",
        instance_number=1,
        manufacturer="made",
        manufacturer_model_name="made",
        software_versions="1",
        device_serial_number="1",
    ).save_as(path)
    return path


def segments():
    """Two organs on the middle slices; the first and the last are empty."""
    mask = np.zeros((5, 6, 7), np.uint8)
    mask[1:3, 1:3, 2:5] = 1
    mask[3, 4, 0:2] = 2
    return mask


def test_a_segmentation_is_completed_to_the_grid_of_its_image(tmp_path):
    slices = make_slices()
    image = read_ct(write(slices, tmp_path / "image"))
    path = write_segmentation(tmp_path / "seg.dcm", slices, segments())
    assert read_label(path).shape == (3, 6, 7)
    assert read_geometry(path).shape == (3, 6, 7)
    label = read_label(path, like=image.geometry)
    np.testing.assert_array_equal(label.array, segments())
    check_same_grid(image, label)
    check_same_grid(image, read_geometry(path, like=image.geometry))


def all_axis_orders(geometry):
    """The same voxels in each of the 48 orders in which axes may be stored."""
    empty = nib.Nifti1Image(np.zeros(geometry.shape[::-1], np.uint8), geometry.affine)
    for order in permutations(range(3)):
        for signs in product((1, -1), repeat=3):
            turned = empty.as_reoriented(np.column_stack([order, signs]))
            yield Geometry(turned.shape[::-1], turned.affine)


def test_a_segmentation_is_completed_to_an_image_in_any_order_of_axes(tmp_path):
    """As of dcm2niix's NIfTI of the series that it was drawn on."""
    slices = make_slices()
    image = read_ct(write(slices, tmp_path / "image"))
    path = write_segmentation(tmp_path / "seg.dcm", slices, segments())
    for like in all_axis_orders(image.geometry):
        label = read_label(path, like=like)
        check_same_grid(like, label)
        check_same_grid(like, read_geometry(path, like=like))
        back = turn_like(label, image)
        check_same_grid(image, back)
        np.testing.assert_array_equal(back.array, segments())


def test_a_segmentation_in_another_frame_of_reference_is_told(tmp_path):
    slices = make_slices()
    path = write_segmentation(tmp_path / "seg.dcm", slices, segments())
    image = read_ct(write(slices, tmp_path / "image"))
    assert read_label(path, like=image.geometry).findings == ()
    for made in slices:
        made.FrameOfReferenceUID = "1.2.3.99"
    image = read_ct(write(slices, tmp_path / "image"))
    label = read_label(path, like=image.geometry)
    np.testing.assert_array_equal(label.array, segments())
    (finding,) = label.findings
    assert finding.code == "dicom_other_frame_of_reference"
    assert finding.code in WARNINGS
    assert finding.reason.startswith("FrameOfReferenceUID is 1.2.3.99 in the image and 1.2.3.4 in")


def test_an_evaluation_takes_a_segmentation_that_leaves_out_empty_slices(tmp_path):
    slices = make_slices()
    image = read_ct(write(slices, tmp_path / "image"))
    for folder in ("labels", "masks"):
        (tmp_path / folder).mkdir()
    write_segmentation(tmp_path / "labels/a.dcm", slices, segments())
    write_mask(segments(), tmp_path / "masks/a.nii.gz", like=image)
    (files,) = pair_files(tmp_path / "masks", tmp_path / "labels")
    case = read_case(files, LabelMap({"background": (0,), "one": (1,), "two": (2,)}))
    np.testing.assert_array_equal(case.reference.array, segments())
    np.testing.assert_array_equal(case.mask.array, segments())


def test_a_segmentation_of_another_grid_stays_as_it_is(tmp_path):
    slices = make_slices()
    path = write_segmentation(tmp_path / "seg.dcm", slices, segments())
    for made in slices:
        made.ImagePositionPatient = np.add(made.ImagePositionPatient, (0.35, 0, 0)).tolist()
    image = read_geometry(write(slices, tmp_path / "image"))
    with pytest.raises(GeometryError, match=r"got \(5, 6, 7\) and \(3, 6, 7\)"):
        check_same_grid(image, read_label(path, like=image))


def test_a_segmentation_in_a_folder_is_a_label(tmp_path):
    (tmp_path / "seg").mkdir()
    write_segmentation(tmp_path / "seg/label", make_slices(), segments())
    assert np.unique(read_label(tmp_path / "seg").array).tolist() == [0, 1, 2]
    assert read_geometry(tmp_path / "seg").shape == (3, 6, 7)


def test_overlapping_segments_are_refused(tmp_path):
    mask = np.zeros((5, 6, 7, 2), np.uint8)
    mask[1:4, 2:4, 2:4] = 1
    path = write_segmentation(tmp_path / "seg.dcm", make_slices(), mask)
    with pytest.raises(LabelError, match="must not overlap") as caught:
        read_label(path)
    assert caught.value.code == "segments_overlap"


def test_fractional_segments_are_refused(tmp_path):
    mask = segments().astype(np.float32).clip(0, 0.5)
    mask[0, 0, 0] = 1
    kind = SegmentationTypeValues.FRACTIONAL
    path = write_segmentation(tmp_path / "seg.dcm", make_slices(), mask, kind=kind)
    with pytest.raises(LabelError, match="labels must be integral"):
        read_label(path)


def other_number(made):
    made.SegmentSequence[1].SegmentNumber = 7


def fewer_rows(made):
    made.Rows -= 2


def no_frames(made):
    made.NumberOfFrames = None


def columns_of_no_number(made):
    made["Columns"] = pydicom.DataElement("Columns", "FD", float("nan"))


BAD_SEGMENTATIONS = {
    "frames of a segment that is not described": (
        other_number,
        "a frame is of segment 2, but SegmentSequence describes 1, 7",
    ),
    "more pixels than the header tells": (fewer_rows, "but there are"),
    "no number of frames": (no_frames, "incomplete or corrupt segmentation"),
    "columns of no number": (columns_of_no_number, "incomplete or corrupt segmentation"),
}


@pytest.mark.parametrize("name", BAD_SEGMENTATIONS)
def test_a_broken_segmentation_is_refused_in_one_line(tmp_path, capfd, name):
    """And never taken without some of its frames."""
    spoil, reason = BAD_SEGMENTATIONS[name]
    path = write_segmentation(tmp_path / "seg.dcm", make_slices(), segments())
    made = pydicom.dcmread(path)
    spoil(made)
    made.save_as(path)
    for read in (read_geometry, read_label):
        with pytest.raises(InputError, match=reason) as caught:
            read(path)
        assert "\n" not in str(caught.value)
    assert "File" not in capfd.readouterr().err


def test_images_are_no_label(tmp_path):
    series = write(make_slices(), tmp_path / "series")
    with pytest.raises(InputError, match="must be one segmentation object.* 0 of them") as caught:
        read_label(series)
    assert caught.value.code == "dicom_not_seg"


# -- real scans


@pytest.mark.real_data
def test_real_series_and_its_labels_of_three_formats(real_data):
    folder = real_data / "ct_3slice_dicom"
    image = read_ct(folder / "ct")
    assert image.shape == (3, 512, 512)
    assert image.spacing == pytest.approx((1, 0.810547, 0.810547))  # SliceThickness says 1.25
    assert image.array.min() == AIR_HU, "the padding of -2000 is air"
    labels = {}
    for name in ("liver_seg.nrrd", "liver_spine_gapped_seg.nrrd", "liver.dcm"):
        label = labels[name] = read_label(folder / name, like=image.geometry)
        check_same_grid(image, label)
        check_same_grid(image, read_geometry(folder / name))
        assert 20 < image.array[label.array == 1].mean() < 80, "unenhanced liver"
    gapped = labels["liver_spine_gapped_seg.nrrd"].array
    assert np.unique(gapped).tolist() == [0, 1, 5]
    assert image.array[gapped == 5].mean() > 200, "bone"
    np.testing.assert_array_equal(labels["liver.dcm"].array, labels["liver_seg.nrrd"].array)


@pytest.mark.real_data
def test_real_multi_frame_reads_as_its_series(real_data):
    folder = real_data / "enhanced_multiframe_ct"
    series, frames = read_ct(folder / "image"), read_ct(folder / "multiframe/mf.dcm")
    np.testing.assert_array_equal(frames.array, series.array)
    np.testing.assert_array_equal(frames.affine, series.affine)
    check_same_grid(series, read_label(folder / "nrrd/label.nrrd"))


@pytest.mark.real_data
def test_a_mask_of_a_real_series_lies_on_its_grid(real_data, tmp_path):
    image = read_ct(real_data / "ct_3slice_dicom/ct")
    write_mask((image.array > 100).astype(np.uint8), tmp_path / "mask.nii.gz", like=image)
    mask = read_label(tmp_path / "mask.nii.gz")
    check_same_grid(image, mask, tolerance_mm=1e-3)
    np.testing.assert_array_equal(mask.array, image.array > 100)


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("folder", "code", "reason"),
    [
        ("dicom_gantry_tilt", "dicom_gantry_tilt", "gantry tilt of 14.0 degrees"),
        ("dicom_missing_slice", "dicom_missing_slice", "IM-0001-0009-0001.dcm at 28.11 mm"),
        (
            "dicom_hole",
            "dicom_missing_slice",
            "161 must have been here: 7106 at -99.48 mm and 7136",
        ),
    ],
)
def test_real_series_with_faults_are_refused_by_name(real_data, folder, code, reason):
    for read in (read_geometry, read_ct):
        with pytest.raises(GeometryError, match=reason) as caught:
            read(real_data / folder)
        assert caught.value.code == code


# -- in an object store


@pytest.mark.parametrize("name", ["ct.dcm", "ct", "folder/ct.dcm", "folder/ct"])
def test_a_long_header_is_read_from_a_store(tmp_path, objects, name):
    """A multi-frame object tells of each frame in its header, which may take megabytes."""
    long = make_enhanced()
    long.add_new(0x00091010, "OB", bytes(2**20))  # before all that tells of the grid
    long.save_as(tmp_path / "ct", enforce_file_format=True)
    (root, *_) = name.split("/")
    objects[f"memory://scans/{name}"] = (tmp_path / "ct").read_bytes()
    with opened(f"memory://scans/{root}", header_only=True) as path:
        geometry = read_geometry(path)
    check_same_grid(geometry, read_geometry(tmp_path / "ct"))


def test_silence_of_two_threads_ends_with_the_last_of_them():
    """The first to come in leaves before the second."""
    logger = logging.getLogger("highdicom")
    before = (list(warnings.filters), logger.level)
    first, second = quiet(), quiet()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert (warnings.filters[0][0], logger.level) == ("ignore", logging.ERROR)
    second.__exit__(None, None, None)
    assert (list(warnings.filters), logger.level) == before
