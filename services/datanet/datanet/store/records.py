"""Records in the database. Every function works in its caller's transaction."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence

from openledger.datanet.v1.datanet_pb2 import RecordState as StateNames
from sqlalchemy import case, delete, func, insert, select, text, update
from sqlalchemy.orm import Session, defer

from datanet.entities import RecordState, StoredRecord
from datanet.quality import CONTRIBUTOR, REVIEW, WITHDRAWN
from datanet.snapshot import AcceptedRecord
from datanet.store.tables import ContributorRow, RecordRow
from identity.digest import digest_from_hex
from identity.names import ContributorName, DatanetName, RecordName
from servicekit.lists import TEXT, TIME, Field, Listing, Page, Query, enum, resource

RECORDS = Listing(
    fields={
        "name": Field(
            RecordRow.digest, resource(RecordName, lambda name: digest_from_hex(name.record)), sortable=False
        ),
        "digest": Field(RecordRow.digest, TEXT, sortable=False),
        "contributor": Field(
            RecordRow.contributor, resource(ContributorName, lambda name: name.contributor), sortable=False
        ),
        "state": Field(RecordRow.state, enum(StateNames), sortable=False),
        "rule": Field(RecordRow.rule, TEXT, sortable=False),
        "reason": Field(RecordRow.reason, TEXT, sortable=False),
        "create_time": Field(RecordRow.create_time, TIME),
    },
    key=[RecordRow.seq],
)
"""By arrival. Only times can be sorted by: a Datanet may have millions of records."""


def by_digest(session: Session, name: DatanetName, digests: Collection[str]) -> list[StoredRecord]:
    """Returns all rows with these digests, of any contributor, without their content."""
    query = (
        select(RecordRow)
        .options(defer(RecordRow.content))
        .where(RecordRow.datanet == name.datanet, RecordRow.digest.in_(digests))
    )
    return [_record(row, b"") for row in session.scalars(query)]


def get(session: Session, name: RecordName) -> StoredRecord | None:
    """Returns the row that owns the text of this name, or else the newest one that was withdrawn, or that a rule rejected."""
    query = (
        select(RecordRow)
        .where(RecordRow.datanet == name.datanet, RecordRow.digest == digest_from_hex(name.record))
        .order_by(
            case(
                (RecordRow.rule.in_(("", REVIEW)), 0),
                (RecordRow.rule.in_((WITHDRAWN, CONTRIBUTOR)), 1),
                else_=2,
            ),
            RecordRow.seq.desc(),
        )
        .limit(1)
    )
    row = session.scalars(query).one_or_none()
    return _record(row, row.content) if row else None


def withdrawn_by(session: Session, name: RecordName, principal: str) -> StoredRecord | None:
    """Returns the row of this name that this principal contributed and withdrew."""
    query = (
        select(RecordRow)
        .join(
            ContributorRow,
            (ContributorRow.datanet == RecordRow.datanet) & (ContributorRow.id == RecordRow.contributor),
        )
        .where(
            RecordRow.datanet == name.datanet,
            RecordRow.digest == digest_from_hex(name.record),
            RecordRow.rule == WITHDRAWN,
            ContributorRow.principal == principal,
        )
    )
    row = session.scalars(query).one_or_none()
    return _record(row, b"") if row else None


def page(
    session: Session,
    name: DatanetName,
    query: Query,
    *,
    state: RecordState | None = None,
    contributor: ContributorName | None = None,
    with_content: bool = True,
) -> Page[StoredRecord]:
    """Returns a page of records in order of arrival, of one state or contributor if given.

    Without content, the texts are not read from the database.
    """
    rows = select(RecordRow).where(RecordRow.datanet == name.datanet)
    if state is not None:
        rows = rows.where(RecordRow.state == int(state))
    if contributor is not None:
        rows = rows.where(RecordRow.contributor == contributor.contributor)
    if not with_content:
        page = RECORDS.page(session, rows.options(defer(RecordRow.content)), query, bytes_of=_basic_bytes)
        return Page([_record(row, b"") for row in page.items], page.next_page_token, page.total_size)
    page = RECORDS.page(session, rows, query, bytes_of=_full_bytes)
    return Page([_record(row, row.content) for row in page.items], page.next_page_token, page.total_size)


def _basic_bytes(row: RecordRow) -> int:
    return 4 * len(row.reason) + 500


def _full_bytes(row: RecordRow) -> int:
    return len(row.content) + _basic_bytes(row)


def add(session: Session, made: Sequence[StoredRecord]) -> None:
    """Inserts records in this order, of contributors that exist."""
    if not made:
        return
    rows = [
        {
            "datanet": DatanetName.parse(each.datanet).datanet,
            "contributor": ContributorName.parse(each.contributor).contributor,
            "digest": each.digest,
            "state": int(each.state),
            "rule": each.rule,
            "field": each.field,
            "reason": each.reason,
            "content": each.content,
            "create_time": each.create_time,
        }
        for each in made
    ]
    session.execute(insert(RecordRow), rows)


def remove(session: Session, orders: Collection[int]) -> None:
    """Deletes rows by their position in the order of arrival."""
    if orders:
        session.execute(
            delete(RecordRow).where(RecordRow.seq.in_(orders)).execution_options(synchronize_session=False)
        )


def change(session: Session, changed: StoredRecord) -> None:
    """Writes a record's new state, rule, reason and content."""
    session.execute(
        update(RecordRow)
        .where(RecordRow.seq == changed.order)
        .values(
            state=int(changed.state),
            rule=changed.rule,
            field=changed.field,
            reason=changed.reason,
            content=changed.content,
        )
        .execution_options(synchronize_session=False)
    )


def repair(session: Session, order: int, digest: str) -> None:
    """Gives a row that changed on the disk the digest by which an index found it, and makes SQLite's indexes agree again."""
    session.execute(text("REINDEX records"))
    session.execute(
        update(RecordRow)
        .where(RecordRow.seq == order)
        .values(digest=digest)
        .execution_options(synchronize_session=False)
    )


_PAGE = 200
"""Records of one SELECT: at most 200 MB of the longest records, and a short statement."""


def accepted(session: Session, name: DatanetName) -> Iterator[AcceptedRecord]:
    """Yields the records of the next snapshot in the order of arrival, page by page."""
    last, contributors = 0, f"{name}/contributors/"
    while True:
        query = (
            select(RecordRow.digest, RecordRow.seq, RecordRow.contributor, RecordRow.content)
            .where(
                RecordRow.datanet == name.datanet,
                RecordRow.state == int(RecordState.ACCEPTED),
                RecordRow.seq > last,
            )
            .order_by(RecordRow.seq)
            .limit(_PAGE)
        )
        rows = session.execute(query).all()
        for digest, seq, contributor_id, content in rows:
            yield AcceptedRecord(digest, seq, contributors + contributor_id, content)
        if len(rows) < _PAGE:
            return
        last = rows[-1].seq


_COUNTED = 50_000
"""Rejected records that one SELECT counts: a short statement, however many there are."""


def rejected_by_rule(session: Session, name: DatanetName) -> dict[str, int]:
    """Returns {rule: number of records it rejected}."""
    totals: Counter[str] = Counter()
    last: int | None = 0
    while last is not None:
        page = (
            select(RecordRow.rule, RecordRow.seq)
            .where(
                RecordRow.datanet == name.datanet,
                RecordRow.state == int(RecordState.REJECTED),
                RecordRow.seq > last,
            )
            .order_by(RecordRow.seq)
            .limit(_COUNTED)
            .subquery()
        )
        query = select(page.c.rule, func.count(), func.max(page.c.seq)).group_by(page.c.rule)
        rows = session.execute(query).tuples().all()
        totals.update({rule: total for rule, total, _ in rows})
        last = max((seq for *_, seq in rows), default=None)
    return dict(totals)


def has_accepted(session: Session, name: DatanetName) -> bool:
    """Returns whether a snapshot would have records."""
    query = select(RecordRow.seq).where(
        RecordRow.datanet == name.datanet, RecordRow.state == int(RecordState.ACCEPTED)
    )
    return session.execute(query.limit(1)).first() is not None


def _record(row: RecordRow, content: bytes) -> StoredRecord:
    return StoredRecord(
        datanet=str(DatanetName(row.datanet)),
        digest=row.digest,
        # Not parsed: a row that changed on the disk must not make its whole page fail.
        contributor=f"{DatanetName(row.datanet)}/contributors/{row.contributor}",
        state=RecordState(row.state),
        rule=row.rule,
        field=row.field,
        reason=row.reason,
        content=content,
        create_time=row.create_time,
        order=row.seq,
    )
