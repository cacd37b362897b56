"""Remembers verified tokens: callers send the same one with every call, and checking a signature takes 0.2 ms."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from cachetools import TLRUCache

from servicekit.auth.principal import Principal

_MOST = 10_000


@dataclass(frozen=True)
class _Verified:
    principal: Principal
    reading: int
    """Which read of the issuer's keys it was verified with (`KeySet.reading`)."""
    expires: float
    """Unix time."""


class VerifiedTokens:
    """Remembers the principal of a token for as long as verifying the token again would give the same result.

    That ends when the token expires, and when the issuer's keys are read again or are due to be: a withdrawn key stops
    working exactly as soon as without this cache. It keeps digests of tokens, not tokens. Safe for threads.

    Args:
        most: how many tokens are remembered; the least recently used one is forgotten first.
        clock: Unix time.
    """

    def __init__(self, most: int = _MOST, clock: Callable[[], float] = time.time) -> None:
        self._known: TLRUCache[bytes, _Verified] = TLRUCache(
            most, ttu=lambda _, verified, now: verified.expires, timer=clock
        )
        self._lock = threading.Lock()

    def find(self, token: str, reading: int | None) -> Principal | None:
        """Returns the principal, if the token was verified with the keys of this reading and has not expired."""
        with self._lock:
            found = self._known.get(_digest(token))
        return found.principal if found is not None and found.reading == reading else None

    def remember(self, token: str, principal: Principal, reading: int | None, expires: float) -> None:
        """Stores the result of verifying a token with the keys of this reading; `reading` None is not stored."""
        if reading is not None:
            with self._lock:
                self._known[_digest(token)] = _Verified(principal, reading, expires)


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode(errors="replace")).digest()
