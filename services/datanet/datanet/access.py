"""Who may do what in which Datanet, beyond what a role permits: an owner of one is nobody in another."""

from __future__ import annotations

from datanet.definition import Datanet
from datanet.entities import Contributor, StoredRecord
from servicekit.auth import Principal
from servicekit.errors import PermissionDenied

_EVERYWHERE = "admin"
_READERS = frozenset({"admin", "auditor", "operator", "service"})


def check_curator(principal: Principal, datanet: Datanet, permission: str) -> None:
    """Raises PermissionDenied unless the principal owns the Datanet or administers the platform."""
    if principal.name != datanet.owner and _EVERYWHERE not in principal.roles:
        raise PermissionDenied(f"{permission} in {datanet.name}", principal.name)


def check_reader(principal: Principal, datanet: Datanet, permission: str) -> None:
    """Raises PermissionDenied unless the principal owns the Datanet or has a role that reads all of them.

    Records and contributors hold what is not published yet, and who is paid where.
    """
    if principal.name != datanet.owner and not _READERS & principal.roles:
        raise PermissionDenied(f"{permission} in {datanet.name}", principal.name)


def check_contributor(principal: Principal, contributor: Contributor) -> None:
    """Raises PermissionDenied unless the principal is this contributor; no role stands in for it."""
    if principal.name != contributor.principal:
        raise PermissionDenied(f"contribute as {contributor.name}", principal.name)


def check_withdrawer(
    principal: Principal, datanet: Datanet, contributor: Contributor, record: StoredRecord
) -> None:
    """Raises PermissionDenied unless the record is the principal's own, or is in a Datanet it curates."""
    if principal.name != contributor.principal:
        check_curator(principal, datanet, f"withdraw {record.name}")
