"""Promotion overrides in the database."""

from __future__ import annotations

from sqlalchemy.orm import Session

from identity.names import ModelVersionName
from servicekit.database import ulid, utc_now
from trainer.entities import Override, Version
from trainer.store.tables import OverrideRow


def add(session: Session, version: Version, reason: str, requester: str) -> Override:
    """A new override of the version's present report; not approved yet."""
    row = OverrideRow(
        id=ulid(),
        model=version.name.model,
        version=version.name.version,
        report_digest=version.report_digest,
        reason=reason,
        requester=requester,
        approver="",
        create_time=utc_now(),
        approve_time=None,
    )
    session.add(row)
    session.flush()
    return _override(row)


def get(session: Session, id_: str) -> Override | None:
    row = session.get(OverrideRow, id_)
    return _override(row) if row else None


def approve(session: Session, id_: str, approver: str) -> Override:
    """Notes who approved, and when."""
    row = session.get_one(OverrideRow, id_, with_for_update=True)
    row.approver, row.approve_time = approver, utc_now()
    session.flush()
    return _override(row)


def _override(row: OverrideRow) -> Override:
    return Override(
        id=row.id,
        version=ModelVersionName(row.model, row.version),
        report_digest=row.report_digest,
        reason=row.reason,
        requester=row.requester,
        approver=row.approver,
        create_time=row.create_time,
        approve_time=row.approve_time,
    )
