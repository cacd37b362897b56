"""Whether the caller may call this."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from servicekit.auth import current_principal
from servicekit.errors import PermissionDenied
from servicekit.server.call import Call


@asynccontextmanager
async def permission(call: Call) -> AsyncIterator[None]:
    """Asks for the permission that stands in the proto."""
    needed = call.rule.permission
    if needed is not None:
        principal = current_principal()
        if not principal.may(needed):
            raise PermissionDenied(needed, principal.name)
    yield
