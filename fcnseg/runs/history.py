"""The history of a run: the logs of its epochs, a row each. No TensorFlow."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from fcnseg.errors import InputError, one_line


def read_history(path: Path) -> list[dict[str, float]]:
    """Reads the rows of a history, each with its `epoch`; a value that an epoch lacks is left out.

    Raises:
        InputError: If the file is missing or broken.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            table = csv.DictReader(file)
            rows = list(table)
        if "epoch" not in (table.fieldnames or ()):
            raise ValueError("it has no column epoch")
        return [{name: float(value) for name, value in row.items() if value} for row in rows]
    except (OSError, TypeError, ValueError, csv.Error) as error:
        raise InputError(f"incomplete or corrupt history: {path}: {one_line(error)}") from error


def columns_of(rows: Sequence[dict[str, float]]) -> dict[str, list[float]]:
    """Collects the values of logs by name; a name missing from some logs has fewer values."""
    names = {name: None for row in rows for name in row if name != "epoch"}
    return {name: [row[name] for row in rows if name in row] for name in names}
