"""Checks that the caller has the permission."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from servicekit.auth import current_principal
from servicekit.errors import PermissionDenied
from servicekit.server.call import Call


@asynccontextmanager
async def permission(call: Call) -> AsyncIterator[None]:
    """Checks the permission that the RPC or the route declares."""
    needed = call.rule.permission
    if needed:
        principal = current_principal()
        if not principal.may(needed):
            raise PermissionDenied(needed, principal.name)
    yield
