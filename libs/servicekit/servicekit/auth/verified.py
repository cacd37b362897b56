"""Tokens that were verified a moment ago: callers send the same one with every call, and a signature costs 0.2 ms."""

from __future__ import annotations

import hashlib
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from servicekit.auth.principal import Principal

_MOST = 10_000


@dataclass(frozen=True)
class _Verified:
    principal: Principal
    reading: int
    """Of the keys it was verified with (`KeySet.reading`)."""
    until: float
    """Unix time from which on it has expired."""


class VerifiedTokens:
    """Remembers whose a token is, no longer than verifying it again would say the same.

    That ends when the token expires, and when the issuer's keys are read again or are due to be: so a withdrawn key stops
    working exactly as soon as without this. Tokens themselves are not kept, only their digests. Safe for threads.

    Args:
        most: tokens that are remembered; the one remembered first goes first.
        clock: Unix time.
    """

    def __init__(self, most: int = _MOST, clock: Callable[[], float] = time.time) -> None:
        self._most = most
        self._clock = clock
        self._known: OrderedDict[bytes, _Verified] = OrderedDict()
        self._lock = threading.Lock()

    def find(self, token: str, reading: int | None) -> Principal | None:
        """The principal, when the token was verified with the keys of this reading and has not expired."""
        found = self._known.get(_digest(token))
        if found is None or found.reading != reading or self._clock() >= found.until:
            return None
        return found.principal

    def remember(self, token: str, principal: Principal, reading: int | None, until: float) -> None:
        """What verifying a token with the keys of this reading gave; `reading` None is not remembered."""
        if reading is None:
            return
        with self._lock:
            self._known[_digest(token)] = _Verified(principal, reading, until)
            while len(self._known) > self._most:
                self._known.popitem(last=False)


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode(errors="replace")).digest()
