"""The states of a batch, and the one place where they change: state, history and event in one transaction.

    SEALED ---signed---> SUBMITTED ---latest---> COMMITTED ---safe---> SETTLED ---finalized---> FINAL
       ^                                             |                    |
       +-------------- its block is gone (reorg) ----+--------------------+

The database owns SEALED and SUBMITTED; the chain owns the rest, and the relay only records what it reads.
"""

from __future__ import annotations

import logging

from sqlalchemy import select
from sqlalchemy.orm import Session

from chain_relay import events, metrics, tracing
from chain_relay.chain import Commitment
from chain_relay.store.tables import Batch, BatchChange, BatchState
from servicekit.database import utc_now

logger = logging.getLogger(__name__)


def advance(session: Session, batch: Batch, to: BatchState) -> None:
    """Moves a batch forward through every state up to `to`; nothing when it is there or beyond."""
    for state in BatchState:
        if batch.state.value < state.value <= to.value:
            # A commitment that another relay sent was never submitted by this one.
            if state is BatchState.SUBMITTED and to is not BatchState.SUBMITTED:
                continue
            _change(session, batch, state, moved_back=False)


def commit(session: Session, batch: Batch, found: Commitment) -> None:
    """Records where a batch is on chain, and moves it to COMMITTED."""
    batch.transaction_hash = found.transaction_hash
    batch.block_number = found.block.number
    batch.block_hash = found.block.hash
    batch.gas_used = found.gas_used
    batch.gas_price = found.gas_price
    metrics.COMMIT_GAS.observe(found.gas_used)
    metrics.GAS_PER_EVENT.observe(found.gas_used / batch.event_count)
    advance(session, batch, BatchState.COMMITTED)


def move_back(session: Session, batch: Batch) -> None:
    """Moves a batch whose block a reorg removed back to SEALED."""
    batch.transaction_hash = batch.block_hash = ""
    batch.block_number = batch.gas_used = batch.gas_price = 0
    batch.reorg_count += 1
    metrics.REORGS.inc()
    _change(session, batch, BatchState.SEALED, moved_back=True)


def record_sealed(session: Session, batch: Batch) -> None:
    """Records the first state of a new batch."""
    _change(session, batch, BatchState.SEALED, moved_back=False)


def _change(session: Session, batch: Batch, state: BatchState, *, moved_back: bool) -> None:
    with tracing.batch_state(batch, state):
        _write(session, batch, state, moved_back)
        logger.info("batch %d is %s", batch.seq, state.name.lower(), extra={"moved_back": moved_back})


def _write(session: Session, batch: Batch, state: BatchState, moved_back: bool) -> None:
    now = utc_now()
    first = session.scalar(
        select(BatchChange.time).where(BatchChange.batch_seq == batch.seq).order_by(BatchChange.id).limit(1)
    )
    batch.state = state
    session.add(BatchChange(batch_seq=batch.seq, state=state, time=now))
    session.flush()
    if first is not None and not moved_back:
        metrics.BATCH_STATE_SECONDS.labels(state.name.lower()).observe((now - first).total_seconds())
    events.add_batch_changed(session, batch, moved_back=moved_back, time=now)
