"""Deadlines of unary calls: a default when the client set none, and a limit on the client's deadline."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from servicekit.errors import DeadlineExceeded
from servicekit.server.call import Call


class Deadline:
    """Sets the deadline of unary calls. A stream has only the deadline that its client or its route sets, if any."""

    def __init__(self, default_s: float, longest_s: float) -> None:
        self._default_s = default_s
        self._longest_s = longest_s

    @asynccontextmanager
    async def __call__(self, call: Call) -> AsyncIterator[None]:
        """Cancels the handler when the deadline passes."""
        limit_s = self._limit_s(call)
        try:
            async with asyncio.timeout(limit_s) as scope:
                yield
        except TimeoutError:
            if scope.expired():
                raise DeadlineExceeded(limit_s) from None
            raise  # the handler's own

    def _limit_s(self, call: Call) -> float | None:
        given_s = call.remaining_s()
        if call.streaming:
            return given_s
        return min(self._default_s if given_s is None else given_s, self._longest_s)
