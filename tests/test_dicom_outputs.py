"""Masks as DICOM Segmentation and RT Structure Set: each voxel where the image has it.

What is written is read by pydicom alone, and compared in millimetres with the NIfTI mask of the
same case as SimpleITK reads it.
"""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import permutations, product

import highdicom
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from dicom_series import make_enhanced, make_slices, stored_voxels, write
from polygons import fill
from pydicom.uid import JPEGLSLossless, RLELossless
from scipy import ndimage

from fcnseg.errors import GeometryError, InputError, MissingExtraError
from fcnseg.evaluation.class_names import segments_of
from fcnseg.figures.palette import organ_rgb
from fcnseg.volumes import (
    DicomOutputs,
    check_same_grid,
    read_ct,
    read_dicom_source,
    read_label,
    write_dicom_seg,
    write_mask,
    write_rtstruct,
)

NAMES = ("background", "liver", "left kidney", "liver tumor", "Größe \\ 7")
SEGMENTS = segments_of(NAMES)
SHAPE = (5, 9, 11)
MADE_WITH = {"networks_sha256": ["abc"], "flips": []}

# Where rows, columns and the stack go; half of them with the stack against the normal.
ALL_AXES = [
    np.eye(3)[list(order)] * np.array(signs)[:, np.newaxis]
    for order in permutations(range(3))
    for signs in product((1, -1), repeat=3)
]


def rotation(degrees, axis):
    """A rotation about one of the patient's axes."""
    angle = np.deg2rad(degrees)
    turned = np.eye(3)
    i, j = [other for other in range(3) if other != axis]
    turned[i, i] = turned[j, j] = np.cos(angle)
    turned[i, j], turned[j, i] = -np.sin(angle), np.sin(angle)
    return turned


def make_mask(shape=SHAPE, seed=0):
    """Classes in blots with holes and several parts; the last class and the first slice empty."""
    rng = np.random.default_rng(seed)
    mask = rng.integers(0, 4, shape).astype(np.uint8)
    mask[2, 1:8, 1:10], mask[2, 3:6, 3:6], mask[2, 4, 4] = 1, 0, 1
    mask[0] = 0
    return mask


def write_all(image, folder, mask, **read):
    """The mask in three formats."""
    folder.mkdir(exist_ok=True)
    outputs = DicomOutputs(folder / "a.seg.dcm", folder / "a.rtstruct.dcm")
    source = outputs.read_source(image)
    outputs.write(mask, source=source, segments=SEGMENTS, made_with=MADE_WITH)
    write_mask(mask, folder / "a.nii.gz", like=read_ct(image))
    return outputs


class Grid:
    """The grid of a NIfTI mask as ITK reads it, in DICOM's LPS millimetres."""

    def __init__(self, path):
        image = sitk.ReadImage(str(path))
        self.array = sitk.GetArrayFromImage(image)
        self.origin = np.array(image.GetOrigin())
        self.axes = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()

    def index_of(self, lps):
        """Indices (n, 3) as x, y, z, not rounded."""
        return np.linalg.solve(self.axes, (np.asarray(lps) - self.origin).T).T


def voxels_of_seg(path, grid):
    """The mask of a segmentation, by the positions of its pixels."""
    made = pydicom.dcmread(path)
    (shared,) = made.SharedFunctionalGroupsSequence
    row_step, column_step = shared.PixelMeasuresSequence[0].PixelSpacing
    orientation = shared.PlaneOrientationSequence[0].ImageOrientationPatient
    across, down = np.reshape(orientation, (2, 3)).astype(float)
    frames = made.pixel_array.reshape(-1, made.Rows, made.Columns)
    found = np.zeros_like(grid.array)
    for frame, groups in zip(frames, made.PerFrameFunctionalGroupsSequence, strict=True):
        (position,) = groups.PlanePositionSequence
        (segment,) = groups.SegmentIdentificationSequence
        y, x = np.nonzero(frame)
        lps = np.array(position.ImagePositionPatient, float) + np.outer(x * column_step, across)
        index = grid.index_of(lps + np.outer(y * row_step, down))
        np.testing.assert_allclose(index, np.rint(index), atol=1e-3)
        places = tuple(np.rint(index).astype(int).T[::-1])
        assert not found[places].any(), "no voxel is in two segments"
        found[places] = segment.ReferencedSegmentNumber
    return found


def voxels_of_rtstruct(path, grid):
    """The mask of a structure set, by the centres of voxels in its contours."""
    made = pydicom.dcmread(path)
    found = np.zeros_like(grid.array)
    for roi in made.ROIContourSequence:
        for contour in roi.get("ContourSequence") or ():
            assert contour.ContourGeometricType == "CLOSED_PLANAR"
            points = grid.index_of(np.reshape(contour.ContourData, (-1, 3)).astype(float))
            assert len(points) == contour.NumberOfContourPoints
            z = round(points[0, 2])
            np.testing.assert_allclose(points[:, 2], z, atol=1e-3)
            even_odd, nonzero = fill(points[:, :2], grid.array.shape[1:])
            np.testing.assert_array_equal(even_odd, nonzero)
            found[z][even_odd] = roi.ReferencedROINumber
    return found


def check_all(image, folder, mask):
    """That the three formats have each voxel in one place, and that it is the image's."""
    outputs, grid = write_all(image, folder, mask), Grid(folder / "a.nii.gz")
    np.testing.assert_array_equal(grid.array, mask)
    np.testing.assert_array_equal(voxels_of_seg(outputs.seg, grid), mask)
    np.testing.assert_array_equal(voxels_of_rtstruct(outputs.rtstruct, grid), mask)
    volume = read_ct(image)
    label = read_label(outputs.seg, like=volume.geometry)
    check_same_grid(volume, label, tolerance_mm=1e-3)
    np.testing.assert_array_equal(label.array, mask)
    assert label.findings == ()
    return outputs


# Each: the directions that are rotated, and the rotation.
ORIENTATIONS = {
    "along the normal": ([axes for axes in ALL_AXES if np.linalg.det(axes) > 0], np.eye(3)),
    "against the normal": ([axes for axes in ALL_AXES if np.linalg.det(axes) < 0], np.eye(3)),
    "tilted": (ALL_AXES[::3], rotation(17, 0)),
    "oblique": (ALL_AXES[1::3], rotation(17, 0) @ rotation(-11, 1) @ rotation(35, 2)),
}


@pytest.mark.parametrize("name", ORIENTATIONS)
def test_each_voxel_lies_where_the_image_has_it(tmp_path, name):
    """For all directions of rows, columns and slices, and the stack along or against the normal."""
    directions, turned = ORIENTATIONS[name]
    for number, axes in enumerate(directions):
        slices = make_slices(stored_voxels(SHAPE), axes=axes @ turned)
        image = write(slices, tmp_path / f"image_{number}")
        check_all(image, tmp_path / f"masks_{number}", make_mask(seed=number))


@pytest.mark.parametrize("syntax", [JPEGLSLossless, RLELossless], ids=str)
def test_images_may_be_compressed(tmp_path, syntax):
    slices = make_slices(stored_voxels(SHAPE))
    for made in slices:
        made.compress(syntax, generate_instance_uid=False)
    check_all(write(slices, tmp_path / "image"), tmp_path / "masks", make_mask())


@pytest.mark.parametrize("order", [(), (4, 2, 0, 1, 3)])
def test_image_may_be_a_multi_frame_object(tmp_path, order):
    image = write([make_enhanced(stored_voxels(SHAPE), order=order)], tmp_path / "image")
    outputs = check_all(image, tmp_path / "masks", make_mask())
    at = [(list(order) or list(range(5))).index(z) + 1 for z in range(5)]  # frame of each slice
    made = pydicom.dcmread(outputs.seg)
    for groups in made.PerFrameFunctionalGroupsSequence:
        z = (groups.PlanePositionSequence[0].ImagePositionPatient[2] - 112) / 2.5
        (source,) = groups.DerivationImageSequence[0].SourceImageSequence
        assert source.ReferencedSOPInstanceUID == "1.2.3.6.1"
        assert source.ReferencedFrameNumber == at[round(z)]
    for roi in pydicom.dcmread(outputs.rtstruct).ROIContourSequence:
        for contour in roi.ContourSequence:
            (source,) = contour.ContourImageSequence
            assert source.ReferencedFrameNumber == at[round((contour.ContourData[2] - 112) / 2.5)]


def test_frames_of_an_object_may_have_an_orientation_each(tmp_path):
    enhanced = make_enhanced(stored_voxels(SHAPE))
    (shared,) = enhanced.SharedFunctionalGroupsSequence
    for frame in enhanced.PerFrameFunctionalGroupsSequence:
        frame.PlaneOrientationSequence = shared.PlaneOrientationSequence
        frame.PixelMeasuresSequence = shared.PixelMeasuresSequence
    del enhanced.SharedFunctionalGroupsSequence
    check_all(write([enhanced], tmp_path / "image"), tmp_path / "masks", make_mask())


def test_several_multi_frame_objects_are_refused_for_a_segmentation(tmp_path):
    parts = [make_enhanced(stored_voxels(SHAPE), order=order) for order in ((0, 1), (2, 3, 4))]
    for number, made in enumerate(parts):
        made.SOPInstanceUID = made.file_meta.MediaStorageSOPInstanceUID = f"1.2.3.6.{number + 1}"
        made.save_as(tmp_path / f"{number}.dcm", enforce_file_format=True)
    with pytest.raises(InputError, match="of one multi-frame object.* got 2 objects of 5 frames"):
        DicomOutputs(seg=tmp_path / "out/a.seg.dcm").read_source(tmp_path)
    source = DicomOutputs(rtstruct=tmp_path / "a.rtstruct.dcm").read_source(tmp_path)
    assert source.shape == SHAPE


def test_steps_that_the_scanner_rounded_stay(tmp_path):
    """A tenth of a millimetre off an even grid, as the grid of the NIfTI mask cannot be."""
    slices = make_slices(stored_voxels((9, 9, 11)))
    for z, made in enumerate(slices):
        made.ImagePositionPatient = [-31.5, 20.25, round(112 + 0.625 * z, 1)]
    image = write(slices, tmp_path / "image")
    mask = make_mask((9, 9, 11))
    outputs = write_all(image, tmp_path / "masks", mask)
    heights = {made.SOPInstanceUID: made.ImagePositionPatient[2] for made in slices}
    for groups in pydicom.dcmread(outputs.seg).PerFrameFunctionalGroupsSequence:
        (source,) = groups.DerivationImageSequence[0].SourceImageSequence
        height = groups.PlanePositionSequence[0].ImagePositionPatient[2]
        assert height == heights[source.ReferencedSOPInstanceUID]
    for roi in pydicom.dcmread(outputs.rtstruct).ROIContourSequence:
        for contour in roi.ContourSequence:
            (source,) = contour.ContourImageSequence
            assert {*contour.ContourData[2::3]} == {heights[source.ReferencedSOPInstanceUID]}


def test_cosines_may_differ_by_rounding(tmp_path):
    slices = make_slices(stored_voxels(SHAPE))
    slices[3].ImageOrientationPatient = [1, 0.0004, 0, -0.0004, 1, 0]
    check_all(write(slices, tmp_path / "image"), tmp_path / "masks", make_mask())


def with_patient():
    slices = make_slices(stored_voxels(SHAPE))
    for made in slices:
        made.SpecificCharacterSet = "ISO_IR 100"
        made.PatientName, made.PatientBirthDate, made.PatientSex = "Müller^Anna", "19610203", "F"
        made.StudyDate, made.StudyTime, made.StudyID = "20200101", "101112", "77"
        made.AccessionNumber, made.ReferringPhysicianName = "A1", "Dr^B"
        made.Manufacturer = "maker of scanners"
    return slices


@pytest.fixture
def written(tmp_path):
    image = write(with_patient(), tmp_path / "image")
    outputs = write_all(image, tmp_path / "masks", make_mask())
    return pydicom.dcmread(outputs.seg), pydicom.dcmread(outputs.rtstruct)


def test_patient_study_and_frame_of_reference_are_the_images(written):
    first = with_patient()[0]
    for made in written:
        for keyword in (
            *("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyInstanceUID"),
            *("StudyDate", "StudyTime", "StudyID", "AccessionNumber", "ReferringPhysicianName"),
            "FrameOfReferenceUID",
        ):
            assert made[keyword].value == first[keyword].value, keyword
        assert made.SeriesInstanceUID != first.SeriesInstanceUID
        assert made.Manufacturer == "fcnseg"
    assert len({made.SOPInstanceUID for made in written}) == 2


def test_segments_are_described(written):
    made, _ = written
    assert made.SegmentationType == "BINARY"
    assert [segment.SegmentNumber for segment in made.SegmentSequence] == [1, 2, 3, 4]
    assert [segment.SegmentLabel for segment in made.SegmentSequence] == [
        *("liver", "left kidney", "liver tumor", "Größe / 7")
    ]
    codes = [
        (segment.SegmentedPropertyTypeCodeSequence[0].CodeValue) for segment in made.SegmentSequence
    ]
    assert codes == ["10200004", "64033007", "108369006", "85756007"]
    _, kidney, tumor, _ = made.SegmentSequence
    (kind,) = kidney.SegmentedPropertyTypeCodeSequence
    assert kind.SegmentedPropertyTypeModifierCodeSequence[0].CodeMeaning == "Left"
    assert tumor.AnatomicRegionSequence[0].CodeMeaning == "Liver"
    for number, segment in enumerate(made.SegmentSequence, start=1):
        assert segment.SegmentAlgorithmType == "AUTOMATIC"
        assert segment.SegmentAlgorithmName == "fcnseg"
        (algorithm,) = segment.SegmentationAlgorithmIdentificationSequence
        assert json.loads(algorithm.AlgorithmParameters.removeprefix("made_with=")) == MADE_WITH
        colour = highdicom.color.CIELabColor.from_dicom_value(segment.RecommendedDisplayCIELabValue)
        np.testing.assert_allclose(colour.to_rgb(clip=True), organ_rgb(number), atol=1)


def test_segmentation_refers_to_its_images(written):
    made, _ = written
    (series,) = made.ReferencedSeriesSequence
    assert series.SeriesInstanceUID == "1.2.3.5"
    referenced = [one.ReferencedSOPInstanceUID for one in series.ReferencedInstanceSequence]
    assert referenced == [f"1.2.3.5.{z + 1}" for z in range(5)]
    for groups in made.PerFrameFunctionalGroupsSequence:
        (source,) = groups.DerivationImageSequence[0].SourceImageSequence
        z = (groups.PlanePositionSequence[0].ImagePositionPatient[2] - 112) / 2.5
        assert source.ReferencedSOPInstanceUID == f"1.2.3.5.{round(z) + 1}"


def test_regions_of_interest_are_described(written):
    _, made = written
    assert [roi.ROINumber for roi in made.StructureSetROISequence] == [1, 2, 3]  # 4 is not found
    assert [roi.ROIName for roi in made.StructureSetROISequence] == [*NAMES[1:4]]
    for number, (roi, contours, seen) in enumerate(
        zip(
            made.StructureSetROISequence,
            made.ROIContourSequence,
            made.RTROIObservationsSequence,
            strict=True,
        ),
        start=1,
    ):
        assert roi.ReferencedFrameOfReferenceUID == "1.2.3.4"
        assert roi.ROIGenerationAlgorithm == "AUTOMATIC"
        (algorithm,) = roi.ROIDerivationAlgorithmIdentificationSequence
        assert json.loads(algorithm.AlgorithmParameters.removeprefix("made_with=")) == MADE_WITH
        assert contours.ReferencedROINumber == seen.ReferencedROINumber == number
        assert tuple(contours.ROIDisplayColor) == organ_rgb(number)
        for contour in contours.ContourSequence:
            (source,) = contour.ContourImageSequence
            z = round((contour.ContourData[2] - 112) / 2.5)
            assert source.ReferencedSOPInstanceUID == f"1.2.3.5.{z + 1}"
            assert "ReferencedFrameNumber" not in source
    kinds = [one.RTROIInterpretedType for one in made.RTROIObservationsSequence]
    assert kinds == ["ORGAN", "ORGAN", ""]
    (frame,) = made.ReferencedFrameOfReferenceSequence
    (study,) = frame.RTReferencedStudySequence
    (series,) = study.RTReferencedSeriesSequence
    assert len(series.ContourImageSequence) == 5


@pytest.mark.parametrize("step", [0.625, 1.25, 2.3])
def test_segmentation_of_rounded_steps_is_read_back(tmp_path, step):
    """Whichever slices it begins and ends at."""
    slices = make_slices(stored_voxels((41, 9, 11)))
    for z, made in enumerate(slices):
        made.ImagePositionPatient = [-31.5, 20.25, round(112 + step * z, 1)]
    image = write(slices, tmp_path / "image")
    geometry, source = read_ct(image).geometry, read_dicom_source(image)
    for first in range(8):
        mask = make_mask((41, 9, 11))
        mask[:first], mask[40 - 2 * first :] = 0, 0
        write_dicom_seg(
            mask, tmp_path / "a.seg.dcm", source=source, segments=SEGMENTS, made_with={}
        )
        label = read_label(tmp_path / "a.seg.dcm", like=geometry)
        check_same_grid(geometry, label, tolerance_mm=0.1)
        np.testing.assert_array_equal(label.array, mask)


@pytest.mark.parametrize("kind", ["series", "frames"])
def test_mask_without_organs_is_written_too(tmp_path, kind, caplog):
    """And in silence: highdicom logs each step that it takes."""
    caplog.set_level("INFO")
    slices = make_slices(stored_voxels(SHAPE))
    enhanced = [make_enhanced(stored_voxels(SHAPE))]
    image = write(slices if kind == "series" else enhanced, tmp_path / "image")
    outputs = check_all(image, tmp_path / "masks", np.zeros(SHAPE, np.uint8))
    assert caplog.text == ""
    made = pydicom.dcmread(outputs.seg)
    assert len(made.SegmentSequence) == 4
    (series,) = made.ReferencedSeriesSequence
    assert len(series.ReferencedInstanceSequence) == (5 if kind == "series" else 1)
    made = pydicom.dcmread(outputs.rtstruct)
    assert len(made.StructureSetROISequence) == len(made.ROIContourSequence) == 4


def test_masks_of_16_bits_are_written(tmp_path):
    image = write(make_slices(stored_voxels(SHAPE)), tmp_path / "image")
    check_all(image, tmp_path / "masks", make_mask().astype(np.uint16))


def test_highdicom_reads_the_segmentation(tmp_path):
    image = write(make_slices(stored_voxels(SHAPE)), tmp_path / "image")
    outputs = write_all(image, tmp_path / "masks", make_mask())
    seg = highdicom.seg.segread(outputs.seg)
    uids = [f"1.2.3.5.{z + 1}" for z in range(5)]
    found = seg.get_pixels_by_source_instance(uids, combine_segments=True)
    np.testing.assert_array_equal(found, make_mask())


@pytest.mark.real_data
@pytest.mark.parametrize(
    "name",
    [
        "ct_3slice_dicom/ct",
        "enhanced_multiframe_ct/image",
        "enhanced_multiframe_ct/multiframe/mf.dcm",
    ],
)
def test_masks_of_real_images_lie_on_them(tmp_path, real_data, name):
    image = real_data / name
    smooth = ndimage.gaussian_filter(read_ct(image).array.astype(float), (0, 4, 4))
    levels = np.quantile(smooth, (0.5, 0.8, 0.95))
    check_all(image, tmp_path / "masks", np.digitize(smooth, levels).astype(np.uint8))


def drop(keyword):
    def spoil(slices):
        for made in slices:
            delattr(made, keyword)

    return spoil


def set_all(keyword, value):
    def spoil(slices):
        for made in slices:
            made.add_new(keyword, pydicom.datadict.dictionary_VR(keyword), value)

    return spoil


@pytest.mark.filterwarnings("ignore::UserWarning:pydicom", "ignore:Unknown encoding:UserWarning")
@pytest.mark.parametrize(
    "spoil",
    [
        *(drop(keyword) for keyword in ("PatientName", "StudyDate", "StudyID", "PatientSex")),
        *(drop(keyword) for keyword in ("AccessionNumber", "SliceThickness", "PatientID")),
        set_all("StudyTime", "noon"),
        set_all("PatientSex", "X"),
        set_all("PatientBirthDate", "??"),
        set_all("SpecificCharacterSet", ["ISO 2022 IR 6", "ISO 2022 IR 87"]),
        set_all("SpecificCharacterSet", "nonsense"),
    ],
)
def test_headers_with_gaps_and_nonsense_will_do(tmp_path, spoil):
    slices = with_patient()
    with pydicom.config.disable_value_validation():
        spoil(slices)
    check_all(write(slices, tmp_path / "image"), tmp_path / "masks", make_mask())


@pytest.mark.parametrize("kind", ["1.2.840.10008.5.1.4.1.1.7", "1.2.840.10008.5.1.4.1.1.128"])
def test_images_of_a_scanner_may_have_another_class(tmp_path, kind):
    """Secondary captures, and those of a PET scanner, by their modality CT."""
    slices = make_slices(stored_voxels(SHAPE))
    for made in slices:
        made.SOPClassUID = made.file_meta.MediaStorageSOPClassUID = kind
    check_all(write(slices, tmp_path / "image"), tmp_path / "masks", make_mask())


@pytest.mark.parametrize(
    ("outputs", "name"),
    [
        (DicomOutputs(seg="a.dcm"), "DICOM Segmentation"),
        (DicomOutputs(rtstruct="a.dcm"), "RT Structure Set"),
    ],
)
def test_images_of_an_unknown_class_are_refused_before_there_is_a_mask(tmp_path, outputs, name):
    slices = make_slices(stored_voxels(SHAPE))
    for made in slices:
        made.SOPClassUID = made.file_meta.MediaStorageSOPClassUID = "1.3.12.2.1107.5.9.1"
    image = write(slices, tmp_path / "image")
    assert read_ct(image).shape == SHAPE
    with pytest.raises(InputError, match=f"no {name} can be made of .*image: ") as caught:
        outputs.read_source(image)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("keyword", ["FrameOfReferenceUID", "StudyInstanceUID"])
def test_images_without_an_identifier_are_refused_by_its_name(tmp_path, keyword):
    slices = make_slices()
    drop(keyword)(slices)
    image = write(slices, tmp_path / "image")
    with pytest.raises(InputError, match=f"has no {keyword}, in .*image"):
        read_dicom_source(image)


def test_what_is_no_series_is_refused(tmp_path):
    (tmp_path / "notes").mkdir()
    with pytest.raises(InputError, match="no DICOM files in"):
        read_dicom_source(tmp_path / "notes")


@pytest.mark.parametrize("write_it", [write_dicom_seg, write_rtstruct])
def test_mask_of_another_shape_is_refused(tmp_path, write_it):
    source = read_dicom_source(write(make_slices(), tmp_path / "image"))
    with pytest.raises(GeometryError, match=r"mask must have the shape .* got \(5, 6, 8\)"):
        write_it(
            np.zeros((5, 6, 8), np.uint8),
            tmp_path / "a.dcm",
            source=source,
            segments=SEGMENTS,
            made_with={},
        )
    assert not (tmp_path / "a.dcm").exists()


def test_contour_may_be_longer_than_an_explicit_representation_holds(tmp_path):
    """A comb, whose outline takes more than 64 KiB."""
    slices = make_slices(stored_voxels((2, 1200, 9)))
    mask = np.zeros((2, 1200, 9), np.uint8)
    mask[:, ::2, 1:], mask[:, :, 0] = 1, 1
    outputs = check_all(write(slices, tmp_path / "image"), tmp_path / "masks", mask)
    (roi,) = pydicom.dcmread(outputs.rtstruct).ROIContourSequence
    for contour in roi.ContourSequence:
        assert len("\\".join(map(str, contour.ContourData))) > 2**16


@pytest.mark.parametrize(
    ("package", "outputs"),
    [
        ("highdicom", DicomOutputs(seg="a")),
        ("highdicom", DicomOutputs(rtstruct="a")),
        ("contourpy", DicomOutputs(rtstruct="a")),
    ],
)
def test_missing_package_is_named(monkeypatch, package, outputs):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=f"{package} is not installed: .* extra dicom"):
        outputs.check_packages()
    DicomOutputs().check_packages()


def test_volumes_load_none_of_the_packages():
    script = """
import sys, fcnseg.volumes
assert not {"highdicom", "contourpy", "scipy.spatial"} & sys.modules.keys()
"""
    subprocess.run([sys.executable, "-c", script], check=True)
