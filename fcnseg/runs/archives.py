"""ZIP archives, the format of saved networks and checkpoints: broken ones are named before use."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

from fcnseg.errors import InputError, one_line

# Errors of `zipfile` for archives that are truncated, zeroed or overwritten.
_BROKEN = (EOFError, NotImplementedError, RuntimeError, ValueError, zipfile.BadZipFile, zlib.error)


def check_archive(path: Path, *, what: str, remedy: str) -> None:
    """Checks that an archive is intact, by the checksums of its members.

    Args:
        path: The file.
        what: Kind of file, for the error.
        remedy: Advice to the user, for the error.

    Raises:
        InputError: If it is missing, or is not an archive with correct checksums.
    """
    try:
        found = _finding(path)
    except OSError as error:
        found = error.strerror or one_line(error)
    except _BROKEN as error:
        found = one_line(error)
    if found is not None:
        raise InputError(f"incomplete or corrupt {what}: {path}: {found}; {remedy}")


def _finding(path: Path) -> str | None:
    """The damage of an archive; None if it is intact."""
    size = path.stat().st_size
    if size == 0:
        return "the file is empty"
    if not zipfile.is_zipfile(path):
        return f"its {size} bytes are cut or overwritten"
    with zipfile.ZipFile(path) as archive:
        broken = archive.testzip()
    return None if broken is None else f"the checksum of {broken} in it is wrong"
