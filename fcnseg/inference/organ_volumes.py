"""How large organs are, in ml: one JSON file a case, one CSV file for all."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fcnseg.volumes import Volume
from fcnseg.whole_file import write_whole


def organ_volumes_ml(
    mask: npt.NDArray[np.uint8], *, like: Volume, class_names: Sequence[str]
) -> dict[str, float]:
    """Volume of each organ in ml.

    Args:
        mask: Class ids (z, y, x).
        like: The volume that was segmented, whose affine tells the size of a voxel.
        class_names: By class id, background first.
    """
    # Slice by slice: bincount makes 8 bytes of each voxel.
    counts = sum(np.bincount(part.ravel(), minlength=len(class_names)) for part in mask)
    voxel_ml = abs(float(np.linalg.det(like.affine[:3, :3]))) / 1000
    organs = zip(class_names[1:], np.asarray(counts)[1:], strict=True)
    return {name: round(int(count) * voxel_ml, 3) for name, count in organs}


def write_organ_volumes(path: Path, case_id: str, volumes_ml: dict[str, float]) -> None:
    """Writes the JSON file of a case, whole or not at all."""
    content = {"case_id": case_id, "volumes_ml": volumes_ml}
    write_whole(path, json.dumps(content, indent=2) + "\n")


def gather_organ_volumes(path: Path, cases: Iterable[Path], class_names: Sequence[str]) -> None:
    """Writes one CSV file, a row for each case's JSON file, a column for each organ."""
    stream = io.StringIO()
    rows = csv.writer(stream, lineterminator="\n")
    rows.writerow(["case_id", *(f"{name}_ml" for name in class_names[1:])])
    for case in cases:
        content = json.loads(case.read_text(encoding="utf-8"))
        volumes_ml = content["volumes_ml"]
        rows.writerow([content["case_id"], *(volumes_ml.get(name) for name in class_names[1:])])
    write_whole(path, stream.getvalue())
