"""Admission of calls: so many run, so many wait, and so many bytes are held for them.

A call is counted before its message is read, and takes its turn before the message is parsed, so
that no number of clients takes all memory.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

from fcnseg.saved_model.session import StatusError

from .statuses import deadline_exceeded, stopping


class Call:
    """One call of a client: when it must have ended, and whether the client still waits."""

    def __init__(self, timeout_s: float | None = None) -> None:
        """Starts the clock.

        Args:
            timeout_s: Seconds that the call may take; None for no limit.
        """
        self._deadline = None if timeout_s is None else time.monotonic() + timeout_s
        self.is_given_up = False

    def check(self) -> None:
        """Checks that there is still somebody to answer.

        Raises:
            StatusError: If no time is left, or the client has given up the call.
        """
        if self.is_given_up:
            raise StatusError("CANCELLED", "the client gave up the call")
        self.left_s()

    def left_s(self) -> float | None:
        """Seconds that are left, None for no limit.

        Raises:
            StatusError: If none are.
        """
        if self._deadline is None:
            return None
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise deadline_exceeded()
        return left


class Place:
    """The place of one call among those that are admitted."""

    def __init__(self, admission: Admission, call: Call) -> None:
        """Belongs to `Admission.enter`."""
        self._admission = admission
        self.call = call
        self.held = 0

    def hold(self, size: int) -> None:
        """Counts bytes that are kept in memory for the call, before they are read.

        Raises:
            StatusError: If others hold too many.
        """
        self._admission.hold(self, size)

    def release(self, size: int) -> None:
        """Counts bytes no longer that were held and are freed before the call ends."""
        self._admission.release(self, size)

    def reading(self) -> AbstractContextManager[None]:
        """Waits until a message of unknown size may be read; the block reads and holds it.

        Raises:
            StatusError: If its time is over, its client has given it up, or the server stops.
        """
        return self._admission.reading(self.call)

    def running(self) -> AbstractContextManager[None]:
        """Waits for the call's turn; the block is its run.

        Raises:
            StatusError: If its time is over, its client has given it up, or the server stops.
        """
        return self._admission.running(self.call)


@dataclasses.dataclass
class _Turns:
    """Turns of one kind.

    Attributes:
        waiting: Calls that wait for one, in order of arrival.
        taken: Number of calls that have one.
    """

    waiting: collections.deque[Call] = dataclasses.field(default_factory=collections.deque)
    taken: int = 0


class Admission:
    """Counts the calls of a server, over all transports. Turns are taken in order of arrival."""

    def __init__(
        self, *, max_running: int, max_waiting: int, max_held_bytes: int, max_reading: int = 8
    ) -> None:
        """Admits calls at once.

        Args:
            max_running: Calls that run at the same time.
            max_waiting: Calls that wait for their turn.
            max_held_bytes: Bytes of all messages and replies in memory; one that is alone may be
                larger.
            max_reading: Messages of unknown size that are read at the same time: so many that
                there would be memory if each took its share of `max_held_bytes`.
        """
        self._max_running = max_running
        self._max_waiting = max_waiting
        self._max_held_bytes = max_held_bytes
        self._max_reading = max_reading
        self._changed = threading.Condition()
        self._admitted = self._held = self._replies = 0
        self._reading, self._running = _Turns(), _Turns()
        self._is_closed = False

    @contextlib.contextmanager
    def enter(self, call: Call) -> Iterator[Place]:
        """Admits a call for the time of the block.

        Raises:
            StatusError: If too many are there, or the server stops.
        """
        with self._changed:
            if self._is_closed:
                raise stopping()
            if self._has_no_place():
                raise StatusError(
                    "RESOURCE_EXHAUSTED",
                    f"{self._max_running} calls run and {self._max_waiting} wait: try again later",
                )
            self._admitted += 1
        place = Place(self, call)
        try:
            yield place
        finally:
            with self._changed:
                self._admitted -= 1
                self._held -= place.held
                self._changed.notify_all()

    def hold(self, place: Place, size: int) -> None:
        """Belongs to `Place.hold`."""
        with self._changed:
            others = self._held - place.held
            if others and others + place.held + size > self._max_held_bytes:
                raise StatusError(
                    "RESOURCE_EXHAUSTED",
                    f"messages of {self._held} bytes wait, with {size} more they would exceed"
                    f" {self._max_held_bytes}: try again later",
                )
            place.held += size
            self._held += size

    @contextlib.contextmanager
    def replying(self, size: int) -> Iterator[None]:
        """Counts the bytes of a reply, which is sent in the block.

        It is never refused, but while too many bytes are held on account of replies, no run begins.
        """
        self._count_reply(size)
        try:
            yield
        finally:
            self._count_reply(-size)

    def reading(self, call: Call) -> AbstractContextManager[None]:
        """Belongs to `Place.reading`."""
        return self._turn(self._reading, call, self._may_read)

    def release(self, place: Place, size: int) -> None:
        """Belongs to `Place.release`."""
        with self._changed:
            place.held -= size
            self._held -= size
            self._changed.notify_all()

    def running(self, call: Call) -> AbstractContextManager[None]:
        """Belongs to `Place.running`."""
        return self._turn(self._running, call, self._may_run)

    def give_up(self, call: Call) -> None:
        """Marks a call whose client has gone: if it has not begun, it never will."""
        with self._changed:
            call.is_given_up = True
            self._changed.notify_all()

    def close(self) -> None:
        """Admits no further call; those that wait end, those that run go on."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    def wait_until_idle(self, timeout_s: float) -> bool:
        """Waits until no call or reply is left, or for some seconds; false if some are."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._admitted + self._held, timeout_s)

    @property
    def is_full(self) -> bool:
        """True if others are refused: there is no place left, or no memory."""
        with self._changed:
            return self._has_no_place() or self._held >= self._max_held_bytes

    @property
    def has_unread(self) -> bool:
        """True if a message waits until others have been read."""
        with self._changed:
            return bool(self._reading.waiting)

    @property
    def counts(self) -> tuple[int, int, int]:
        """Calls admitted, calls running, bytes held."""
        with self._changed:
            return self._admitted, self._running.taken, self._held

    def _has_no_place(self) -> bool:
        return self._admitted >= self._max_running + self._max_waiting

    def _may_read(self) -> bool:
        share = self._max_held_bytes // self._max_reading
        reading = self._reading.taken
        fits = self._held + (reading + 1) * share <= self._max_held_bytes
        return not reading or (fits and reading < self._max_reading)

    def _may_run(self) -> bool:
        has_memory = not self._replies or self._held <= self._max_held_bytes
        return has_memory and self._running.taken < self._max_running

    def _count_reply(self, size: int) -> None:
        with self._changed:
            self._held += size
            self._replies += size
            self._changed.notify_all()

    @contextlib.contextmanager
    def _turn(self, turns: _Turns, call: Call, is_free: Callable[[], bool]) -> Iterator[None]:
        """Waits, in order of arrival, until there is a turn, which is that of the block."""
        with self._changed:
            turns.waiting.append(call)
            try:
                while not is_free() or turns.waiting[0] is not call:
                    self._check(call)
                    self._changed.wait(call.left_s())
                self._check(call)
            finally:
                turns.waiting.remove(call)
                self._changed.notify_all()
            turns.taken += 1
        try:
            yield
        finally:
            with self._changed:
                turns.taken -= 1
                self._changed.notify_all()

    def _check(self, call: Call) -> None:
        call.check()
        if self._is_closed:
            raise stopping()
