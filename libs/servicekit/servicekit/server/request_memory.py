"""A bound on the bytes of all requests that a process receives or handles at once.

gRPC does not say how large a request will be before it has it whole, so a call reserves the largest size before its first byte
is read. It keeps what the request really has until the call ends. HTTP requests reserve the length that they declare.

- One principal gets at most half, so others are received meanwhile. Callers of public methods count as one principal.
- A call waits for room for two seconds, and is then refused with the time after which it may return. Among those that wait, the
  principal that holds the least is next.
- A request that is still incomplete after a second makes room for one that waits: a client that sends nothing keeps nobody out.
- A stream of requests has the largest size of a message for as long as it is open, from a part of its own: it may be silent
  for hours, and nothing tells a silent stream from half a message.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field

from servicekit.errors import ResourceExhausted
from servicekit.telemetry.metrics import REQUESTS_WITHOUT_MEMORY

MAX_RECEIVE_BYTES = (4 << 20) + (64 << 10)
"""Largest message on the wire. gRPC ends a call with a larger one with RESOURCE_EXHAUSTED, without details. The pipeline refuses
requests above 4 MiB by name, so a little more than that must arrive."""

_WAIT_S = 2.0
_RETRY_S = 1.0
_UNDISTURBED_S = 1.0
"""For so long an incomplete request keeps its room while others wait."""

_PRINCIPALS_OF_STREAMS = 4
"""So many principals can use up all streams."""


@dataclass(eq=False)
class Held:
    """The part of one call. Ends with `RequestMemory.release`."""

    principal: str
    size: int
    begun: float
    receiving: asyncio.Timeout | None = None
    """Set while the request arrives; ends the wait for it."""


@dataclass(eq=False)
class _Waiting:
    held: Held
    admitted: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class RequestMemory:
    """Used by one event loop, for all servers of a process.

    Args:
        max_bytes: all requests without streams.
        max_streams: streams of requests that may be open.
        wait_s: how long a call waits for room.
        undisturbed_s: how long an incomplete request keeps its room while others wait.
        most_of_one: bytes of one principal; half of all by default.
        what, reason: of a refusal.
    """

    def __init__(
        self,
        max_bytes: int,
        max_streams: int,
        *,
        wait_s: float = _WAIT_S,
        undisturbed_s: float = _UNDISTURBED_S,
        most_of_one: int | None = None,
        what: str = "requests",
        reason: str = "REQUEST_MEMORY",
    ) -> None:
        self._what = what
        self._reason = reason
        self._max_bytes = max_bytes
        self._max_of_one = max_bytes // 2 if most_of_one is None else most_of_one
        self._max_streams = max_streams
        self._wait_s = wait_s
        self._undisturbed_s = undisturbed_s
        self._total = 0
        self._of: Counter[str] = Counter()
        self._receiving: dict[Held, None] = {}  # the oldest first
        self._waiting: list[_Waiting] = []
        self._timer: asyncio.TimerHandle | None = None
        self._streams: Counter[str] = Counter()

    async def admit(self, principal: str, size: int, *, waits: bool = True) -> Held:
        """Returns the room for a request of at most `size` bytes.

        Raises:
            ResourceExhausted: there is none within the time to wait; at once if it does not wait.
        """
        held = Held(principal, size, asyncio.get_running_loop().time())
        if (not waits or not self._waiting) and self._fits(held):
            self._take(held)
            return held
        if not waits:
            raise self._refusal(principal)
        waiting = _Waiting(held)
        self._waiting.append(waiting)
        self._admit_waiting()
        self._make_room()
        try:
            async with asyncio.timeout(self._wait_s):
                await waiting.admitted
        except BaseException as error:
            if waiting in self._waiting:
                self._waiting.remove(waiting)
            elif not waiting.admitted.cancelled():
                self.release(held)
            if isinstance(error, TimeoutError):
                raise self._refusal(principal) from None
            raise
        return held

    @asynccontextmanager
    async def receiving(self, held: Held) -> AsyncIterator[None]:
        """Receives the request in the block.

        Raises:
            ResourceExhausted: it is incomplete after a second, and others wait.
        """
        scope = asyncio.timeout(None)
        try:
            async with scope:
                held.receiving = scope
                self._receiving[held] = None
                yield
        except TimeoutError:
            if not scope.expired():
                raise
            REQUESTS_WITHOUT_MEMORY.labels("incomplete").inc()
            message = (
                f"the request was incomplete after {self._undisturbed_s:g} s, while others waited for memory"
            )
            raise ResourceExhausted("REQUEST_INCOMPLETE", message, retry_after_s=_RETRY_S) from None
        finally:
            held.receiving = None
            self._receiving.pop(held, None)

    def shrink(self, held: Held, size: int) -> None:
        """Keeps `size` bytes of the room: what the request has in fact."""
        self._give(held, held.size - size)
        held.size = size
        self._admit_waiting()

    def release(self, held: Held) -> None:
        """Ends the use of the room."""
        self._give(held, held.size)
        held.size = 0
        self._admit_waiting()

    @contextmanager
    def stream(self, principal: str) -> Iterator[None]:
        """Counts an open stream of requests.

        Raises:
            ResourceExhausted: too many are open, in the process or of this principal.
        """
        most = max(1, self._max_streams // _PRINCIPALS_OF_STREAMS)
        if self._streams[principal] >= most or self._streams.total() >= self._max_streams:
            REQUESTS_WITHOUT_MEMORY.labels("stream").inc()
            message = (
                f"at most {self._max_streams} streams of requests may be open, {most} of one principal; "
                "end some first"
            )
            raise ResourceExhausted("TOO_MANY_STREAMS", message, retry_after_s=_RETRY_S)
        self._streams[principal] += 1
        try:
            yield
        finally:
            self._streams[principal] -= 1
            if not self._streams[principal]:
                del self._streams[principal]

    @property
    def used_bytes(self) -> int:
        """The sum of all room."""
        return self._total

    def _fits(self, held: Held) -> bool:
        return (
            self._total + held.size <= self._max_bytes
            and self._of[held.principal] + held.size <= self._max_of_one
        )

    def _take(self, held: Held) -> None:
        held.begun = asyncio.get_running_loop().time()
        self._total += held.size
        self._of[held.principal] += held.size

    def _give(self, held: Held, size: int) -> None:
        self._total -= size
        self._of[held.principal] -= size
        if self._of[held.principal] <= 0:
            del self._of[held.principal]

    def _admit_waiting(self) -> None:
        while self._waiting:
            following = min(self._waiting, key=lambda each: self._of[each.held.principal])
            if not self._fits(following.held):
                return
            self._waiting.remove(following)
            if not following.admitted.done():
                self._take(following.held)
                following.admitted.set_result(None)

    def _make_room(self) -> None:
        """Ends incomplete requests, the oldest first, one for each call that waits; looks again when the next may be ended."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        loop = asyncio.get_running_loop()
        waiting = {each.held.principal for each in self._waiting}
        if not waiting:
            return
        at_their_limit = {
            each.held.principal
            for each in self._waiting
            if self._of[each.held.principal] + each.held.size > self._max_of_one
        }
        now = loop.time()
        again = now + self._undisturbed_s
        ended = 0
        for held in self._receiving:
            if ended == len(self._waiting):
                break
            if at_their_limit == waiting and held.principal not in waiting:
                continue  # its room would help none of those that wait
            if held.begun + self._undisturbed_s > now:
                again = held.begun + self._undisturbed_s
                break
            if held.receiving is not None and not held.receiving.expired():
                held.receiving.reschedule(now)
                ended += 1
        self._timer = loop.call_at(again, self._make_room)

    def _refusal(self, principal: str) -> ResourceExhausted:
        REQUESTS_WITHOUT_MEMORY.labels("full" if self._what == "requests" else "response").inc()
        own = self._of[principal]
        message = (
            f"{self._what} hold {self._total} of {self._max_bytes} bytes, {own} of them of this principal, "
            f"which may hold {self._max_of_one}; end some calls or try again later"
        )
        return ResourceExhausted(self._reason, message, retry_after_s=_RETRY_S)
