"""HTTP connections of the REST server, which cut slow clients and answer in JSON."""

from __future__ import annotations

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from .json_replies import error_to_json


class JsonConnection(H11Protocol):
    """A connection whose requests must arrive in time, and whose replies must be read.

    The time is uvicorn's `timeout_keep_alive`, which alone covers a connection between requests.
    The application sees to the body of a request that it has not answered yet.
    """

    _idle_timer: asyncio.TimerHandle | None = None
    _write_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Waits for a request, which is refused if too many connections are open."""
        super().connection_made(transport)
        limit = self.limit_concurrency
        if limit is not None and len(self.connections) > limit:
            self.app = lambda _scope, _receive, send: _refuse(send, limit)
        self.limit_concurrency = None  # uvicorn's own answer is not JSON
        self._watch_idle()

    def data_received(self, data: bytes) -> None:
        """Takes bytes of a request."""
        super().data_received(data)
        self._watch_idle()

    def on_response_complete(self) -> None:
        """Waits for the rest of the request, which may have a body that nobody asked for."""
        super().on_response_complete()
        if self.conn.their_state is h11.SEND_BODY:
            self._watch_idle()

    def connection_lost(self, exc: Exception | None) -> None:
        """Ends the timers."""
        self._idle_timer = _cancelled(self._idle_timer)
        self._write_timer = _cancelled(self._write_timer)
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Notes that the client does not read."""
        super().pause_writing()
        self._write_timer = self.loop.call_later(self.timeout_keep_alive, self.transport.abort)

    def resume_writing(self) -> None:
        """Notes that the client reads again."""
        super().resume_writing()
        self._write_timer = _cancelled(self._write_timer)

    def send_400_response(self, msg: str) -> None:
        """Answers what is no HTTP request."""
        body = error_to_json(msg).encode()
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
        ]
        for event in (
            h11.Response(status_code=400, headers=headers, reason=b"Bad Request"),
            h11.Data(data=body),
            h11.EndOfMessage(),
        ):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def _watch_idle(self) -> None:
        """Gives the client some time while the application waits for no request of its."""
        if self.cycle is not None and not self.cycle.response_complete:
            self._idle_timer = _cancelled(self._idle_timer)
        elif self._idle_timer is None:
            self._idle_timer = self.loop.call_later(self.timeout_keep_alive, self.transport.close)


async def _refuse(send: Any, limit: int) -> None:
    """Answers that there are too many connections."""
    body = error_to_json(f"{limit} connections are open: try again later").encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": 503, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _cancelled(timer: asyncio.TimerHandle | None) -> asyncio.TimerHandle | None:
    """Cancels a timer, and gives that there is none."""
    if timer is not None:
        timer.cancel()
    return None
