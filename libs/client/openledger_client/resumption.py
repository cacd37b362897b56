"""When a broken stream is opened again, and when its error is final."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass

from openledger_client.errors import DeadlineExceeded, OpenLedgerError, ResourceExhausted, Unavailable


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long a stream may make no progress before its error is raised."""

    patience_s: float = 60.0
    """Seconds without progress, from the first failure on."""
    first_s: float = 0.1
    """Longest wait before the first new attempt; it doubles with each attempt in a row."""
    most_s: float = 5.0
    """Longest such wait."""
    clock: Callable[[], float] = time.monotonic


class Resumption:
    """The failures in a row of one stream."""

    def __init__(self, patience: Patience) -> None:
        self._patience = patience
        self._failures = 0
        self._first_failure = 0.0

    def progressed(self) -> None:
        """Ends the row: something new arrived."""
        self._failures = 0

    def wait_s(self, error: OpenLedgerError) -> float:
        """Returns the seconds to wait before the stream is opened again. Raises `error` when it is final.

        Not final are an unreachable service, the stream's own deadline, and a refusal that names a time (RetryInfo).
        """
        passing = isinstance(error, Unavailable | DeadlineExceeded) or (
            isinstance(error, ResourceExhausted) and error.retry_after_s is not None
        )
        if not passing:
            raise error
        now = self._patience.clock()
        self._failures += 1
        if self._failures == 1:
            self._first_failure = now
        if now - self._first_failure > self._patience.patience_s:
            raise error
        doublings = min(self._failures - 1, 32)  # a float holds no more than 1,023
        backoff_s = random.uniform(0, min(self._patience.most_s, self._patience.first_s * 2**doublings))
        return (error.retry_after_s or 0.0) + backoff_s
