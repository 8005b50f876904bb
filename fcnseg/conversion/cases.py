"""Lists of cases: which image and label files make each, of which patient, in which split."""

from __future__ import annotations

import csv
import dataclasses
import io
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from fcnseg.conversion import files
from fcnseg.errors import InputError
from fcnseg.records import SPLITS
from fcnseg.volumes import pair_by_name

REQUIRED_COLUMNS = ("case_id", "image", "label")
OPTIONAL_COLUMNS = ("patient_id", "split")


@dataclasses.dataclass(frozen=True)
class Case:
    """One scan and its label.

    Attributes:
        case_id: Name of the case, unique in a dataset.
        image: Path of the CT volume, on any file system that Beam opens.
        label: Path of the label volume, or of a folder of binary masks, one a class; None where the
            case has no label.
        patient_id: Name of the patient; all cases of one are in one split.
        split: One of `SPLITS`, or None where the patient's hash decides.
    """

    case_id: str
    image: str
    label: str | None
    patient_id: str
    split: str | None = None


def read_cases_csv(path: str) -> list[Case]:
    """Reads cases from a CSV file with the columns case_id, image, label[, patient_id][, split].

    Args:
        path: The file; the paths in it are relative to its folder. Where no patient is named, each
            case is a patient of its own.

    Returns:
        The cases by case id.

    Raises:
        InputError: If the file is missing or a row breaks a rule; the row is named.
    """
    content = files.read_text(path)
    rows = csv.DictReader(io.StringIO(content, newline=""), strict=True)
    columns = rows.fieldnames or ()
    missing = [name for name in REQUIRED_COLUMNS if name not in columns]
    unknown = [name for name in columns if name not in REQUIRED_COLUMNS + OPTIONAL_COLUMNS]
    if missing or unknown:
        raise InputError(
            f"columns of {path} must be {', '.join(REQUIRED_COLUMNS)} and optionally "
            f"{', '.join(OPTIONAL_COLUMNS)}, got {', '.join(columns) or 'none'}"
        )
    folder = files.parent(path)
    try:
        cases = [_case_of_row(row, folder, f"{path} line {rows.line_num}") for row in rows]
    except csv.Error as error:
        raise InputError(f"{path} is not CSV after line {rows.line_num}: {error}") from error
    return check_cases(cases, source=path)


def cases_from_folders(images: str, labels: str) -> list[Case]:
    """Pairs the volumes of two local folders by name; each case is a patient of its own.

    Raises:
        InputError: If a folder is missing or empty, or an image or label has no partner.
    """
    pairs = pair_by_name(images, labels)
    return check_cases(
        [
            Case(case_id, str(Path(image).resolve()), str(Path(label).resolve()), case_id)
            for case_id, image, label in pairs
        ],
        source=images,
    )


def check_cases(cases: Iterable[Case], *, source: str) -> list[Case]:
    """Checks what concerns several cases at once.

    Args:
        cases: The cases in any order.
        source: Where they come from, for the error.

    Returns:
        The cases by case id; a split that is named for one case of a patient holds for all.

    Raises:
        InputError: If there is no case, an id occurs twice, or a patient is in two splits.
    """
    cases = sorted(cases, key=lambda case: case.case_id)
    if not cases:
        raise InputError(f"no cases in {source}")
    twice = [name for name, count in Counter(case.case_id for case in cases).items() if count > 1]
    if twice:
        raise InputError(f"case_id must be unique in {source}, got {', '.join(twice[:3])} twice")
    split_of_patient: dict[str, str] = {}
    for case in cases:
        split = case.split or split_of_patient.get(case.patient_id)
        if split and split_of_patient.setdefault(case.patient_id, split) != split:
            raise InputError(
                f"a patient must be in one split, got {case.patient_id} in {split} and "
                f"{split_of_patient[case.patient_id]} in {source} (case {case.case_id})"
            )
    return [
        dataclasses.replace(case, split=split_of_patient.get(case.patient_id)) for case in cases
    ]


def _case_of_row(row: Mapping[str, str | None], folder: str, place: str) -> Case:
    values = {name: (value or "").strip() for name, value in row.items() if isinstance(name, str)}
    empty = [name for name in REQUIRED_COLUMNS if not values[name]]
    if empty or None in row.values() or len(values) < len(row):
        what = f"{empty[0]} is empty" if empty else "it has not one value for each column"
        raise InputError(f"{place} is not a case: {what}")
    split = values.get("split") or None
    if split is not None and split not in SPLITS:
        raise InputError(f"{place}: split must be one of {', '.join(SPLITS)}, got {split!r}")
    return Case(
        case_id=values["case_id"],
        image=files.resolve(values["image"], folder),
        label=files.resolve(values["label"], folder),
        patient_id=values.get("patient_id") or values["case_id"],
        split=split,
    )
