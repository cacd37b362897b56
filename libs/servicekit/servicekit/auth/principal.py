"""The caller of the current RPC, for any code that runs in it."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass

from servicekit.auth.roles import ROLE_PERMISSIONS
from servicekit.errors import Unauthenticated


@dataclass(frozen=True)
class Principal:
    """A person or a service, as its token names it, with the roles that its issuer gave it."""

    name: str
    roles: frozenset[str] = frozenset()

    def may(self, permission: str) -> bool:
        """Returns whether one of its roles grants the permission. Unknown roles grant nothing."""
        return any(permission in ROLE_PERMISSIONS.get(role, frozenset()) for role in self.roles)


_current: ContextVar[Principal | None] = ContextVar("openledger_principal", default=None)


def current_principal() -> Principal:
    """Returns the caller of the current RPC; also in threads that ``asyncio.to_thread`` starts for it.

    Raises:
        Unauthenticated: no RPC runs here, or it is a public one.
    """
    principal = _current.get()
    if principal is None:
        raise Unauthenticated("NO_PRINCIPAL", "no authenticated call runs here")
    return principal


def set_current_principal(principal: Principal | None) -> None:
    """Sets the caller until the current task ends. Called by the authentication step."""
    _current.set(principal)
