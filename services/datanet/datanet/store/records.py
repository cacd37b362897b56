"""Records in the database. Every function works in its caller's transaction."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from sqlalchemy import case, delete, func, insert, select, update
from sqlalchemy.orm import Session, defer

from datanet.entities import RecordState, StoredRecord
from datanet.quality import REVIEW
from datanet.snapshot import AcceptedRecord
from datanet.store.tables import RecordRow
from identity.digest import digest_from_hex
from identity.names import ContributorName, DatanetName, RecordName


def by_digest(session: Session, name: DatanetName, digests: Collection[str]) -> list[StoredRecord]:
    """All rows of these digests, of any contributor, without their content."""
    query = (
        select(RecordRow)
        .options(defer(RecordRow.content))
        .where(RecordRow.datanet == name.datanet, RecordRow.digest.in_(digests))
    )
    return [_record(row, b"") for row in session.scalars(query)]


def get(session: Session, name: RecordName) -> StoredRecord | None:
    """The row that holds the text of this name, or else the newest that was rejected by a rule."""
    query = (
        select(RecordRow)
        .where(RecordRow.datanet == name.datanet, RecordRow.digest == digest_from_hex(name.record))
        .order_by(case((RecordRow.rule.in_(("", REVIEW)), 0), else_=1), RecordRow.seq.desc())
        .limit(1)
    )
    row = session.scalars(query).one_or_none()
    return _record(row, row.content) if row else None


def page(
    session: Session,
    name: DatanetName,
    state: RecordState | None,
    contributor_id: str,
    after: int,
    limit: int,
) -> Iterator[StoredRecord]:
    """Records in order of arrival, beyond `after`; of one state or contributor where given. Read as they are taken."""
    query = select(RecordRow).where(RecordRow.datanet == name.datanet, RecordRow.seq > after)
    if state is not None:
        query = query.where(RecordRow.state == int(state))
    if contributor_id:
        query = query.where(RecordRow.contributor == contributor_id)
    rows = session.scalars(query.order_by(RecordRow.seq).limit(limit).execution_options(yield_per=20))
    return (_record(row, row.content) for row in rows)


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
    """Deletes rows by their place in the order of arrival."""
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


def accepted(session: Session, name: DatanetName) -> list[AcceptedRecord]:
    """What goes into the next snapshot."""
    query = (
        select(RecordRow.digest, RecordRow.seq, RecordRow.contributor, RecordRow.content)
        .where(RecordRow.datanet == name.datanet, RecordRow.state == int(RecordState.ACCEPTED))
        .order_by(RecordRow.seq)
    )
    return [
        AcceptedRecord(digest, seq, str(ContributorName(name.datanet, contributor_id)), content)
        for digest, seq, contributor_id, content in session.execute(query)
    ]


def rejected_by_rule(session: Session, name: DatanetName) -> dict[str, int]:
    """{rule: records it rejected}."""
    query = (
        select(RecordRow.rule, func.count())
        .where(RecordRow.datanet == name.datanet, RecordRow.state == int(RecordState.REJECTED))
        .group_by(RecordRow.rule)
    )
    return {rule: int(total) for rule, total in session.execute(query)}


def _record(row: RecordRow, content: bytes) -> StoredRecord:
    return StoredRecord(
        datanet=str(DatanetName(row.datanet)),
        digest=row.digest,
        contributor=str(ContributorName(row.datanet, row.contributor)),
        state=RecordState(row.state),
        rule=row.rule,
        field=row.field,
        reason=row.reason,
        content=content,
        create_time=row.create_time,
        order=row.seq,
    )
