"""Who may read which answer's attribution, beyond what a role permits: it quotes a person's question and its answer."""

from __future__ import annotations

from servicekit.auth import Principal
from servicekit.errors import PermissionDenied

_READERS = frozenset({"admin", "auditor", "operator", "service"})


def reads_all(principal: Principal) -> bool:
    """Whether a role of the principal reads every answer's attribution."""
    return bool(_READERS & principal.roles)


def check_reader(principal: Principal, asker: str, attribution: str) -> None:
    """Raises PermissionDenied unless the principal asked the question, or reads all. The model's owner has no say: totals
    tell them what their model's answers rest on, without a word of anyone's."""
    if principal.name != asker and not reads_all(principal):
        raise PermissionDenied(f"attribution.records.read of {attribution}", principal.name)
