"""How often, and how often at once, a principal may call."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from servicekit.auth import current_principal
from servicekit.server.call import Call
from servicekit.server.limiter import Limiter


def rate_limit(limiter: Limiter) -> Callable[[Call], AbstractAsyncContextManager[None]]:
    """Before the permission, so that calls that are refused count as well; public methods have no principal, and no limit."""

    @asynccontextmanager
    async def limited(call: Call) -> AsyncIterator[None]:
        if call.rule.permission is None:
            yield
            return
        with limiter.call(current_principal().name):
            yield

    return limited
