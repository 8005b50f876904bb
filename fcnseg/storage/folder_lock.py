"""A lock on a folder, so that two processes do not write to it at once."""

from __future__ import annotations

import contextlib
import errno
import importlib.util
import logging
import os
import platform
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from fcnseg.errors import InputError

LOCK_FILE = ".lock"
"""File in the folder, which is there as long as the lock is held, or after its process was killed.
"""

_POLL_SECONDS = 0.2
_HAS_LOCKS = importlib.util.find_spec("fcntl") is not None  # not on Windows
# Errors of file systems without locks: FUSE, some network shares.
_CANNOT_LOCK = (errno.EINVAL, errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS)

logger = logging.getLogger(__name__)


class FolderInUseError(InputError):
    """Another process is writing to a folder."""


@contextlib.contextmanager
def locked_folder(folder: Path, *, argument: str, wait_seconds: float = 0.0) -> Iterator[None]:
    """Holds the lock of a folder during the block; the end of the process releases it too.

    Where there are no locks, as on some network shares, it logs a warning and goes on.

    Args:
        folder: An existing folder.
        argument: Name given by the user, for the error.
        wait_seconds: Longest time to wait for another process.

    Raises:
        FolderInUseError: If another process holds it.
    """
    path = folder / LOCK_FILE
    deadline = time.monotonic() + wait_seconds
    while (file := _try_lock(path)) is None:
        if time.monotonic() >= deadline:
            raise FolderInUseError(
                f"{argument} must not be in use, got {folder}, which {_holder(path)} writes to"
            )
        time.sleep(_POLL_SECONDS)
    with file:
        file.truncate()
        file.write(f"process {os.getpid()} on {platform.node()}")
        file.flush()
        try:
            yield
        finally:
            path.unlink(missing_ok=True)  # before the release: nobody else deletes the next lock


def _try_lock(path: Path) -> IO[str] | None:
    """The open file with the lock, or None if another process has it."""
    file = path.open("a+", encoding="utf-8")
    file.seek(0)
    if not _is_locked_now(file, path):
        file.close()
        return None
    try:
        is_current = os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        is_current = False
    if not is_current:  # the last holder deleted it in between
        file.close()
        return _try_lock(path)
    return file


def _is_locked_now(file: IO[str], path: Path) -> bool:
    if not _HAS_LOCKS:
        logger.warning(f"{path.parent} is not locked, as this system has no such locks")
        return True
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _CANNOT_LOCK:
            raise
        logger.warning(f"{path.parent} is not locked, as its file system has no locks")
    return True


def _holder(path: Path) -> str:
    """The process as the lock file names it."""
    try:
        return path.read_text(encoding="utf-8") or "another process"
    except OSError:
        return "another process"
