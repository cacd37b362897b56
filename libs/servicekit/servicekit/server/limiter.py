"""How much one principal may ask of a process: calls a second, and calls that run at once.

A fault or a stolen token of one caller must not take the service from the others. Limits are per process and per
principal; over the doors of one process (gRPC, HTTP) they are one.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from servicekit.errors import ResourceExhausted

# Principals that are remembered. One that is forgotten starts with a full bucket, which it had anyway after resting so long.
_MOST_IDLE = 10_000

_RUNNING_RETRY_S = 1.0


@dataclass
class _Bucket:
    """A token bucket (RFC 2697's idea): a call takes one token, time puts them back, up to the burst."""

    tokens: float
    at_s: float
    running: int = 0


class Limiter:
    """Safe for threads; about 3 us a call.

    Args:
        rate_per_s: calls a second that go on for ever.
        burst: calls at once after a time of rest.
        running: calls and streams that one principal may have open.
        clock: seconds, monotonic.
    """

    def __init__(
        self, rate_per_s: float, burst: int, running: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._rate_per_s = rate_per_s
        self._burst = burst
        self._most_running = running
        self._clock = clock
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()
        self._lock = threading.Lock()

    @contextmanager
    def call(self, principal: str) -> Iterator[None]:
        """Around a call of a principal, streams to their end.

        Raises:
            ResourceExhausted: with the time after which the principal may call again. A refused call costs no token, so
                that who comes back at the time told is let in.
        """
        bucket = self._enter(principal)
        try:
            yield
        finally:
            with self._lock:
                bucket.running -= 1

    def _enter(self, principal: str) -> _Bucket:
        with self._lock:
            bucket = self._refilled(principal)
            if bucket.tokens < 1:
                wait_s = (1 - bucket.tokens) / self._rate_per_s
                message = f"more than {self._rate_per_s:g} calls a second; try again in {wait_s:.2f} s"
                raise ResourceExhausted("RATE_LIMIT", message, retry_after_s=wait_s)
            if bucket.running >= self._most_running:
                message = f"more than {self._most_running} calls open at once; end some first"
                raise ResourceExhausted("TOO_MANY_CALLS", message, retry_after_s=_RUNNING_RETRY_S)
            bucket.tokens -= 1
            bucket.running += 1
            return bucket

    def _refilled(self, principal: str) -> _Bucket:
        now_s = self._clock()
        bucket = self._buckets.get(principal)
        if bucket is None:
            bucket = self._buckets[principal] = _Bucket(self._burst, now_s)
            self._forget()
        else:
            self._buckets.move_to_end(principal)
        bucket.tokens = min(self._burst, bucket.tokens + (now_s - bucket.at_s) * self._rate_per_s)
        bucket.at_s = now_s
        return bucket

    def _forget(self) -> None:
        """The principals that called least recently and have nothing open, while there are too many."""
        excess = len(self._buckets) - _MOST_IDLE
        if excess > 0:
            idle = [name for name, bucket in list(self._buckets.items())[: 2 * excess] if not bucket.running]
            for name in idle[:excess]:
                del self._buckets[name]
