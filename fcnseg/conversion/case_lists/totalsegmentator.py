"""Cases from the layout of TotalSegmentator's dataset: a folder a subject, a file a class."""

from __future__ import annotations

import csv
import io

from fcnseg.conversion import files
from fcnseg.conversion.cases import Case, CaseList, check_cases
from fcnseg.errors import InputError

IMAGE = "ct.nii.gz"
LABELS = "segmentations"
META_FILE = "meta.csv"
_SPLITS = {"train": "train", "val": "validation", "test": "test", "": None}


def cases_of_totalsegmentator(folder: str, *, labelled: bool = True) -> CaseList:
    """Lists the subjects of a folder, each a patient.

    A subject is a folder with `ct.nii.gz` and `segmentations/NAME.nii.gz`. The splits of `meta.csv`
    hold where it is there.

    Raises:
        InputError: If there is no subject, or `meta.csv` is not as it should be.
    """
    children = files.children(folder)
    splits = _splits(files.join(folder, META_FILE)) if META_FILE in children else {}
    subjects = sorted(
        name for name, is_folder in children.items() if is_folder and not name.startswith(".")
    )
    root = files.absolute(folder)
    return check_cases(
        [
            Case(
                case_id=name,
                image=files.join(root, name, IMAGE),
                label=files.join(root, name, LABELS) if labelled else None,
                patient_id=name,
                split=splits.get(name),
            )
            for name in subjects
        ],
        source=folder,
    )


def _splits(path: str) -> dict[str, str | None]:
    """The split of each subject, as `meta.csv` tells."""
    rows = csv.DictReader(io.StringIO(files.read_text(path), newline=""), delimiter=";")
    columns = rows.fieldnames or ()
    if "image_id" not in columns:
        raise InputError(f"{path} must have a column image_id, got {', '.join(columns) or 'none'}")
    splits = {row["image_id"]: row.get("split") or "" for row in rows}
    unknown = sorted(set(splits.values()) - _SPLITS.keys())
    if unknown:
        raise InputError(f"split in {path} must be train, val or test, got {unknown[0]!r}")
    return {subject: _SPLITS[split] for subject, split in splits.items()}
