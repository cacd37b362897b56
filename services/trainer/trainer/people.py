"""Whether another person decides. Two names that fold to the same form are one person."""

from __future__ import annotations

from collections.abc import Sequence

from identity.folding import same_person
from servicekit.errors import PermissionDenied
from trainer.entities import Approval


def check_another_person(
    permission: str, principal: str, requester: str, approvals: Sequence[Approval] = ()
) -> None:
    """Raises PermissionDenied for the requester and for who approved, under any spelling of the name."""
    for other, did in ((requester, "requested"), *((each.principal, "approved") for each in approvals)):
        if same_person(other, principal):
            raise PermissionDenied(
                f"{permission} (of what {other!r} {did}, who counts as the same person)", principal
            )
