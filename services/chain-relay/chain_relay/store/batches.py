"""Reads the ledger, batches and their histories."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from chain_relay.store.tables import Batch, BatchChange, BatchState, Ledger, ScoredAnswer
from identity.names import BatchName
from servicekit.errors import NotFound
from servicekit.lists import INTEGER, Field, Listing, choices, numbered

BATCHES = Listing(
    fields={
        "name": Field(Batch.seq, numbered(BatchName, lambda name: name.seq)),
        "state": Field(Batch.state, choices({state.name: state for state in BatchState})),
        "seq": Field(Batch.seq, INTEGER),
        "first_event": Field(Batch.first_event, INTEGER),
        "event_count": Field(Batch.event_count, INTEGER),
        "block_number": Field(Batch.block_number, INTEGER),
        "gas_used": Field(Batch.gas_used, INTEGER),
        "reorg_count": Field(Batch.reorg_count, INTEGER),
    },
    key=[Batch.seq.desc()],
)
"""Newest first."""


def ledger(session: Session) -> Ledger:
    """The ledger this database belongs to."""
    return session.scalars(select(Ledger)).one()


def batch(session: Session, seq: int) -> Batch:
    """One batch. Raises NotFound."""
    found = session.get(Batch, seq)
    if found is None:
        raise NotFound("batch", f"batches/{seq}")
    return found


def histories(session: Session, seqs: Collection[int]) -> dict[int, list[BatchChange]]:
    """Returns the states of each batch, oldest first."""
    found: dict[int, list[BatchChange]] = {seq: [] for seq in seqs}
    query = select(BatchChange).where(BatchChange.batch_seq.in_(seqs)).order_by(BatchChange.id)
    for change in session.scalars(query):
        found[change.batch_seq].append(change)
    return found


def history(session: Session, seq: int) -> list[BatchChange]:
    """Returns the states a batch came to, oldest first."""
    return histories(session, [seq])[seq]


def versions(session: Session, names: Collection[str]) -> dict[str, int]:
    """Returns a number for each batch that grows with every change of its state."""
    seqs = [BatchName.parse(name).seq for name in names]
    query = (
        select(BatchChange.batch_seq, func.max(BatchChange.id))
        .where(BatchChange.batch_seq.in_(seqs))
        .group_by(BatchChange.batch_seq)
    )
    return {str(BatchName(seq)): newest for seq, newest in session.execute(query).tuples()}


def waiting_count(session: Session) -> int:
    """Returns how many answers are in no batch."""
    return session.scalar(select(func.count()).where(ScoredAnswer.batch_seq.is_(None))) or 0
