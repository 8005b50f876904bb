"""Listing of the cases in a file of records, without reading their volumes."""

from __future__ import annotations

import dataclasses
import mmap
import os

from fcnseg.errors import DatasetError
from fcnseg.records.reading import array_of, features_of
from fcnseg.records.tfrecord import iterate_frames


@dataclasses.dataclass(frozen=True)
class ListedCase:
    """A case as described by its record.

    Attributes:
        case_id: Name of the case.
        patient_id: Name of the patient.
        class_voxels: Voxels of each class.
    """

    case_id: str
    patient_id: str
    class_voxels: tuple[int, ...]


def list_cases(path: str | os.PathLike[str]) -> list[ListedCase]:
    """Lists the cases of a local file of records, in its order.

    The file is mapped into memory, so only the pages with the names and counts are read; the
    remaining content is not checked.

    Raises:
        DatasetError: If the file is missing or empty, or its chain of records is broken.
    """
    try:
        with open(path, "rb") as file:
            content = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except (OSError, ValueError) as error:
        raise DatasetError(f"{path} cannot be read: {error}") from error
    cases: list[ListedCase] = []
    for frame in iterate_frames(content, source=path):
        features = features_of(frame, source=path)
        case = ListedCase(
            bytes(features["case_id"]).decode(),
            bytes(features["patient_id"]).decode(),
            tuple(map(int, array_of(features, "class_histogram"))),
        )
        if not cases or cases[-1] != case:  # a case may take several records
            cases.append(case)
    return cases
