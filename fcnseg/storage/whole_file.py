"""Atomic writes: files and folders that get their name only when they are complete.

A local name that exists after a loss of power is that of a complete file too: the contents are
flushed to the disk before the file gets its name, and its name after that. Output for an object
store is written to the local temporary folder, and uploaded when it is complete: a store shows an
upload only when all of it has arrived.
"""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path

from fcnseg.errors import FcnsegError, InputError, OutputError, one_line
from fcnseg.storage import files
from fcnseg.storage.file_systems import UNFINISHED, upload
from fcnseg.storage.files import PathLike

# Errors of file systems that cannot flush a folder: FUSE, some network shares.
_CANNOT_FLUSH = (errno.EINVAL, errno.ENOTSUP, errno.EACCES, errno.EBADF)


@contextlib.contextmanager
def atomic_write(path: PathLike) -> Iterator[Path]:
    """Gives a local path to write to, which is renamed to the final path when the block ends.

    If the block fails, an earlier file stays. Each attempt has a path of its own, so concurrent
    attempts do not collide.

    Args:
        path: Final path of the file on any file system, or of a folder that does not exist yet; a
            local one is in an existing folder. In an object store the files of a folder appear one
            by one.

    Yields:
        A path of the same name, and so with the suffix that libraries rely on. For a local file it
        is in a hidden folder next to it: within one file system a rename is atomic.

    Raises:
        OutputError: If it cannot be written, as on a full disk.
    """
    path = os.fspath(path)
    is_local = files.is_local(path)
    beside = Path(path).parent if is_local else None
    with (
        naming_output(path),
        tempfile.TemporaryDirectory(prefix=UNFINISHED, dir=beside) as folder,
    ):
        unfinished = Path(folder) / files.name_of(path)
        yield unfinished
        if is_local:
            put_in_place(unfinished, Path(path))
        else:
            upload(unfinished, path)


def write_whole(path: PathLike, text: str) -> None:
    """Writes a text file atomically, in UTF-8 with the line ends of the text.

    Raises:
        OutputError: If it cannot be written, as on a full disk.
    """
    with atomic_write(path) as unfinished:
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
    """Flushes the names in a folder to the disk, if the file system can."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except PermissionError:  # Windows cannot open a folder
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
    """Turns errors of the file system into one line that names the output.

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
    """Creates the folder of an output and its parents, and checks that it is writable.

    Args:
        folder: Folder that may exist already.
        argument: Name given by the user, for the error.

    Raises:
        InputError: If it cannot be created or written to.
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


def check_output_folder(folder: PathLike, *, argument: str) -> None:
    """Checks that the folder of an output on any file system is writable; a local one is created.

    Args:
        folder: Folder that may exist already.
        argument: Name given by the user, for the error.

    Raises:
        InputError: If it cannot be created or written to.
    """
    folder = os.fspath(folder)
    if files.is_local(folder):
        make_folder(folder, argument=argument)
        return
    probe = files.join(folder, f"{UNFINISHED}{uuid.uuid4().hex}")
    try:
        write_whole(probe, "")
        files.delete([probe])
    except (InputError, OutputError) as error:
        raise InputError(
            f"{argument} must be a folder that can be written to, got {folder}: {error}"
        ) from error


def check_output_file(path: PathLike, *, argument: str = "output") -> None:
    """Checks that a file can be written, before the work that makes its contents.

    Args:
        path: The file, which may exist already.
        argument: Name given by the user, for the error.

    Raises:
        InputError: If it is a folder, or its folder is not writable.
    """
    if not files.is_local(path):
        check_output_folder(files.parent(os.fspath(path)), argument=argument)
        return
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


def check_free(
    paths: Iterable[PathLike], *, overwrite: bool, folders: Iterable[PathLike] = ()
) -> None:
    """Checks that no output exists already, unless it may be replaced.

    Args:
        paths: Files that a command is going to write.
        overwrite: True if the user allows it.
        folders: Folders that the command is going to write.

    Raises:
        InputError: If one exists, or a folder has the name of a file, which is never replaced; the
            message names the first.
    """
    outputs = list(paths)
    for path in outputs:
        if files.is_local(path) and Path(path).is_dir():
            raise InputError(f"output must be a file, got the folder {path}")
    if overwrite:
        return
    for path in (*outputs, *folders):
        if _is_there(path):
            raise InputError(f"{path} is there already: give --overwrite to replace it")


def _is_there(path: PathLike) -> bool:
    if files.is_local(path):
        return Path(path).exists()
    return files.exists(path) or files.is_folder(path)


@contextlib.contextmanager
def folder_for_output(folder: Path) -> Iterator[None]:
    """Creates a folder, which is removed again if the block fails and leaves it empty.

    Args:
        folder: The folder; it may exist already.
    """
    is_new = not folder.exists()
    make_folder(folder, argument="output")
    try:
        yield
    except BaseException:
        if is_new and not any(folder.iterdir()):
            folder.rmdir()
        raise
