"""Volumes of organs in ml: of one mask, and of all cases in one CSV file."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from fcnseg.storage import files
from fcnseg.storage.whole_file import write_whole
from fcnseg.volumes.geometry import MM3_PER_ML


def organ_volumes_ml(
    mask: npt.NDArray[np.uint8], *, voxel_mm3: float, class_names: Sequence[str]
) -> dict[str, float]:
    """Computes the volume of each organ in ml.

    Args:
        mask: Class ids (z, y, x).
        voxel_mm3: Volume of a voxel.
        class_names: By class id, background first.
    """
    # Slice by slice: bincount makes 8 bytes of each voxel.
    counts = sum(np.bincount(part.ravel(), minlength=len(class_names)) for part in mask)
    organs = zip(class_names[1:], np.asarray(counts)[1:], strict=True)
    return {name: round(int(count) * voxel_mm3 / MM3_PER_ML, 3) for name, count in organs}


def gather_organ_volumes(path: str, cases: Iterable[str], class_names: Sequence[str]) -> None:
    """Writes one CSV file, a row per case's JSON file, a column per organ.

    The paths may be on any file system.
    """
    stream = io.StringIO()
    rows = csv.writer(stream, lineterminator="\n")
    rows.writerow(["case_id", *(f"{name}_ml" for name in class_names[1:])])
    for case in cases:
        content = json.loads(files.read_text(case))
        volumes_ml = content["volumes_ml"]
        rows.writerow([content["case_id"], *(volumes_ml.get(name) for name in class_names[1:])])
    write_whole(path, stream.getvalue())
