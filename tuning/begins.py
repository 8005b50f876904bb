"""The begins of a trial that have no end, as each took its worker down, or the whole machine."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from fcnseg.storage.whole_file import write_whole


def count_deaths(begun: Path, checkpoint: Path) -> int:
    """Counts the begins without an end since the last checkpoint of a trial.

    Args:
        begun: File in which they are noted.
        checkpoint: The checkpoint.
    """
    if not begun.exists():
        return 0
    if checkpoint.exists() and checkpoint.stat().st_mtime > begun.stat().st_mtime:
        return 0
    return len(begun.read_text(encoding="utf-8").splitlines())


@contextlib.contextmanager
def noted_begin(begun: Path, *, deaths: int) -> Iterator[None]:
    """Notes the begin of a trial during the block; only a sudden end leaves the note.

    Args:
        begun: File in which it is noted.
        deaths: Number of begins so far without an end.

    Raises:
        OutputError: If it cannot be written, as on a full disk.
    """
    write_whole(begun, "begun\n" * (deaths + 1))
    try:
        yield
    finally:
        begun.unlink(missing_ok=True)
