"""Operations on files of any file system: find, list, read, copy to this machine, and delete.

Paths are local, or URLs of a file system that fsspec opens: s3://, gs://, hdfs://. For writing see
`fcnseg.storage.whole_file`.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from fcnseg.errors import InputError, one_line
from fcnseg.storage.file_systems import UNFINISHED, RemotePath, download, naming_input
from fcnseg.storage.file_urls import local_path

PathLike = str | os.PathLike[str]

_HEADS_AT_ONCE = 8  # beginnings of files read at one time
_SCHEME = re.compile(r"[a-zA-Z][-a-zA-Z0-9+.]*://")


def is_local(path: PathLike) -> bool:
    """Tells whether a path has no scheme such as gs://."""
    return _SCHEME.match(os.fspath(path).strip()) is None


def absolute(path: str) -> str:
    """Makes a path independent of the working folder."""
    return str(Path(path).absolute()) if is_local(path) else path


def parent(path: str) -> str:
    """Gives the folder of a file."""
    if is_local(path):
        return str(Path(path).absolute().parent)
    scheme, _, rest = path.rstrip("/").partition("://")
    return f"{scheme}://{rest.rpartition('/')[0]}"


def name_of(path: PathLike) -> str:
    """Gives the last part of a path."""
    return os.path.basename(os.fspath(path).rstrip("/"))


def resolve(path: str, folder: str) -> str:
    """Keeps a path that is absolute or has a scheme; joins any other to a folder."""
    path = local_path(path)
    if not is_local(path) or Path(path).is_absolute():
        return path
    return join(folder, path)


def join(folder: PathLike, *names: str) -> str:
    """Joins a path and a folder; an empty last name gives the folder with a slash at its end."""
    folder = os.fspath(folder)
    return os.path.join(folder, *names) if is_local(folder) else _join_url(folder, names)


def _join_url(folder: str, names: Sequence[str]) -> str:
    return "/".join([folder.rstrip("/"), *names])


def exists(path: PathLike) -> bool:
    """Tells whether a file exists.

    Raises:
        InputError: If its file system cannot be queried, or there is none for the scheme.
    """
    return size(path) is not None


def size(path: PathLike) -> int | None:
    """Gives the bytes of a file; None if there is no such file.

    Raises:
        InputError: See `exists`.
    """
    path = os.fspath(path)
    if is_local(path):
        return Path(path).stat().st_size if Path(path).is_file() else None
    remote = RemotePath.of(path)
    with naming_input(path, "look for"):
        try:
            found = remote.file_system.info(remote.name)
        except FileNotFoundError:
            return None
        return int(found["size"]) if found["type"] == "file" else None


def modified(path: PathLike) -> float | None:
    """Gives the time at which a local file, or any file of a local folder, was last modified.

    Args:
        path: A file or folder on any file system.

    Returns:
        Seconds since the epoch; None if there is no such file, or it is in an object store.
    """
    if not is_local(path):
        return None
    local, times = Path(path), []
    for file in (local, *local.rglob("*")) if local.is_dir() else (local,):
        with contextlib.suppress(OSError):  # it is not there, or was deleted meanwhile
            times.append(file.stat().st_mtime)
    return max(times, default=None)


def is_folder(path: PathLike) -> bool:
    """Tells whether a folder exists, or in an object store anything below the name.

    Raises:
        InputError: See `exists`.
    """
    path = os.fspath(path)
    if is_local(path):
        return Path(path).is_dir()
    return not exists(path) and bool(list_folder(path))


def read_bytes(path: PathLike) -> bytes:
    """Reads a file completely.

    Raises:
        InputError: If it is missing or unreadable.
    """
    path = os.fspath(path)
    try:
        if is_local(path):
            return Path(path).read_bytes()
        remote = RemotePath.of(path)
        with naming_input(path):
            try:
                return bytes(remote.file_system.cat_file(remote.name))
            except FileNotFoundError as error:
                raise InputError(f"no such file: {path}", code="file_missing") from error
    except FileNotFoundError as error:
        raise InputError(f"no such file: {path}", code="file_missing") from error
    except OSError as error:
        raise InputError(f"cannot read {path}: {one_line(error)}") from error


def read_start(path: PathLike, length: int) -> bytes:
    """Reads the first bytes of a file, which may be longer or shorter.

    Raises:
        InputError: If it is missing or unreadable.
    """
    path = os.fspath(path)
    if is_local(path):
        try:
            with Path(path).open("rb") as file:
                return file.read(length)
        except OSError as error:
            raise InputError(f"cannot read {path}: {one_line(error)}") from error
    remote = RemotePath.of(path)
    with naming_input(path):
        if not remote.file_system.size(remote.name):
            return b""  # S3 has no empty range
        return bytes(remote.file_system.cat_file(remote.name, start=0, end=length))


def read_text(path: PathLike) -> str:
    """Reads a UTF-8 file.

    Raises:
        InputError: If it is missing, unreadable or not UTF-8.
    """
    try:
        return read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"cannot read {os.fspath(path)}: {one_line(error)}") from error


def list_folder(folder: PathLike) -> list[str]:
    """Lists the paths of files in a folder and its subfolders; none if it does not exist.

    Raises:
        InputError: If it is a file, or its file system cannot be queried.
    """
    return sorted(list_sizes(folder))


def list_sizes(folder: PathLike) -> dict[str, int]:
    """Lists the paths of files in a folder and its subfolders with their sizes in bytes.

    Raises:
        InputError: See `list_folder`.
    """
    folder = os.fspath(folder)
    if is_local(folder):
        return _local_sizes(Path(folder))
    remote = RemotePath.of(folder)
    root = remote.name.rstrip("/") + "/"
    with naming_input(folder, "list"):
        try:
            found = remote.file_system.find(remote.name, detail=True)
        except FileNotFoundError:
            return {}
        # A name that ends with a slash is a folder that some program has created as an empty
        # object.
        return {
            remote.url_of(name): int(entry["size"] or 0)
            for name, entry in found.items()
            if name.startswith(root) and not name.endswith("/")
        }


def _local_sizes(folder: Path) -> dict[str, int]:
    if folder.is_file():
        raise InputError(f"not a folder: {folder}")
    sizes = {}
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):  # it was deleted or renamed meanwhile
            if path.is_file():
                sizes[str(path)] = path.stat().st_size
    return sizes


def children(folder: PathLike) -> dict[str, bool]:
    """Lists the names in a folder, each with True if it is a folder itself.

    Raises:
        InputError: If there is no such folder, or its file system cannot be queried.
    """
    folder = os.fspath(folder)
    if is_local(folder):
        if not Path(folder).is_dir():
            raise InputError(f"no such folder: {folder}")
        return {path.name: path.is_dir() for path in Path(folder).iterdir()}
    remote = RemotePath.of(folder)
    root = remote.name.rstrip("/") + "/"
    with naming_input(folder, "list"):
        try:
            entries = remote.file_system.ls(remote.name, detail=True)
        except FileNotFoundError as error:
            raise InputError(f"no such folder: {folder}") from error
    found = {
        entry["name"].removeprefix(root).rstrip("/"): entry["type"] == "directory"
        for entry in entries
        if entry["name"].startswith(root) and entry["name"] != root
    }
    if not found:
        raise InputError(f"no such folder: {folder}")
    return found


def delete(paths: Iterable[PathLike]) -> None:
    """Deletes files, in the given order.

    Raises:
        InputError: If one in a store cannot be deleted.
    """
    for path in [os.fspath(each) for each in paths]:
        if is_local(path):
            Path(path).unlink()
            continue
        remote = RemotePath.of(path)
        with naming_input(path, "delete"):
            remote.file_system.rm_file(remote.name)


def delete_folder(folder: PathLike) -> None:
    """Deletes a folder and its contents, if it exists."""
    if is_local(folder):
        shutil.rmtree(folder, ignore_errors=True)
    else:
        delete(list_folder(folder))


def list_unfinished(folder: PathLike) -> list[str]:
    """Lists the temporary folders of `atomic_write` in a folder, in use or left by a kill."""
    folder = os.fspath(folder)
    if is_local(folder):
        return sorted(str(path) for path in Path(folder).glob(f"{UNFINISHED}*") if path.is_dir())
    root = join(folder, "")
    names = {path.removeprefix(root).partition("/")[0] for path in list_folder(folder)}
    return [join(folder, name) for name in sorted(names) if name.startswith(UNFINISHED)]


@contextlib.contextmanager
def local_copy(
    path: PathLike,
    *,
    beside: Sequence[str] = (),
    head: int | None = None,
    copied_whole: Callable[[bytes], bool] | None = None,
) -> Iterator[Path]:
    """Gives the file or folder itself if it is local, else a copy that is deleted afterwards.

    Args:
        path: The file or folder.
        beside: Paths of files in the same folder that are copied with it.
        head: Copy no more than this many bytes of a file.
        copied_whole: Tells from the beginning of a file whether it is copied completely
            nevertheless.

    Yields:
        A local path with the same name.

    Raises:
        InputError: If it is not local and is missing or cannot be read.
    """
    path = os.fspath(path)
    if is_local(path):
        yield Path(path)
        return
    with tempfile.TemporaryDirectory(prefix="fcnseg-") as folder:
        sizes = _sizes_of(path)
        for other in beside:
            found = size(other)
            if found is not None:
                sizes[other] = found
        targets = _places(sizes, path, Path(folder))
        _copy(path, sizes, targets, head=head, copied_whole=copied_whole)
        yield Path(folder) / name_of(path)


def _sizes_of(path: str) -> dict[str, int]:
    """Lists a file, or all files in a folder, each with its size in bytes.

    Raises:
        InputError: If there is neither.
    """
    of_file = size(path)
    if of_file is not None:
        return {path: of_file}
    found = list_sizes(path)
    if not found:
        raise InputError(f"no such file: {path}", code="file_missing")
    return found


def _places(paths: Iterable[str], source: str, folder: Path) -> dict[str, Path]:
    """Local paths for a file, or a folder and its contents; their folders are created.

    Files next to the source are next to it there too.

    Raises:
        InputError: If a name leads out of the folder.
    """
    places = {}
    for path in paths:
        is_inside = path.startswith(join(source, ""))
        below = path.removeprefix(join(source, "")) if is_inside else name_of(path)
        parts = [part for part in below.split("/") if part]  # a store accepts a//b as a name
        if ".." in parts:
            raise InputError(f"a name must not lead out of its folder, got {path}")
        places[path] = folder.joinpath(*[name_of(source)] * is_inside, *parts)
        places[path].parent.mkdir(parents=True, exist_ok=True)
    return places


def _copy(
    named: str,
    sizes: Mapping[str, int],
    targets: Mapping[str, Path],
    *,
    head: int | None,
    copied_whole: Callable[[bytes], bool] | None,
) -> None:
    if head is not None:
        long = [path for path, length in sizes.items() if length > head]
        with ThreadPoolExecutor(_HEADS_AT_ONCE) as pool:
            starts = list(pool.map(lambda path: read_start(path, head), long))
        for path, start in zip(long, starts, strict=True):
            if copied_whole is None or not copied_whole(start):
                targets[path].write_bytes(start)
    rest = [path for path in sizes if not targets[path].exists()]
    download(rest, [targets[path] for path in rest], named=named)
