"""Bounds on connections: how many, how many from one address, and for how long one may send nothing.

A client needs no token to open a connection, and each takes a file descriptor of the process. So connections are refused beyond
a number that leaves descriptors to everything else, and one that does not send a request in time is closed.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from servicekit.server.connection_count import REFUSALS_LOGGED_EVERY_S, Connections

HEADER_S = 10.0
"""From the opening of a connection, or the first byte of a further request, to the end of the request's headers."""
BODY_S = 60.0
"""From there to the end of its body."""
_REFUSALS_AT_ONCE = 200
"""Then the event loop has its turn."""


class BoundedListener(socket.socket):
    """A listening socket that closes what exceeds the bounds at once, before anything is spent on it, TLS included."""

    connections: Connections

    def accept(self) -> tuple[socket.socket, Any]:
        """Returns the next connection within the bounds. Raises BlockingIOError when there is none."""
        for _ in range(_REFUSALS_AT_ONCE):
            descriptor, address = self._accept()  # type: ignore[attr-defined]
            found = _Counted(self.family, self.type, self.proto, fileno=descriptor)
            host = str(address[0])
            if self.connections.admit(host):
                found.count(self.connections, host)
                return found, address
            found.close()
        raise BlockingIOError


class _Counted(socket.socket):
    """An accepted connection, which counts until it is closed."""

    def count(self, connections: Connections, address: str) -> None:
        self._left = partial(connections.left, address)

    def _real_close(self, *arguments: Any) -> None:
        super()._real_close(*arguments)  # type: ignore[misc]
        left = getattr(self, "_left", None)
        if left is not None:
            del self._left
            left()


class BoundedProtocol(H11Protocol):
    """uvicorn's protocol, with limits on how long the parts of a request may take to arrive."""

    header_s = HEADER_S
    body_s = BODY_S
    _timer: asyncio.TimerHandle | None = None
    _waits_for: object = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Starts the time for the first request."""
        super().connection_made(transport)
        self._expect(h11.IDLE)

    def connection_lost(self, exc: Exception | None) -> None:
        """Ends it."""
        self._expect(None)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Starts the time for what the client must send next. Between requests, uvicorn's own limit holds."""
        super().data_received(data)
        state = self.conn.their_state
        self._expect(state if state in (h11.IDLE, h11.SEND_BODY) else None)

    def _expect(self, state: object) -> None:
        if state is self._waits_for:
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._waits_for = state
        if state is not None:
            limit_s = self.header_s if state is h11.IDLE else self.body_s
            self._timer = self.loop.call_later(limit_s, self.transport.close)


def repeated_lines(every_s: float = REFUSALS_LOGGED_EVERY_S) -> Callable[[logging.LogRecord], bool]:
    """Returns a filter that lets each text pass once in a while: clients without a token cause these lines."""
    last: dict[str, float] = {}

    def passes(record: logging.LogRecord) -> bool:
        now = time.monotonic()
        if now - last.get(record.msg if isinstance(record.msg, str) else "", -every_s) < every_s:
            return False
        if len(last) > 100:
            last.clear()
        last[str(record.msg)] = now
        return True

    return passes
