"""Who may do what in which Datanet, in addition to the permissions of roles: owning one Datanet grants nothing in another."""

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

    Records and contributors include unpublished data and payout addresses.
    """
    if principal.name != datanet.owner and not _READERS & principal.roles:
        raise PermissionDenied(f"{permission} in {datanet.name}", principal.name)


def check_contributor(principal: Principal, contributor: Contributor) -> None:
    """Raises PermissionDenied unless the principal is this contributor; no role replaces that."""
    if principal.name != contributor.principal:
        raise PermissionDenied(f"contribute as {contributor.name}", principal.name)


def check_withdrawer(
    principal: Principal, datanet: Datanet, contributor: Contributor | None, record: StoredRecord
) -> None:
    """Raises PermissionDenied unless the principal contributed the record, owns the Datanet, or is an administrator.

    `contributor`: None for a damaged record that names no contributor any more.
    """
    if contributor is None or principal.name != contributor.principal:
        check_curator(principal, datanet, f"withdraw {record.name}")
