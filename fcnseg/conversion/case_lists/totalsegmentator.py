"""Cases from the layout of TotalSegmentator's dataset: a folder per subject, a file per class."""

from __future__ import annotations

import csv
import io
from collections import defaultdict

from fcnseg.conversion.cases import Case, CaseList, check_cases
from fcnseg.errors import InputError
from fcnseg.storage import files

IMAGE = "ct.nii.gz"
LABELS = "segmentations"
META_FILE = "meta.csv"
_SPLITS = {"train": "train", "val": "validation", "test": "test", "": None}


def cases_of_totalsegmentator(folder: str, *, labelled: bool = True) -> CaseList:
    """Lists the subjects of a folder, each a patient.

    A subject is a folder with `ct.nii.gz` and `segmentations/NAME.nii.gz`, in letters of any case.
    The splits of `meta.csv` are used if it exists.

    Raises:
        InputError: If there is no subject, or `meta.csv` is malformed.
    """
    children = files.children(folder)
    splits = _splits(files.join(folder, META_FILE)) if META_FILE in children else {}
    subjects = sorted(
        name for name, is_folder in children.items() if is_folder and not name.startswith(".")
    )
    root = files.absolute(folder)
    images = _images(root, subjects)
    return check_cases(
        [
            Case(
                case_id=name,
                image=image,
                label=files.join(root, name, LABELS) if labelled else None,
                patient_id=name,
                split=splits.get(name),
            )
            for name in subjects
            for image in images.get(name, [files.join(root, name, IMAGE)])
        ],
        source=folder,
    )


def _images(root: str, subjects: list[str]) -> dict[str, list[str]]:
    """Paths of the images of each subject that has one; both if it has two."""
    if files.is_local(root):
        inside = [files.join(root, name, file) for name in subjects for file in _names(root, name)]
    else:
        inside = files.list_folder(root)
    found: dict[str, list[str]] = defaultdict(list)
    for path in inside:
        subject, _, name = path.removeprefix(files.join(root, "")).partition("/")
        if name.lower() == IMAGE:
            found[subject].append(path)
    return found


def _names(root: str, subject: str) -> list[str]:
    return sorted(files.children(files.join(root, subject)))


def _splits(path: str) -> dict[str, str | None]:
    """The split of each subject according to `meta.csv`."""
    rows = csv.DictReader(io.StringIO(files.read_text(path), newline=""), delimiter=";")
    columns = rows.fieldnames or ()
    if "image_id" not in columns:
        raise InputError(f"{path} must have a column image_id, got {', '.join(columns) or 'none'}")
    splits = {row["image_id"]: row.get("split") or "" for row in rows}
    unknown = sorted(set(splits.values()) - _SPLITS.keys())
    if unknown:
        raise InputError(f"split in {path} must be train, val or test, got {unknown[0]!r}")
    return {subject: _SPLITS[split] for subject, split in splits.items()}
