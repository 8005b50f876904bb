"""Local files and folders that have their name only when they are whole.

A name that is there after a loss of power is that of a whole file too: what was written is flushed
to the disk before the file gets its name, and its name after that.

The conversion, which also writes to other file systems, has its own in `fcnseg.storage.files`.
"""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from fcnseg.errors import FcnsegError, InputError, OutputError, one_line

# A file system that cannot flush a folder says so: FUSE, some network shares.
_CANNOT_FLUSH = (errno.EINVAL, errno.ENOTSUP, errno.EACCES, errno.EBADF)


@contextlib.contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Gives a path to write to, whose file takes its place when the block ends.

    If the block fails, what was at the place before stays.

    Args:
        path: The file's place, or a folder's that is not there yet; the folder it is in must be.

    Yields:
        A path of the same name in a hidden folder beside it: one file system, so that the rename is
        atomic, and the suffix that libraries go by.

    Raises:
        OutputError: If it cannot be written, as on a full disk.
    """
    with (
        naming_output(path),
        tempfile.TemporaryDirectory(prefix=".tmp-", dir=path.parent) as folder,
    ):
        unfinished = Path(folder) / path.name
        yield unfinished
        put_in_place(unfinished, path)


def write_whole(path: Path, text: str) -> None:
    """Writes a text file in UTF-8 with the line ends that the text has.

    Raises:
        OutputError: If it cannot be written, as on a full disk.
    """
    with written_whole(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8", newline="")


def put_in_place(unfinished: Path, path: Path) -> None:
    """Renames a file, or a folder with all that is in it, so that both survive a loss of power."""
    flush(unfinished)
    unfinished.replace(path)
    flush_folder(path.parent)


def flush(path: Path) -> None:
    """Flushes a file to the disk, or a folder with all that is in it."""
    if not path.is_dir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
        return
    for inner in path.iterdir():
        flush(inner)
    flush_folder(path)


def flush_folder(folder: Path) -> None:
    """Flushes the names that a folder holds to the disk, where the file system can."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except PermissionError:  # Windows opens no folder
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _CANNOT_FLUSH:
            raise
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def naming_output(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turns what the file system says of an output into one line that names it.

    Raises:
        OutputError: If the block raises an `OSError`.
    """
    try:
        yield
    except FcnsegError:
        raise
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or one_line(error)}") from error


def make_folder(folder: str | os.PathLike[str], *, argument: str) -> Path:
    """Makes the folder of an output, and those above it, and tries whether it takes a file.

    Args:
        folder: May be there.
        argument: What the user calls it, for the error.

    Raises:
        InputError: If it cannot be made or written to.
    """
    path = Path(folder)
    try:
        path.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path).close()
    except FileExistsError as error:
        raise InputError(f"{argument} must be a folder, got the file {path}") from error
    except OSError as error:
        raise InputError(
            f"{argument} must be a folder that can be written to, got {path}:"
            f" {error.strerror or one_line(error)}"
        ) from error
    return path


def check_output_file(path: str | os.PathLike[str], *, argument: str = "output") -> None:
    """Checks, before there is anything to write, that a file can be written.

    Args:
        path: The file, which may be there.
        argument: What the user calls it, for the error.

    Raises:
        InputError: If it is a folder, or is in none that can be written to.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{argument} must be a file, got the folder {path}")
    if not path.parent.is_dir():
        raise InputError(f"{argument} must be in a folder that is there, got {path}")
    try:
        tempfile.TemporaryFile(dir=path.parent).close()
    except OSError as error:
        raise InputError(
            f"{argument} must be in a folder that can be written to, got {path}:"
            f" {error.strerror or one_line(error)}"
        ) from error


def check_free(paths: Iterable[Path], *, overwrite: bool, folders: Iterable[Path] = ()) -> None:
    """Checks that no output is there already, unless it may be replaced.

    Args:
        paths: Files that a command is going to write.
        overwrite: Whether the user allows it.
        folders: Folders that it is going to write.

    Raises:
        InputError: If one is there, or a folder is in the place of a file, which is never replaced;
            it names the first.
    """
    files = list(paths)
    for path in files:
        if path.is_dir():
            raise InputError(f"output must be a file, got the folder {path}")
    for path in (*files, *folders):
        if path.exists() and not overwrite:
            raise InputError(f"{path} is there already: give --overwrite to replace it")


@contextlib.contextmanager
def folder_for_output(folder: Path) -> Iterator[None]:
    """Makes a folder, which is removed again if the block fails with nothing in it.

    Args:
        folder: The folder; it may be there already.
    """
    is_new = not folder.exists()
    make_folder(folder, argument="output")
    try:
        yield
    except BaseException:
        if is_new and not any(folder.iterdir()):
            folder.rmdir()
        raise
