"""The record schema: the contents of a record, and the storage of each part.

A record is a `tensorflow.Example`. Each attribute is one feature under its name in `Record`, and
each feature is one string of bytes: text as UTF-8, an array as its little-endian values in C order.
(Raw bytes are read as fast as tensor protos, and written 60 times faster than lists of floats.)

A case too large for one record is written as several, consecutive in one file: each contains some
of the slices of image and label, and everything else completely. The feature `part` identifies
them.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import numpy.typing as npt

from fcnseg.errors import InputError

SCHEMA_VERSION = 2

MOST_COORDINATES = 1000
"""Foreground voxels stored of each class: some hundred times the patches drawn of a case an
epoch."""


@dataclasses.dataclass(frozen=True, eq=False)
class Record:
    """One case as training reads it: canonical orientation, the dataset's spacing, HU.

    Attributes:
        case_id: Name of the case.
        patient_id: Name of the patient, by whom the splits are made.
        image: HU (z, y, x), int16.
        label: Class indices (z, y, x), uint8, or uint16 above 255 classes; None for a case without
            label, which then has no voxels of any class.
        affine: (4, 4) float64 from voxel index (i, j, k) = (x, y, z) to RAS mm.
        spacing: Millimetres (z, y, x).
        source_shape: Voxels (z, y, x) of the source file.
        source_affine: Affine of that file.
        class_histogram: Voxels of each class (K,), int64.
        foreground_coordinates: Indices (n, 3) = (z, y, x) of some voxels of each class but the
            background, int32, ordered by class: class-balanced patches are drawn without a scan.
        foreground_counts: Number of these rows for each class (K,), int64; 0 for the background.
    """

    case_id: str
    patient_id: str
    image: npt.NDArray[np.int16]
    label: npt.NDArray[np.uint8 | np.uint16] | None
    affine: npt.NDArray[np.float64]
    spacing: tuple[float, float, float]
    source_shape: tuple[int, int, int]
    source_affine: npt.NDArray[np.float64]
    class_histogram: npt.NDArray[np.int64]
    foreground_coordinates: npt.NDArray[np.int32]
    foreground_counts: npt.NDArray[np.int64]

    def __post_init__(self) -> None:
        if self.image.dtype != np.int16:
            raise InputError(
                f"a record holds int16 HU, got {self.image.dtype} (case {self.case_id})"
            )
        if self.label is None:
            return
        if self.label.dtype not in (np.uint8, np.uint16):
            raise InputError(
                f"a record holds uint8 or uint16 class indices, got {self.label.dtype}"
                f" (case {self.case_id})"
            )
        if self.image.shape != self.label.shape:
            raise InputError(
                "image and label of a record must have one shape, got "
                f"{self.image.shape} and {self.label.shape} (case {self.case_id})"
            )

    @property
    def shape(self) -> tuple[int, ...]:
        """Voxels (z, y, x)."""
        return self.image.shape

    def parts(self, max_bytes: int) -> list[Part]:
        """Splits the case so that image and label of a part take some bytes at most."""
        label_bytes = 0 if self.label is None else self.label[0].nbytes
        slice_bytes = self.image[0].nbytes + label_bytes
        return parts_of(len(self.image), slice_bytes=slice_bytes, max_bytes=max_bytes)


@dataclasses.dataclass(frozen=True)
class Part:
    """The slices of a case in one record.

    Attributes:
        index: Index among the case's records.
        count: Number of records of the case.
        start: First slice (z).
        stop: One beyond the last slice.
    """

    index: int
    count: int
    start: int
    stop: int

    @property
    def slices(self) -> slice:
        """Index of its slices in an array (z, y, x)."""
        return slice(self.start, self.stop)


def parts_of(depth: int, *, slice_bytes: int, max_bytes: int) -> list[Part]:
    """Splits a case into records of about equal size.

    Args:
        depth: Slices (z) of the case.
        slice_bytes: Bytes of one slice of image and label.
        max_bytes: Maximum bytes of slices in a record; a slice is never split.

    Returns:
        The parts in order; a single one for a case that fits.
    """
    most = max(1, max_bytes // slice_bytes)
    count = math.ceil(depth / most)
    starts = [depth * index // count for index in range(count + 1)]
    return [Part(index, count, starts[index], starts[index + 1]) for index in range(count)]


@dataclasses.dataclass(frozen=True)
class Stored:
    """Storage format of a feature: an array as bytes.

    Attributes:
        dtype: Little-endian type; None for the label, whose type depends on the number of classes.
        shape: Shape, -1 where the length decides; None for the slices of `part` of the case's
            `shape`.
    """

    dtype: str | None
    shape: tuple[int, ...] | None


TEXT = ("case_id", "patient_id")

VOLUMES = ("image", "label")
"""Attributes that are split if a case takes several records."""

ARRAYS: dict[str, Stored] = {
    "part": Stored("<i8", (4,)),
    "shape": Stored("<i8", (3,)),
    "image": Stored("<i2", None),
    "label": Stored(None, None),
    "affine": Stored("<f8", (4, 4)),
    "spacing": Stored("<f4", (3,)),
    "source_shape": Stored("<i8", (3,)),
    "source_affine": Stored("<f8", (4, 4)),
    "class_histogram": Stored("<i8", (-1,)),
    "foreground_coordinates": Stored("<i4", (-1, 3)),
    "foreground_counts": Stored("<i8", (-1,)),
}
