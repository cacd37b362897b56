"""Authenticates the caller by the bearer token in the headers or the metadata."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

from servicekit.auth import TokenVerifier, set_current_principal
from servicekit.errors import Unauthenticated
from servicekit.server.call import Call

_SCHEME = "bearer "


class Authentication:
    """Sets `current_principal()` for the call, or refuses it."""

    def __init__(self, verifier: TokenVerifier) -> None:
        self._verifier = verifier
        # A pool of its own: reading keys may take seconds, and handlers may use all threads of the default pool.
        self._pool = ThreadPoolExecutor(2, thread_name_prefix="tokens")

    @asynccontextmanager
    async def __call__(self, call: Call) -> AsyncIterator[None]:
        """Authenticates the call. Public methods run without a principal, even when the client sends a token."""
        if call.rule.permission is None:
            set_current_principal(None)
        else:
            token = _token(call)
            principal = self._verifier.known(token)
            if principal is None:
                loop = asyncio.get_running_loop()
                principal = await loop.run_in_executor(self._pool, self._verifier.verify, token)
            set_current_principal(principal)
        yield

    def close(self) -> None:
        """Ends the threads."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def _token(call: Call) -> str:
    for name, value in call.headers():
        if name == "authorization":
            text = value.decode("latin-1") if isinstance(value, bytes) else value
            if text[: len(_SCHEME)].lower() == _SCHEME:
                return text[len(_SCHEME) :].strip()
            raise Unauthenticated("TOKEN_SCHEME", "the header authorization must be 'Bearer <token>'")
    raise Unauthenticated("TOKEN_MISSING", "the call has no bearer token in its header authorization")
