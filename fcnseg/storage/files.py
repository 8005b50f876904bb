"""Files on any file system that Beam opens: local, gs://, s3://, hdfs://.

Reading local files needs no Beam.
"""

from __future__ import annotations

import contextlib
import functools
import glob
import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO

from fcnseg.errors import InputError, one_line
from fcnseg.storage.file_urls import local_path
from fcnseg.storage.whole_file import naming_output, put_in_place
from fcnseg.volumes.formats.dicom.files import begins_dicom

TEMPORARY = ".tmp"
"""Folder inside an output folder for files that are not whole yet."""

_COPIES_AT_ONCE = 8  # of the many small files of a DICOM series
# The voxels of these lie in other files of the same name.
_HEADERS_ALONE = (".mhd", ".nhdr", ".hdr", ".img")
_AS_IT_IS = "uncompressed"  # Beam's CompressionTypes; else it unpacks whatever is called .gz
_SCHEME = re.compile(r"[a-zA-Z][-a-zA-Z0-9+.]*://")  # as Beam finds it


@functools.cache
def _beam() -> Any:
    """Beam's `FileSystems`, imported when a path is not local or a file is written."""
    from fcnseg.beam import quiet_beam
    from fcnseg.storage import s3

    s3.mend()  # in every worker that opens a file
    return quiet_beam.beam.io.filesystems.FileSystems


def is_local(path: str) -> bool:
    """Whether a path has no scheme such as gs://."""
    return _SCHEME.match(path.strip()) is None


def absolute(path: str) -> str:
    """The path as it holds in any working folder."""
    return str(Path(path).absolute()) if is_local(path) else path


def parent(path: str) -> str:
    """The folder that a file is in."""
    return str(_beam().split(absolute(path))[0])


def resolve(path: str, folder: str) -> str:
    """A path as it is if it is absolute or has a scheme, else inside the folder."""
    path = local_path(path)
    if not is_local(path) or Path(path).is_absolute():
        return path
    return join(folder, path)


def join(folder: str, *names: str) -> str:
    """A path inside a folder."""
    return os.path.join(folder, *names) if is_local(folder) else str(_beam().join(folder, *names))


def exists(path: str) -> bool:
    """Whether there is such a file.

    Raises:
        InputError: If no file system opens paths of this scheme.
    """
    try:
        return bool(_beam().exists(path))
    except (ValueError, OSError) as error:
        raise InputError(f"cannot look for {path}: {one_line(error)}") from error


def is_folder(path: str) -> bool:
    """Whether there is a folder of this name, or in an object store anything below it.

    Raises:
        InputError: If no file system opens paths of this scheme.
    """
    if is_local(path):
        return Path(path).is_dir()
    return not exists(path) and bool(list_folder(path))


def read_text(path: str) -> str:
    """The content of a UTF-8 file.

    Raises:
        InputError: If it is missing, unreadable or not UTF-8.
    """
    try:
        with _beam().open(path, compression_type=_AS_IT_IS) as file:
            return str(file.read().decode("utf-8-sig"))
    except FileNotFoundError as error:
        raise InputError(f"no such file: {path}") from error
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {path}: {one_line(error)}") from error


def list_folder(folder: str) -> list[str]:
    """Paths of the files in a folder and in the folders in it; none if it does not exist.

    Raises:
        InputError: If it is a file, or no file system opens paths of this scheme.
    """
    if is_local(folder):  # Beam would take characters such as [ for a pattern
        if Path(folder).is_file():
            raise InputError(f"not a folder: {folder}")
        return sorted(str(path) for path in Path(folder).rglob("*") if path.is_file())
    try:
        (found,) = _beam().match([join(glob.escape(folder), "**")])
    except (ValueError, OSError) as error:
        raise InputError(f"cannot list {folder}: {one_line(error)}") from error
    return sorted(metadata.path for metadata in found.metadata_list)


def children(folder: str) -> dict[str, bool]:
    """Names of what is in a folder, each with whether it is a folder itself.

    Raises:
        InputError: If there is no such folder, or no file system opens paths of this scheme.
    """
    if is_local(folder):
        if not Path(folder).is_dir():
            raise InputError(f"no such folder: {folder}")
        return {path.name: path.is_dir() for path in Path(folder).iterdir()}
    root = join(folder, "")
    inner = [path.removeprefix(root).split("/", 1) for path in list_folder(folder)]
    if not inner:
        raise InputError(f"no such folder: {folder}")
    return {name: bool(below) for name, *below in inner}


def delete(paths: list[str]) -> None:
    """Deletes files, in this order."""
    for path in paths:
        if is_local(path):
            Path(path).unlink()
        else:
            # S3 takes a path as it is, the others for a pattern.
            literal = _beam().get_scheme(path) == "s3"
            _beam().delete([path if literal else glob.escape(path)])


def delete_folder(folder: str) -> None:
    """Deletes a folder and all in it, if it is there."""
    if is_local(folder):
        shutil.rmtree(folder, ignore_errors=True)
    else:
        delete(list_folder(folder))


@contextlib.contextmanager
def local_copy(path: str, *, head: int | None = None) -> Iterator[Path]:
    """The file or folder itself if it is local, else a copy that is deleted afterwards.

    Args:
        path: The file or folder.
        head: Copy no more than this many bytes of a file, unless it is DICOM.

    Yields:
        A local path with the same name.

    Raises:
        InputError: If it is not local and is missing or cannot be read.
    """
    if is_local(path):
        yield Path(path)
        return
    with tempfile.TemporaryDirectory(prefix="fcnseg-") as folder:
        root, name = _beam().split(path.rstrip("/"))
        paths = _files_of(path)
        try:
            with ThreadPoolExecutor(_COPIES_AT_ONCE) as pool:
                list(pool.map(lambda each: _copy(each, root, Path(folder), head), paths))
        except (OSError, ValueError) as error:
            raise InputError(f"cannot read {path}: {one_line(error)}") from error
        yield Path(folder) / name


@contextlib.contextmanager
def written_whole(folder: str, name: str) -> Iterator[BinaryIO]:
    """Opens a file to write that appears under its name when it is whole.

    On a local disk it then survives a loss of power too, as in `fcnseg.storage.whole_file`.

    A name is taken by each attempt anew, so attempts that run at the same time do not meet.

    Args:
        folder: The output folder.
        name: Of the file in it.

    Yields:
        The open file.

    Raises:
        OutputError: If it cannot be written, as on a full disk.
    """
    place = join(folder, name)
    temporary = join(folder, TEMPORARY, f"{uuid.uuid4().hex}-{name}")
    with naming_output(place):
        with _beam().create(temporary, compression_type=_AS_IT_IS) as file:
            yield file
        if is_local(place):
            put_in_place(Path(temporary), Path(place))
        else:
            _beam().rename([temporary], [place])


def _files_of(path: str) -> list[str]:
    """A file and what belongs to it, or all that is in a folder.

    Raises:
        InputError: If there is neither.
    """
    if exists(path):
        stem, suffix = os.path.splitext(path)
        if suffix.lower() not in _HEADERS_ALONE:
            return [path]
        return [other for other in list_folder(parent(path)) if other.startswith(f"{stem}.")]
    found = list_folder(path)
    if not found:
        raise InputError(f"no such file: {path}", code="file_missing")
    return found


def _copy(path: str, root: str, folder: Path, head: int | None) -> None:
    """Copies a file to the place in a local folder that it has below a root."""
    target = folder / path.removeprefix(join(root, ""))
    target.parent.mkdir(parents=True, exist_ok=True)
    with _beam().open(path, compression_type=_AS_IT_IS) as source, target.open("wb") as copy:
        start = b"" if head is None else source.read(head)
        copy.write(start)
        if head is None or begins_dicom(start):
            shutil.copyfileobj(source, copy)
