"""Promotion overrides in the database."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import String, cast, select
from sqlalchemy.orm import Session

from identity.names import ModelName, ModelVersionName, PromotionOverrideName
from servicekit.database import ulid, utc_now
from servicekit.lists import TEXT, TIME, Field, Listing, Page, Query, choices, resource
from trainer.entities import Approval, Override, OverrideState, Version
from trainer.store.tables import OverrideRow


def add(
    session: Session,
    version: Version,
    *,
    reason: str,
    requester: str,
    people: int,
    failed_reports: Sequence[str],
) -> Override:
    """Inserts an override of the version's current report; not approved yet."""
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
        state=OverrideState.PENDING,
        approvals=[],
        people=people,
        failed_reports=list(failed_reports),
        refuser="",
        refuse_reason="",
        refuse_time=None,
    )
    session.add(row)
    session.flush()
    return _override(row)


def get(session: Session, id_: str) -> Override | None:
    row = session.get(OverrideRow, id_)
    return _override(row) if row else None


def approved(session: Session, version: ModelVersionName) -> list[Override]:
    """Returns the approved overrides of a version, in order."""
    query = select(OverrideRow).where(
        OverrideRow.model == version.model,
        OverrideRow.version == version.version,
        OverrideRow.state == OverrideState.APPROVED,
    )
    return [_override(row) for row in session.scalars(query.order_by(OverrideRow.id))]


def approve(session: Session, id_: str, approver: str, *, complete: bool) -> Override:
    """Records a consent, and, where it is the last one needed, the approval."""
    row = session.get_one(OverrideRow, id_, with_for_update=True)
    now = utc_now()
    row.approvals = [*row.approvals, {"principal": approver, "time": now.isoformat()}]
    if complete:
        row.state, row.approver, row.approve_time = OverrideState.APPROVED, approver, now
    session.flush()
    return _override(row)


def refuse(session: Session, id_: str, refuser: str, reason: str) -> Override:
    """Records who refused, and why."""
    row = session.get_one(OverrideRow, id_, with_for_update=True)
    row.state, row.refuser, row.refuse_reason = OverrideState.REFUSED, refuser, reason
    row.refuse_time = utc_now()
    session.flush()
    return _override(row)


LISTING = Listing(
    fields={
        "name": Field(OverrideRow.id, resource(PromotionOverrideName, lambda name: name.override)),
        "model": Field(OverrideRow.model, resource(ModelName, lambda name: name.model)),
        "model_version": Field(
            "models/" + OverrideRow.model + "/versions/" + cast(OverrideRow.version, String),
            resource(ModelVersionName),
            sortable=False,
        ),
        "state": Field(OverrideRow.state, choices({state.name: state.value for state in OverrideState})),
        "requester": Field(OverrideRow.requester, TEXT),
        "report_digest": Field(OverrideRow.report_digest, TEXT, sortable=False),
        "create_time": Field(OverrideRow.create_time, TIME),
    },
    key=[OverrideRow.id.desc()],
)
"""What overrides are filtered and sorted by; newest first."""


def page(session: Session, model: str, query: Query) -> Page[Override]:
    """Returns a page of overrides, of all models for "". Raises InvalidArgument."""
    statement = select(OverrideRow)
    if model:
        statement = statement.where(OverrideRow.model == model)
    found = LISTING.page(session, statement, query, bytes_of=_bytes)
    return Page([_override(row) for row in found.items], found.next_page_token, found.total_size)


def _bytes(row: OverrideRow) -> int:
    """Returns a bound for an override's size in a response."""
    content = row.reason, row.requester, row.approvals, row.failed_reports, row.refuser, row.refuse_reason
    return len(json.dumps(content, ensure_ascii=False).encode()) + 1000


def _override(row: OverrideRow) -> Override:
    return Override(
        id=row.id,
        version=ModelVersionName(row.model, row.version),
        report_digest=row.report_digest,
        failed_reports=tuple(row.failed_reports),
        reason=row.reason,
        requester=row.requester,
        people=row.people,
        approvals=tuple(
            Approval(given["principal"], datetime.fromisoformat(given["time"])) for given in row.approvals
        ),
        state=OverrideState(row.state),
        approve_time=row.approve_time,
        refuser=row.refuser,
        refuse_reason=row.refuse_reason,
        refuse_time=row.refuse_time,
        create_time=row.create_time,
    )
