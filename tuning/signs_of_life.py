"""Signs of life of workers on other machines: each touches a file on the disk that all share."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from fcnseg.storage.whole_file import make_folder

from .trials import WORKERS_FOLDER

_BEAT_SECONDS = 5.0


@contextlib.contextmanager
def signs_of_life(folder: Path, worker: str) -> Iterator[None]:
    """Gives signs of life of a worker during the block.

    Args:
        folder: Folder of the search.
        worker: Name of the worker.
    """
    file = make_folder(folder / WORKERS_FOLDER, argument="output") / worker
    is_over = threading.Event()

    def beat() -> None:
        while True:
            with contextlib.suppress(OSError):  # as of a network disk that is away for a while
                file.touch()
            if is_over.wait(_BEAT_SECONDS):
                return

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


class Silence:
    """The times since the last signs of life, by the clock of this machine: those of others differ.

    Attributes:
        folder: Folder of the search.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._last: dict[str, tuple[int | None, float]] = {}

    def seconds(self, worker: str) -> float:
        """The time since a worker's last sign that was seen; 0 when it is asked for first."""
        try:
            sign = (self.folder / WORKERS_FOLDER / worker).stat().st_mtime_ns
        except OSError:
            sign = None
        now = time.monotonic()
        known = self._last.get(worker)
        if known is None or known[0] != sign:
            self._last[worker] = known = (sign, now)
        return now - known[1]
