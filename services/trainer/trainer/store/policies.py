"""Gate policies in the database."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Select, String, cast, func, select
from sqlalchemy.orm import Session

from evalstats.policy import GatePolicy
from identity.names import GatePolicyName, GatePolicyVersionName
from servicekit.database import utc_now
from servicekit.lists import TEXT, TIME, Field, Listing, Page, Query, choices, resource
from trainer.entities import Approval, GatePolicyState, GatePolicyVersion
from trainer.gate_policy import from_bytes, to_bytes
from trainer.store.tables import GatePolicyRow, PolicyContentRow


def add(
    session: Session,
    name: GatePolicyName,
    policy: GatePolicy,
    *,
    requester: str,
    reason: str,
    loosens: Sequence[str],
    people: int,
) -> GatePolicyVersion:
    """Inserts the next version of a policy: pending where it loosens something, else active."""
    newest = session.scalar(
        select(func.max(GatePolicyRow.version)).where(GatePolicyRow.policy == name.policy)
    )
    now = utc_now()
    row = GatePolicyRow(
        policy=name.policy,
        version=(newest or 0) + 1,
        digest=put(session, policy),
        state=GatePolicyState.PENDING if loosens else GatePolicyState.ACTIVE,
        requester=requester,
        reason=reason,
        loosens=list(loosens),
        people=people,
        approvals=[],
        refuser="",
        refuse_reason="",
        create_time=now,
        decide_time=None if loosens else now,
    )
    session.add(row)
    session.flush()
    return _version(session, row)


def get(session: Session, name: GatePolicyVersionName) -> GatePolicyVersion | None:
    row = session.get(GatePolicyRow, (name.policy, name.version))
    return _version(session, row) if row else None


def active(session: Session, name: GatePolicyName) -> GatePolicyVersion | None:
    """Returns the newest active version of a policy."""
    query = _of(name.policy).where(GatePolicyRow.state == GatePolicyState.ACTIVE)
    row = session.scalars(query.limit(1)).first()
    return _version(session, row) if row else None


def loosened_at(session: Session, name: GatePolicyName) -> int:
    """Returns the number of the newest active version that people approved because it is looser; 0 without one."""
    for row in session.scalars(_of(name.policy).where(GatePolicyRow.state == GatePolicyState.ACTIVE)):
        if row.loosens:
            return row.version
    return 0


def first_requester(session: Session, name: GatePolicyName) -> str | None:
    """Returns who created the policy; None for one that does not exist."""
    return session.scalar(
        select(GatePolicyRow.requester).where(GatePolicyRow.policy == name.policy, GatePolicyRow.version == 1)
    )


def approve(
    session: Session, name: GatePolicyVersionName, approver: str, *, complete: bool
) -> GatePolicyVersion:
    """Records a consent, and, where it is the last one needed, activates the version."""
    row = session.get_one(GatePolicyRow, (name.policy, name.version), with_for_update=True)
    now = utc_now()
    row.approvals = [*row.approvals, {"principal": approver, "time": now.isoformat()}]
    if complete:
        row.state, row.decide_time = GatePolicyState.ACTIVE, now
    session.flush()
    return _version(session, row)


def refuse(session: Session, name: GatePolicyVersionName, refuser: str, reason: str) -> GatePolicyVersion:
    """Records who refused, and why."""
    row = session.get_one(GatePolicyRow, (name.policy, name.version), with_for_update=True)
    row.state, row.refuser, row.refuse_reason = GatePolicyState.REFUSED, refuser, reason
    row.decide_time = utc_now()
    session.flush()
    return _version(session, row)


def put(session: Session, policy: GatePolicy) -> str:
    """Stores what a policy asks for, once, and returns its digest."""
    if session.get(PolicyContentRow, policy.digest) is None:
        session.add(PolicyContentRow(digest=policy.digest, content=to_bytes(policy)))
        session.flush()
    return policy.digest


def content(session: Session, digest: str) -> GatePolicy | None:
    """Returns the policy of a digest; None for "" and for one that is not stored."""
    row = session.get(PolicyContentRow, digest) if digest else None
    return from_bytes(row.content) if row else None


_NAME = "gatePolicies/" + GatePolicyRow.policy + "/versions/" + cast(GatePolicyRow.version, String)
LISTING = Listing(
    fields={
        "name": Field(_NAME, resource(GatePolicyVersionName), sortable=False),
        "policy": Field(GatePolicyRow.policy, resource(GatePolicyName, lambda name: name.policy)),
        "digest": Field(GatePolicyRow.digest, TEXT, sortable=False),
        "state": Field(GatePolicyRow.state, choices({state.name: state.value for state in GatePolicyState})),
        "requester": Field(GatePolicyRow.requester, TEXT),
        "create_time": Field(GatePolicyRow.create_time, TIME),
    },
    key=[GatePolicyRow.policy, GatePolicyRow.version.desc()],
)
"""What gate policies are filtered and sorted by; by policy, newest first within one."""


def page(session: Session, policy: str, query: Query) -> Page[GatePolicyVersion]:
    """Returns a page of versions, of all policies for "". Raises InvalidArgument."""
    statement = select(GatePolicyRow, PolicyContentRow).join(
        PolicyContentRow, PolicyContentRow.digest == GatePolicyRow.digest
    )
    if policy:
        statement = statement.where(GatePolicyRow.policy == policy)
    found = LISTING.page(session, statement, query, bytes_of=lambda item: _bytes(*item))
    items = [_to_version(row, from_bytes(stored.content)) for row, stored in found.items]
    return Page(items, found.next_page_token, found.total_size)


def _of(policy: str) -> Select[tuple[GatePolicyRow]]:
    return select(GatePolicyRow).where(GatePolicyRow.policy == policy).order_by(GatePolicyRow.version.desc())


def _bytes(row: GatePolicyRow, stored: PolicyContentRow) -> int:
    """Returns a bound for a version's size in a response, which shows what it asks for twice."""
    texts = row.requester, row.reason, row.loosens, row.approvals, row.refuser, row.refuse_reason
    return 2 * len(stored.content) + len(json.dumps(texts, ensure_ascii=False).encode()) + 1000


def _version(session: Session, row: GatePolicyRow) -> GatePolicyVersion:
    policy = content(session, row.digest)
    assert policy is not None
    return _to_version(row, policy)


def _to_version(row: GatePolicyRow, policy: GatePolicy) -> GatePolicyVersion:
    return GatePolicyVersion(
        name=GatePolicyVersionName(row.policy, row.version),
        policy=policy,
        state=GatePolicyState(row.state),
        requester=row.requester,
        reason=row.reason,
        loosens=tuple(row.loosens),
        people=row.people,
        approvals=tuple(
            Approval(given["principal"], datetime.fromisoformat(given["time"])) for given in row.approvals
        ),
        refuser=row.refuser,
        refuse_reason=row.refuse_reason,
        create_time=row.create_time,
        decide_time=row.decide_time,
    )
