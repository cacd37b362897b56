"""Who may do what with which model, beyond what a role permits: a model belongs to the creator of its first run.

A version carries its owner's name to the chain and earns the owner's part of each fee, and the newest promoted version is
what users get: so only the owner adds a version, measures one, or requests its promotion.
"""

from __future__ import annotations

from sqlalchemy.orm import Session

from servicekit.auth import Principal
from servicekit.errors import PermissionDenied
from trainer.store import runs

_EVERYWHERE = "admin"
_SECOND_PAIR_OF_EYES = "approver"


def check_owner(session: Session, principal: Principal, model: str, permission: str) -> None:
    """Raises PermissionDenied unless the model is new, or the principal's, or the principal administers the platform."""
    owner = runs.first_principal(session, model)
    if owner not in (None, principal.name) and _EVERYWHERE not in principal.roles:
        raise PermissionDenied(f"{permission} of models/{model}", principal.name)


def check_policy_author(principal: Principal, owner: str | None, policy: str) -> None:
    """Raises PermissionDenied unless the policy is new, the principal's, or the principal approves or administers.

    The default policy holds every model: only approvers and administrators change it.
    """
    if owner not in (None, principal.name) and not {_EVERYWHERE, _SECOND_PAIR_OF_EYES} & set(principal.roles):
        raise PermissionDenied(f"trainer.policies.create of gatePolicies/{policy}", principal.name)


def check_promoter(session: Session, principal: Principal, model: str, permission: str) -> None:
    """As `check_owner`, and approvers may as well: promoting is theirs to see to in any model."""
    if _SECOND_PAIR_OF_EYES not in principal.roles:
        check_owner(session, principal, model, permission)


def check_runs_own(principal: Principal, asked_by: str, permission: str, run: str) -> None:
    """Raises PermissionDenied unless the principal asked for the run, or administers the platform."""
    if principal.name != asked_by and _EVERYWHERE not in principal.roles:
        raise PermissionDenied(f"{permission} of trainingRuns/{run}", principal.name)
