"""A bound on the bytes of all responses that their callers have not taken yet.

gRPC keeps a response until its caller reads it, and a caller may never do so: 300 unread pages of 3 MB took 2.7 GB. So a response
is counted from the time when its handler returns it until gRPC has sent it. A message of a stream counts while it is written;
gRPC takes the next one only when the caller has read most of this one.

gRPC ends no call whose caller reads nothing before the caller's own deadline, or the greatest age of a connection. So one
principal gets an eighth only: as many principals together can use up all of it. A response waits for room for a quarter of a
second, and then the call is refused. Small responses are not counted and never refused: a principal's rate of calls bounds
them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from servicekit.server.request_memory import Held, RequestMemory

MAX_RESPONSE_MEMORY_BYTES = 64 << 20
"""gRPC has a copy of each: the process takes twice as much."""
SMALL_BYTES = 4 << 10
_PRINCIPALS = 8
_WAIT_S = 0.25
"""Short, because what waits takes memory, too. Beyond a quarter of the room nothing waits."""


class ResponseMemory:
    """Used by one event loop. `max_bytes`: of all responses."""

    def __init__(self, max_bytes: int = MAX_RESPONSE_MEMORY_BYTES) -> None:
        self._waiting_bytes = 0
        self._most_waiting_bytes = max_bytes // 4
        self._memory = RequestMemory(
            max_bytes,
            1,
            wait_s=_WAIT_S,
            most_of_one=max_bytes // _PRINCIPALS,
            what="responses",
            reason="RESPONSE_MEMORY",
        )

    async def until_sent(self, principal: str, size: int, context: Any) -> None:
        """Counts the response of a unary call until gRPC's `context` is done.

        Raises:
            ResourceExhausted: there is no room within the time to wait.
        """
        if size > SMALL_BYTES:
            held = await self._admit(principal, size)

            def sent(_: object, held: Held = held) -> None:
                self._memory.release(held)

            context.add_done_callback(sent)

    @asynccontextmanager
    async def written(self, principal: str, size: int) -> AsyncIterator[None]:
        """Counts a message of a stream while the block writes it. Raises like `until_sent`."""
        if size <= SMALL_BYTES:
            yield
            return
        held = await self._admit(principal, size)
        try:
            yield
        finally:
            self._memory.release(held)

    async def _admit(self, principal: str, size: int) -> Held:
        if self._waiting_bytes + size > self._most_waiting_bytes:
            return await self._memory.admit(principal, size, waits=False)
        self._waiting_bytes += size
        try:
            return await self._memory.admit(principal, size)
        finally:
            self._waiting_bytes -= size

    @property
    def used_bytes(self) -> int:
        """The sum of all responses that are counted."""
        return self._memory.used_bytes
