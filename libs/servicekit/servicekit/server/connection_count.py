"""How many connections a server has, in all and from one address."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter

logger = logging.getLogger(__name__)

REFUSALS_LOGGED_EVERY_S = 30.0
"""Clients without a token cause these lines."""


class Connections:
    """Of one server, counted by address. Safe for several threads."""

    def __init__(self, most: int, most_per_address: int) -> None:
        self._most = most
        self._most_per_address = most_per_address
        self._open: Counter[str] = Counter()
        self._refused = 0
        self._logged_at = float("-inf")
        self._lock = threading.Lock()

    def admit(self, address: str) -> bool:
        """Counts a connection; False when there are too many. Then it is logged, at most every half minute."""
        with self._lock:
            if self._open.total() < self._most and self._open[address] < self._most_per_address:
                self._open[address] += 1
                return True
            self._refused += 1
            now = time.monotonic()
            due = now - self._logged_at > REFUSALS_LOGGED_EVERY_S
            if due:
                self._logged_at = now
            counts = self._refused, self._open.total(), self._open[address]
        if due:
            logger.warning(
                "too many connections: %d refused so far, %d open, %d of them from %s", *counts, address
            )
        return False

    def left(self, address: str) -> None:
        """Counts the end of an admitted connection."""
        with self._lock:
            self._open[address] -= 1
            if self._open[address] <= 0:
                del self._open[address]
