"""Made DICOM: slices of a known volume, one value to spoil at a time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import (
    CTImageStorage,
    EnhancedCTImageStorage,
    ExplicitVRLittleEndian,
    MRImageStorage,
    SecondaryCaptureImageStorage,
)

SHAPE = (5, 6, 7)
SPACING = (2.5, 0.9, 0.7)  # mm (z, y, x)
ORIGIN = (-31.5, 20.25, 112.0)  # LPS
AXIAL = np.eye(3)  # rows: LPS directions along a row, down a column, from slice to slice
KINDS = {
    "CT": CTImageStorage,
    "MR": MRImageStorage,
    "OT": SecondaryCaptureImageStorage,
}


def stored_voxels(shape=SHAPE, dtype=np.int16) -> np.ndarray:
    return np.arange(np.prod(shape)).reshape(shape).astype(dtype)


def dataset(kind: str, series_uid: str, number: int) -> Dataset:
    """What every object has; UIDs are made of the series and the number, so runs are alike."""
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.file_meta.MediaStorageSOPClassUID = made.SOPClassUID = kind
    uid = f"{series_uid}.{number}"
    made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID = uid
    made.SeriesInstanceUID = series_uid
    made.StudyInstanceUID = "1.2.3"
    made.FrameOfReferenceUID = "1.2.3.4"
    made.PatientID = "phantom"
    made.InstanceNumber = number
    return made


def set_pixels(made: Dataset, stored: np.ndarray, bits: int = 16) -> None:
    made.Rows, made.Columns = stored.shape[-2:]
    made.SamplesPerPixel = 1
    made.PhotometricInterpretation = "MONOCHROME2"
    made.BitsAllocated, made.BitsStored, made.HighBit = 16, bits, bits - 1
    made.PixelRepresentation = int(stored.dtype.kind == "i")
    made.add_new("PixelData", "OW", np.ascontiguousarray(stored).tobytes())


def make_slices(
    stored: np.ndarray | None = None,
    *,
    series_uid: str = "1.2.3.5",
    axes: np.ndarray = AXIAL,
    spacing: Sequence[float] = SPACING,
    modality: str = "CT",
    bits: int = 16,
) -> list[Dataset]:
    """Single-frame objects, first to last; `axes` as in `AXIAL`."""
    stored = stored_voxels() if stored is None else stored
    slices = []
    for z, plane in enumerate(stored):
        made = dataset(KINDS[modality], series_uid, z + 1)
        made.Modality = modality
        made.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        made.SeriesDescription = f"Series {series_uid[-1]}"
        made.ImagePositionPatient = np.round(ORIGIN + z * spacing[0] * axes[2], 6).tolist()
        made.ImageOrientationPatient = np.round(np.ravel(axes[:2]), 8).tolist()
        made.PixelSpacing = [spacing[1], spacing[2]]
        made.SliceThickness = 9.0  # never to be taken for the step
        made.RescaleSlope, made.RescaleIntercept = 1, 0
        set_pixels(made, plane, bits)
        slices.append(made)
    return slices


def make_enhanced(stored: np.ndarray | None = None, *, order: Sequence[int] = ()) -> Dataset:
    """An enhanced multi-frame object; `order` of its frames in the stack."""
    stored = stored_voxels() if stored is None else stored
    order = order or range(len(stored))
    made = dataset(EnhancedCTImageStorage, "1.2.3.6", 1)
    made.Modality = "CT"
    made.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    made.NumberOfFrames = len(order)
    shared, orientation, measures = Dataset(), Dataset(), Dataset()
    orientation.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    measures.PixelSpacing, measures.SliceThickness = [SPACING[1], SPACING[2]], 9.0
    shared.PlaneOrientationSequence = Items([orientation])
    shared.PixelMeasuresSequence = Items([measures])
    made.SharedFunctionalGroupsSequence = Items([shared])
    frames = []
    for z in order:
        frame, position, values, kind = Dataset(), Dataset(), Dataset(), Dataset()
        position.ImagePositionPatient = [*ORIGIN[:2], ORIGIN[2] + z * SPACING[0]]
        values.RescaleSlope, values.RescaleIntercept, values.RescaleType = 1, -10 * z, "HU"
        kind.FrameType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
        frame.PlanePositionSequence = Items([position])
        frame.PixelValueTransformationSequence = Items([values])
        frame.CTImageFrameTypeSequence = Items([kind])
        frames.append(frame)
    made.PerFrameFunctionalGroupsSequence = Items(frames)
    set_pixels(made, stored[list(order)])
    return made


def write(datasets: Sequence[Dataset], folder: Path, *, suffix: str = ".dcm") -> Path:
    """Writes slices under names whose order is not that of their positions."""
    folder.mkdir(parents=True, exist_ok=True)
    for index, made in enumerate(datasets):
        name = f"IM{(7 * index + 3) % 101:03d}_{made.SeriesInstanceUID[-1]}{suffix}"
        made.save_as(folder / name, enforce_file_format=True)
    return folder
