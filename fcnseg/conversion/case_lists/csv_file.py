"""Cases from a CSV file, and as one."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence

from fcnseg.conversion.cases import Case, CaseList, check_cases
from fcnseg.errors import InputError
from fcnseg.records import SPLITS
from fcnseg.storage import files

REQUIRED_COLUMNS = ("case_id", "image", "label")
OPTIONAL_COLUMNS = ("patient_id", "split", "series_uid")


def read_cases_csv(path: str, *, labelled: bool = True) -> CaseList:
    """Reads cases from a CSV file.

    Its columns are case_id, image, label[, patient_id][, split][, series_uid].

    Args:
        path: The file; the paths in it are relative to its folder. Where no patient is named, each
            case is a patient of its own.
        labelled: True if cases have labels; if not, the column `label` is optional and ignored.

    Raises:
        InputError: If the file is missing or a row breaks a rule; the row is named.
    """
    content = files.read_text(path)
    rows = csv.DictReader(io.StringIO(content, newline=""), strict=True)
    required = [name for name in REQUIRED_COLUMNS if labelled or name != "label"]
    _check_columns(rows.fieldnames or (), required, path)
    folder = files.parent(path)
    try:
        cases = [_case_of(row, required, folder, f"{path} line {rows.line_num}") for row in rows]
    except csv.Error as error:
        raise InputError(f"{path} is not CSV after line {rows.line_num}: {error}") from error
    return check_cases(cases, source=path)


def cases_to_csv(cases: Iterable[Case]) -> str:
    """Formats cases as a CSV file that `read_cases_csv` reads; the value of None is empty."""
    columns = ("case_id", "patient_id", "split", "image", "label", "series_uid")
    stream = io.StringIO()
    rows = csv.writer(stream, lineterminator="\n")
    rows.writerow(columns)
    rows.writerows([getattr(case, name) for name in columns] for case in cases)
    return stream.getvalue()


def _check_columns(columns: Sequence[str], required: list[str], path: str) -> None:
    missing = [name for name in required if name not in columns]
    unknown = [name for name in columns if name not in REQUIRED_COLUMNS + OPTIONAL_COLUMNS]
    if missing or unknown:
        raise InputError(
            f"columns of {path} must be {', '.join(required)} and optionally "
            f"{', '.join(OPTIONAL_COLUMNS)}, got {', '.join(columns) or 'none'}"
        )


def _case_of(row: Mapping[str, str | None], required: list[str], folder: str, place: str) -> Case:
    values = _values_of(row, required, place)
    split = values.get("split")
    if split not in (None, *SPLITS):
        raise InputError(f"{place}: split must be one of {', '.join(SPLITS)}, got {split!r}")
    return Case(
        case_id=values["case_id"],
        image=files.resolve(values["image"], folder),
        label=files.resolve(values["label"], folder) if "label" in required else None,
        patient_id=values.get("patient_id", values["case_id"]),
        split=split,
        series_uid=values.get("series_uid"),
    )


def _values_of(row: Mapping[str, str | None], required: list[str], place: str) -> dict[str, str]:
    """Values of a row by column; empty ones are left out."""
    values = {name: (value or "").strip() for name, value in row.items() if isinstance(name, str)}
    empty = [name for name in required if not values[name]]
    if empty:
        raise InputError(f"{place} is not a case: {empty[0]} is empty")
    # `csv` puts values beyond the last column under None, and None where there is no value.
    if None in row or None in row.values():
        raise InputError(f"{place} is not a case: it has not one value for each column")
    return {name: value for name, value in values.items() if value}
