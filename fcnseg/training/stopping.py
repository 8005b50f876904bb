"""A run that is told to stop: it writes a checkpoint first."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator

from fcnseg.errors import FcnsegError


class TrainingStoppedError(FcnsegError):
    """A run has been told to stop, and can go on."""

    exit_status = 128 + signal.SIGTERM  # what a shell reports of a process that SIGTERM ended


class StopRequest:
    """Notes a SIGTERM, which cluster managers send some seconds before they kill."""

    def __init__(self) -> None:
        self._received = False

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Notes the signal inside the block; only the main thread of a process can."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.signal(signal.SIGTERM, lambda *_: self._note())
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)

    def check(self) -> None:
        """Ends the run if it has been told to stop.

        Raises:
            TrainingStoppedError: If it has.
        """
        if self._received:
            raise TrainingStoppedError("stopped by SIGTERM; --resume goes on")

    def _note(self) -> None:
        self._received = True
