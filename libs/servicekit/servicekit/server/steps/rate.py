"""Limits the calls per second and the open calls of a principal."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from servicekit.auth import current_principal
from servicekit.server.call import Call
from servicekit.server.limiter import Limiter


def rate_limit(limiter: Limiter) -> Callable[[Call], AbstractAsyncContextManager[None]]:
    """Returns the step. It precedes the permission step, so calls without permission count as well.

    Public methods have no principal and no limit.
    """

    @asynccontextmanager
    async def limited(call: Call) -> AsyncIterator[None]:
        if call.rule.permission is None:
            yield
            return
        with limiter.call(current_principal().name):
            yield

    return limited
