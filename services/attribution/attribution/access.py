"""Who may read an answer's attribution, in addition to the permissions of roles: it quotes a person's prompt and answer."""

from __future__ import annotations

from servicekit.auth import Principal
from servicekit.errors import PermissionDenied

_READERS = frozenset({"admin", "auditor", "operator", "service"})


def reads_all(principal: Principal) -> bool:
    """Returns whether a role of the principal may read every answer's attribution."""
    return bool(_READERS & principal.roles)


def check_reader(principal: Principal, asker: str, attribution: str) -> None:
    """Raises PermissionDenied unless the principal sent the prompt, or may read all.

    The model's owner may not: totals show what the model's answers rest on, without anyone's text.
    """
    if principal.name != asker and not reads_all(principal):
        raise PermissionDenied(f"attribution.records.read of {attribution}", principal.name)
