"""Tokens of the development issuer, for a program or a service on the same machine."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from pathlib import Path

from servicekit.auth.issuer import DevelopmentIssuer
from servicekit.errors import StartupError

_TTL_S = 3600
_RENEW_S = 600


class DevelopmentToken:
    """Returns a token of one principal, and renews it before it expires: the `token` of an `openledger_client.Client`."""

    def __init__(
        self, state_dir: Path, principal: str, roles: Iterable[str], *, audience: str = "openledger"
    ) -> None:
        self._state_dir = state_dir
        self._principal = principal
        self._roles = tuple(roles)
        self._issuer = DevelopmentIssuer(state_dir, audience)
        self._current: tuple[str, float] | None = None
        self._lock = threading.Lock()

    def __call__(self) -> str:
        """Returns the current token.

        Raises:
            StartupError: the state folder has no development issuer.
        """
        with self._lock:
            if self._current is not None and time.monotonic() < self._current[1]:
                return self._current[0]
            if not (self._state_dir / "issuer" / "private.pem").exists():
                raise StartupError(
                    "no token: give --token or OPENLEDGER_TOKEN, or start `openledger up`"
                    f" ({self._state_dir} has no development issuer)"
                )
            token = self._issuer.mint(self._principal, self._roles, ttl_s=_TTL_S)
            self._current = (token, time.monotonic() + _TTL_S - _RENEW_S)
            return token
