"""Preemption: a run that is asked to stop writes a checkpoint first."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator

from fcnseg.errors import FcnsegError

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class TrainingStoppedError(FcnsegError):
    """A run was stopped by a signal, and can be resumed.

    Attributes:
        received: The signal.
        exit_status: Exit status that a shell reports for a process ended by the signal.
    """

    def __init__(self, received: signal.Signals) -> None:
        super().__init__(f"stopped by {received.name}; --resume continues the run")
        self.received = received
        self.exit_status = 128 + received


class StopRequest:
    """Records a SIGTERM, which cluster managers send some seconds before they kill, and a Ctrl-C.

    A second Ctrl-C ends the process at once, without a checkpoint.
    """

    def __init__(self) -> None:
        self._received: signal.Signals | None = None

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Records the signals inside the block; only possible in the main thread."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.getsignal(number) for number in _SIGNALS}
        for number in _SIGNALS:
            signal.signal(number, lambda number, _: self._note(signal.Signals(number)))
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def check(self) -> None:
        """Raises an error if the run was asked to stop.

        Raises:
            TrainingStoppedError: If it was.
        """
        if self._received is not None:
            raise TrainingStoppedError(self._received)

    def _note(self, received: signal.Signals) -> None:
        self._received = received
        if received == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.default_int_handler)
