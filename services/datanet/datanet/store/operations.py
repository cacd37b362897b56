"""Seal operations in the database. Every function works in its caller's transaction."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping
from dataclasses import asdict
from typing import Any, cast

from openledger.datanet.v1.datanet_pb2 import SealOperationState as StateNames
from sqlalchemy import ColumnElement, CursorResult, Select, and_, case, func, select, update
from sqlalchemy.orm import Session, aliased

from datanet.seal_operation import Claim, OperationState, Position, SealOperation
from datanet.snapshot import SplitRule
from datanet.store.tables import SealOperationRow
from identity.names import DatanetName, SealOperationName, SnapshotName
from servicekit.database import utc_now
from servicekit.lists import INTEGER, TEXT, TIME, Field, Listing, Page, Query, enum, numbered, resource

PENDING, RUNNING = int(OperationState.PENDING), int(OperationState.RUNNING)

OPERATIONS = Listing(
    fields={
        "name": Field(SealOperationRow.id, resource(SealOperationName, lambda name: name.operation)),
        "state": Field(SealOperationRow.state, enum(StateNames)),
        "snapshot": Field(SealOperationRow.snapshot, numbered(SnapshotName, lambda name: name.snapshot)),
        "principal": Field(SealOperationRow.principal, TEXT),
        "attempt_count": Field(SealOperationRow.attempts, INTEGER),
        "create_time": Field(SealOperationRow.create_time, TIME),
        "start_time": Field(SealOperationRow.start_time, TIME),
        "end_time": Field(SealOperationRow.end_time, TIME),
    },
    key=[SealOperationRow.id.desc()],
)


def _place() -> ColumnElement[int]:
    """The place in the queue: ids sort by time."""
    other = aliased(SealOperationRow)
    before = (
        select(func.count())
        .where(other.state == PENDING, other.id <= SealOperationRow.id)
        .scalar_subquery()
        .correlate(SealOperationRow)
    )
    return case((SealOperationRow.state == PENDING, before), else_=0)


def _placed() -> Select[tuple[SealOperationRow, int]]:
    return select(SealOperationRow, _place().label("place"))


def add(session: Session, made: SealOperation) -> None:
    """Inserts a pending operation."""
    session.add(
        SealOperationRow(
            id=made.name.operation,
            datanet=made.name.datanet,
            principal=made.principal,
            salt=made.rule.salt,
            held_out_fraction=made.rule.held_out_fraction,
            control_fraction=made.rule.control_fraction,
            state=PENDING,
            **asdict(made.position),
            snapshot=0,
            error=b"",
            attempts=0,
            worker="",
            version=0,
            create_time=made.create_time,
            start_time=None,
            end_time=None,
        )
    )
    session.flush()


def get(session: Session, name: SealOperationName) -> SealOperation | None:
    """Returns the operation of this name."""
    query = _placed().where(SealOperationRow.id == name.operation, SealOperationRow.datanet == name.datanet)
    found = session.execute(query).tuples().one_or_none()
    return _operation(*found) if found else None


def page(session: Session, name: DatanetName, query: Query) -> Page[SealOperation]:
    """Returns a page of a Datanet's operations, newest first unless the query says otherwise."""
    rows = _placed().where(SealOperationRow.datanet == name.datanet)
    page = OPERATIONS.page(session, rows, query, bytes_of=lambda item: _bytes(item[0]))
    return Page([_operation(*item) for item in page.items], page.next_page_token, page.total_size)


def _bytes(row: SealOperationRow) -> int:
    return len(row.error) + 4 * len(row.salt + row.principal) + 500


def versions(session: Session, names: Collection[str]) -> Mapping[str, Hashable]:
    """Returns, for watches, a value for each operation that differs after every change of it or of its place."""
    ids = [SealOperationName.parse(name).operation for name in names]
    query = select(
        SealOperationRow.datanet, SealOperationRow.id, SealOperationRow.version, _place().label("place")
    ).where(SealOperationRow.id.in_(ids))
    return {
        str(SealOperationName(datanet, id_)): (version, place)
        for datanet, id_, version, place in session.execute(query).tuples()
    }


def open_operations(session: Session) -> list[SealOperation]:
    """Returns the operations of all Datanets that have not ended, oldest first."""
    query = _placed().where(SealOperationRow.state.in_((PENDING, RUNNING))).order_by(SealOperationRow.id)
    return [_operation(*found) for found in session.execute(query).tuples()]


def waiting(session: Session, name: DatanetName | None = None) -> list[SealOperationName]:
    """Returns the operations that wait, oldest first: all, or those of one Datanet."""
    query = select(SealOperationRow.datanet, SealOperationRow.id).where(SealOperationRow.state == PENDING)
    if name is not None:
        query = query.where(SealOperationRow.datanet == name.datanet)
    rows = session.execute(query.order_by(SealOperationRow.id)).tuples()
    return [SealOperationName(datanet, id_) for datanet, id_ in rows]


def claim_next(session: Session, worker: str, but: Collection[str] = ()) -> SealOperation | None:
    """Gives the oldest operation that may run to a worker, and returns it; None if there is none.

    An index makes a second operation of a Datanet that runs impossible. `but`: ids to leave out.
    """
    other = aliased(SealOperationRow)
    runs = select(other.id).where(other.state == RUNNING, other.datanet == SealOperationRow.datanet)
    query = (
        select(SealOperationRow)
        .where(SealOperationRow.state == PENDING, ~runs.exists(), SealOperationRow.id.not_in(sorted(but)))
        .order_by(SealOperationRow.id)
        .limit(1)
    )
    row = session.scalars(query).one_or_none()
    if row is None:
        return None
    row.state = RUNNING
    row.worker = worker
    row.attempts += 1
    row.version += 1
    row.start_time = row.start_time or utc_now()
    session.flush()
    return _operation(row, 0)


def advance(session: Session, claim: Claim, position: Position) -> bool:
    """Records how far an operation is, as a sign of life; returns whether the claim holds."""
    return _change(session, claim, **asdict(position))


def release(session: Session, claim: Claim, *, counted: bool = True) -> bool:
    """Lets another attempt continue an operation; returns whether the claim held. `counted`: whether this one counts."""
    attempts = {} if counted else {"attempts": claim.attempt - 1}
    return _change(session, claim, state=PENDING, worker="", eta_s=0.0, **attempts)


def succeed(session: Session, claim: Claim, snapshot: int, records: int) -> bool:
    """Ends an operation with a snapshot of so many records; returns whether the claim held."""
    return _change(
        session,
        claim,
        state=int(OperationState.SUCCEEDED),
        worker="",
        snapshot=snapshot,
        **asdict(Position(stage="write", done=records, total=records)),
        end_time=utc_now(),
    )


def fail(session: Session, claim: Claim, error: bytes) -> bool:
    """Ends an operation without one; returns whether the claim held."""
    state = int(OperationState.FAILED)
    return _change(session, claim, state=state, worker="", error=error, eta_s=0.0, end_time=utc_now())


def cancel(session: Session, name: SealOperationName) -> None:
    """Ends an operation, whoever runs it, if it has not ended."""
    session.execute(
        update(SealOperationRow)
        .where(SealOperationRow.id == name.operation, SealOperationRow.state.in_((PENDING, RUNNING)))
        .values(
            state=int(OperationState.CANCELLED),
            worker="",
            eta_s=0.0,
            end_time=utc_now(),
            version=SealOperationRow.version + 1,
        )
        .execution_options(synchronize_session=False)
    )


def _change(session: Session, claim: Claim, **values: Any) -> bool:
    held = and_(
        SealOperationRow.id == claim.operation,
        SealOperationRow.state == RUNNING,
        SealOperationRow.worker == claim.worker,
        SealOperationRow.attempts == claim.attempt,
    )
    changed = session.execute(
        update(SealOperationRow)
        .where(held)
        .values(**values, version=SealOperationRow.version + 1)
        .execution_options(synchronize_session=False)
    )
    return bool(cast("CursorResult[Any]", changed).rowcount)


def _operation(row: SealOperationRow, place: int) -> SealOperation:
    return SealOperation(
        name=SealOperationName(row.datanet, row.id),
        principal=row.principal,
        rule=SplitRule(row.salt, row.held_out_fraction, row.control_fraction),
        state=OperationState(row.state),
        position=Position(stage=row.stage, done=row.done, total=row.total, eta_s=row.eta_s),
        queue_position=place,
        snapshot=row.snapshot,
        error=row.error,
        attempts=row.attempts,
        worker=row.worker,
        version=row.version,
        create_time=row.create_time,
        start_time=row.start_time,
        end_time=row.end_time,
    )
