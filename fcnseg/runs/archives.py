"""ZIP archives, which saved networks and checkpoints are: broken ones are named before use."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

from fcnseg.errors import InputError, one_line

# What `zipfile` raises for archives that are cut, zeroed or overwritten.
_BROKEN = (EOFError, NotImplementedError, RuntimeError, ValueError, zipfile.BadZipFile, zlib.error)


def check_archive(path: Path, *, what: str, remedy: str) -> None:
    """Checks that an archive is whole, by the checksums of all that is in it.

    Args:
        path: The file.
        what: What it is, for the error.
        remedy: What the user can do, for the error.

    Raises:
        InputError: If it is missing, or is no archive whose checksums are right.
    """
    try:
        found = _finding(path)
    except OSError as error:
        found = error.strerror or one_line(error)
    except _BROKEN as error:
        found = one_line(error)
    if found is not None:
        raise InputError(f"not a whole {what}: {path}: {found}; {remedy}")


def _finding(path: Path) -> str | None:
    """What is wrong with an archive; None if nothing is."""
    size = path.stat().st_size
    if size == 0:
        return "the file is empty"
    if not zipfile.is_zipfile(path):
        return f"its {size} bytes are cut or overwritten"
    with zipfile.ZipFile(path) as archive:
        broken = archive.testzip()
    return None if broken is None else f"the checksum of {broken} in it is wrong"
