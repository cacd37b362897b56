"""Limits of one principal: calls per second, and calls that are open at once.

A defect or a stolen token of one caller must not make the service unavailable for the others. Limits hold per process and
principal; the servers of one process (gRPC and HTTP) share them.
"""

from __future__ import annotations

import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from cachetools import LRUCache

from servicekit.errors import ResourceExhausted

# Principals whose buckets are kept. One that is dropped starts with a full bucket, as it would after so long a pause.
_MOST_BUCKETS = 10_000

_RUNNING_RETRY_S = 1.0


@dataclass
class _Bucket:
    """A token bucket (as in RFC 2697): each call takes a token, and tokens return over time, up to the burst."""

    tokens: float
    at_s: float


class Limiter:
    """Safe for threads; about 3 us a call.

    Args:
        rate_per_s: calls a second, sustained.
        burst: calls at once after a pause.
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
        self._buckets: LRUCache[str, _Bucket] = LRUCache(_MOST_BUCKETS)
        self._running: Counter[str] = Counter()  # as many entries as there are principals with open calls
        self._lock = threading.Lock()

    @contextmanager
    def call(self, principal: str) -> Iterator[None]:
        """Counts the block as a call of the principal; for a stream, until its end.

        Raises:
            ResourceExhausted: a limit is reached. It carries the time after which the principal may call again. A refused
                call costs no token, so a principal that waits for that time is accepted.
        """
        self._enter(principal)
        try:
            yield
        finally:
            with self._lock:
                self._running[principal] -= 1
                if not self._running[principal]:
                    del self._running[principal]

    def _enter(self, principal: str) -> None:
        with self._lock:
            bucket = self._refilled(principal)
            if bucket.tokens < 1:
                wait_s = (1 - bucket.tokens) / self._rate_per_s
                message = f"more than {self._rate_per_s:g} calls a second; try again in {_shown(wait_s)}"
                raise ResourceExhausted("RATE_LIMIT", message, retry_after_s=wait_s)
            if self._running[principal] >= self._most_running:
                message = f"more than {self._most_running} calls open at once; end some first"
                raise ResourceExhausted("TOO_MANY_CALLS", message, retry_after_s=_RUNNING_RETRY_S)
            bucket.tokens -= 1
            self._running[principal] += 1

    def _refilled(self, principal: str) -> _Bucket:
        now_s = self._clock()
        bucket = self._buckets.get(principal)
        if bucket is None:
            bucket = self._buckets[principal] = _Bucket(self._burst, now_s)
        bucket.tokens = min(self._burst, bucket.tokens + (now_s - bucket.at_s) * self._rate_per_s)
        bucket.at_s = now_s
        return bucket


def _shown(wait_s: float) -> str:
    """Returns a time to wait as people read it, rounded up: a caller that follows it is accepted."""
    return f"{math.ceil(wait_s * 1000)} ms" if wait_s < 1 else f"{math.ceil(wait_s * 10) / 10:g} s"
