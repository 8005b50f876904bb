"""Remote file systems, opened by fsspec: one client each per process."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import threading
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from fcnseg.errors import FcnsegError, InputError, OutputError, one_line
from fcnseg.extras import require_extra

UNFINISHED = ".tmp-"
"""Prefix of the folders for unfinished output, next to its final place."""

# Scheme -> module that fsspec needs for it.
_MODULES = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs"}
# An upload to these is visible only when complete. Others need a rename afterwards.
_COMPLETE_WHEN_SEEN = frozenset(("s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "memory"))

_opening = threading.Lock()


@dataclasses.dataclass(frozen=True)
class RemotePath:
    """A path in the form of its file system.

    Attributes:
        url: The URL given by the user.
        file_system: An fsspec file system.
        name: Name within the file system.
    """

    url: str
    file_system: Any
    name: str

    @classmethod
    def of(cls, url: str) -> RemotePath:
        """Opens the file system of a URL.

        Raises:
            InputError: If no file system opens paths of this scheme.
            MissingExtraError: If the library of the store is not installed.
        """
        scheme = scheme_of(url)
        if scheme in _MODULES:
            require_extra(_MODULES[scheme])
        import fsspec  # 0.1 s, which local paths do not need

        try:
            kind = fsspec.get_filesystem_class(scheme)
        except ValueError as error:
            raise InputError(f"no file system opens {scheme}://, got {url}") from error
        except ImportError as error:  # a scheme without an extra of fcnseg
            raise InputError(f"cannot open {url}: {_said(error)}") from error
        try:
            # User and host of those that have one, as hdfs://.
            options = kind._get_kwargs_from_urls(url)
            with _opening:
                file_system = _open(scheme, tuple(sorted(options.items())), os.getpid())
        except Exception as error:
            raise InputError(f"cannot open {url}: {_said(error)}") from error
        return cls(url, file_system, str(kind._strip_protocol(url)))

    def url_of(self, name: str) -> str:
        """Gives the URL of another name on the same file system."""
        root, own = self.url.rstrip("/"), self.name.rstrip("/")
        if root.endswith(own):  # the scheme, and the host if there is one, as given
            return root.removesuffix(own) + name
        return str(self.file_system.unstrip_protocol(name))


@functools.cache
def _open(scheme: str, options: tuple[tuple[str, Any], ...], _process: int) -> Any:
    """Opens a file system for all threads of a process; fsspec would make one per thread.

    A client does not survive a fork, so a process has its own. Listings are not kept: other
    processes write to the store at the same time.
    """
    import fsspec

    return fsspec.filesystem(
        scheme, skip_instance_cache=True, use_listings_cache=False, **dict(options)
    )


def close_all() -> None:
    """Drops all clients, so that the next path is opened with the environment of that time."""
    _open.cache_clear()


def scheme_of(url: str) -> str:
    """The scheme of a URL, such as s3."""
    return url.strip().partition("://")[0].lower()


@contextlib.contextmanager
def naming_input(path: str, verb: str = "read") -> Iterator[None]:
    """Turns errors of a store's client into one line that names the path.

    Raises:
        InputError: If the block raises anything but an error of fcnseg: each client has its own.
    """
    try:
        yield
    except FcnsegError:
        raise
    except Exception as error:
        raise InputError(f"cannot {verb} {path}: {_said(error)}") from error


def download(sources: Sequence[str], targets: Sequence[Path], *, named: str) -> None:
    """Copies files of one file system to this machine, concurrently if it can.

    Args:
        sources: Their URLs.
        targets: Paths of the copies, in existing folders.
        named: Name given by the user, for the error.

    Raises:
        InputError: If one cannot be read.
    """
    if not sources:
        return
    remote = [RemotePath.of(source) for source in sources]
    with naming_input(named):
        # Two lists are taken literally, while characters such as [ in one name are a pattern.
        remote[0].file_system.get([each.name for each in remote], [str(path) for path in targets])


def upload(source: Path, url: str) -> None:
    """Uploads a file, which appears when it is complete.

    The files of a folder appear one by one, in any order.

    Raises:
        OutputError: If it cannot be written.
    """
    try:
        if source.is_dir():
            files = [path for path in source.rglob("*") if path.is_file()]
            names = [f"{url}/{path.relative_to(source).as_posix()}" for path in files]
        else:
            files, names = [source], [url]
        _put(files, [RemotePath.of(name) for name in names])
    except OutputError:
        raise
    except Exception as error:
        raise OutputError(f"cannot write {url}: {_said(error)}") from error


def _put(files: Sequence[Path], targets: Sequence[RemotePath]) -> None:
    if not files:
        return
    file_system = targets[0].file_system
    if scheme_of(targets[0].url) in _COMPLETE_WHEN_SEEN:
        file_system.put([str(file) for file in files], [target.name for target in targets])
        return
    for file, target in zip(files, targets, strict=True):
        parent, _, name = target.name.rpartition("/")
        folder = f"{parent}/{UNFINISHED}{uuid.uuid4().hex}"
        file_system.makedirs(folder, exist_ok=True)
        try:
            file_system.put_file(str(file), f"{folder}/{name}")
            file_system.mv(f"{folder}/{name}", target.name)
        finally:
            file_system.rm(folder, recursive=True)


def _said(error: BaseException) -> str:
    """The message of a client's error on one line; some have none."""
    return one_line(error) or type(error).__name__
