"""Who calls: the bearer token in the metadata."""

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
    """Sets `current_principal()` for the call, or ends it."""

    def __init__(self, verifier: TokenVerifier) -> None:
        self._verifier = verifier
        # Reading keys may take seconds, and handlers may hold all of the default pool: verifying waits for neither.
        self._pool = ThreadPoolExecutor(2, thread_name_prefix="tokens")

    @asynccontextmanager
    async def __call__(self, call: Call) -> AsyncIterator[None]:
        """Public methods run without a principal, whatever token they bring."""
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
        """Ends its threads."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def _token(call: Call) -> str:
    for key, value in call.context.invocation_metadata() or ():
        if key == "authorization":
            text = value.decode("latin-1") if isinstance(value, bytes) else value
            if text[: len(_SCHEME)].lower() == _SCHEME:
                return text[len(_SCHEME) :].strip()
            raise Unauthenticated("TOKEN_SCHEME", "the authorization metadata must be 'Bearer <token>'")
    raise Unauthenticated("TOKEN_MISSING", "the call has no bearer token in its authorization metadata")
