"""Local files that have their name only when they are whole.

The conversion, which also writes to other file systems, has its own in `fcnseg.conversion.files`.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from fcnseg.errors import InputError


@contextlib.contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Gives a path to write to, whose file takes its place when the block ends.

    If the block fails, what was at the place before stays.

    Args:
        path: The file's place; its folder must be there.

    Yields:
        A path of the same name in a hidden folder beside it: one file system, so that the rename is
        atomic, and the suffix that libraries go by.
    """
    with tempfile.TemporaryDirectory(prefix=".tmp-", dir=path.parent) as folder:
        unfinished = Path(folder) / path.name
        yield unfinished
        unfinished.replace(path)


def write_whole(path: Path, text: str) -> None:
    """Writes a text file in UTF-8 with the line ends that the text has."""
    with written_whole(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8", newline="")


def check_free(paths: Iterable[Path], *, overwrite: bool) -> None:
    """Checks that no output is there already, unless it may be replaced.

    Args:
        paths: What a command is going to write.
        overwrite: Whether the user allows it.

    Raises:
        InputError: If one is there; it names the first.
    """
    for path in paths:
        if path.exists() and not overwrite:
            raise InputError(f"{path} is there already: give --overwrite to replace it")


@contextlib.contextmanager
def folder_for_output(folder: Path) -> Iterator[None]:
    """Makes a folder, which is removed again if the block fails with nothing in it.

    Args:
        folder: The folder; it may be there already.
    """
    is_new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        if is_new and not any(folder.iterdir()):
            folder.rmdir()
        raise
