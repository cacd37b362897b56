"""Seals waiting answers into a batch with an order, a root and a data object, before anything is signed."""

from __future__ import annotations

import logging
from collections import defaultdict
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from chain_relay import batch_states, metrics, tracing
from chain_relay.chain import LedgerState
from chain_relay.store.answers import leaf_of
from chain_relay.store.tables import Batch, BatchState, Earning, JournalEntry, Ledger, ScoredAnswer
from identity.digest import canonical_json
from identity.evm_merkle import EvmMerkleTree
from identity.leaf import AttributionLeaf
from servicekit.errors import StartupError
from servicekit.objects import ObjectStore
from servicekit.telemetry.traces import current_traceparent

logger = logging.getLogger(__name__)

DATA_SCHEMA = "openledger.settlement.batch/1"


def open_ledger(session: Session, chain_id: int, address: str, on_chain: LedgerState) -> None:
    """Ties this database to its ledger: the first time from what the chain says, later by checking.

    Raises StartupError when the database belongs to another ledger: its proofs would be worthless there.
    """
    ledger = session.scalars(select(Ledger)).one_or_none()
    if ledger is None:
        session.add(
            Ledger(
                address=address,
                chain_id=chain_id,
                next_seq=on_chain.next_seq,
                next_event=on_chain.next_event,
            )
        )
    elif (ledger.address, ledger.chain_id) != (address, chain_id):
        raise StartupError(
            f"the database belongs to ledger {ledger.address} on chain {ledger.chain_id},"
            f" the contracts file names {address} on {chain_id}"
        )


def waiting(session: Session) -> tuple[int, datetime | None]:
    """Returns how many answers are in no batch, and since when the oldest has waited."""
    count, oldest = session.execute(
        select(func.count(), func.min(ScoredAnswer.receive_time)).where(ScoredAnswer.batch_seq.is_(None))
    ).one()
    return count, oldest


def seal(session: Session, objects: ObjectStore, max_events: int) -> Batch | None:
    """Seals the oldest waiting answers into the next batch; None when nothing waits.

    The data object is stored before the transaction commits: a crash in between leaves an unreferenced object,
    never a batch without its data.
    """
    answers = list(
        session.scalars(
            select(ScoredAnswer)
            .where(ScoredAnswer.batch_seq.is_(None))
            .order_by(ScoredAnswer.position)
            .limit(max_events)
        )
    )
    if not answers:
        return None
    with tracing.sealing(answers):
        return _write(session, objects, answers)


def _write(session: Session, objects: ObjectStore, answers: list[ScoredAnswer]) -> Batch:
    ledger = session.scalars(select(Ledger)).one()
    seq, first_event = ledger.next_seq, ledger.next_event
    leaves = [leaf_of(ledger, seq, first_event + n, answer) for n, answer in enumerate(answers)]
    entries = _journal(session, answers)
    fee_total = sum(answer.fee for answer in answers)
    dust = sum(answer.dust for answer in answers)
    batch = Batch(
        seq=seq,
        first_event=first_event,
        event_count=len(answers),
        root=EvmMerkleTree([leaf.hash() for leaf in leaves]).root,
        data_digest=objects.put_bytes(_data(ledger, leaves, answers, entries)),
        state=BatchState.SEALED,
        fee_total=fee_total,
        payout_total=fee_total - dust,
        dust=dust,
        # Filled when it is on chain; spelled out because the message is made before the row is read back.
        reorg_count=0,
        transaction_hash="",
        block_number=0,
        block_hash="",
        gas_used=0,
        gas_price=0,
        traceparent=current_traceparent(),
    )
    session.add(batch)
    session.flush()
    for n, answer in enumerate(answers):
        answer.batch_seq, answer.event_index = seq, first_event + n
    ledger.next_seq, ledger.next_event = seq + 1, first_event + len(answers)
    _earn(session, seq, entries)
    batch_states.record_sealed(session, batch)
    metrics.BATCH_EVENTS.observe(len(answers))
    logger.info("sealing batch %d with %d events", seq, len(answers))
    return batch


def _journal(session: Session, answers: list[ScoredAnswer]) -> dict[str, list[JournalEntry]]:
    entries: dict[str, list[JournalEntry]] = defaultdict(list)
    first, last = answers[0].position, answers[-1].position
    query = (
        select(JournalEntry)
        .join(ScoredAnswer, ScoredAnswer.inference == JournalEntry.inference)
        .where(ScoredAnswer.position.between(first, last), ScoredAnswer.batch_seq.is_(None))
        .order_by(ScoredAnswer.position, JournalEntry.line)
    )
    for entry in session.scalars(query):
        entries[entry.inference].append(entry)
    return entries


def _earn(session: Session, seq: int, entries: dict[str, list[JournalEntry]]) -> None:
    sums: dict[tuple[str, str, str], int] = defaultdict(int)
    for lines in entries.values():
        for entry in lines:
            sums[entry.kind, entry.beneficiary, entry.address] += entry.amount
    for (kind, beneficiary, address), amount in sums.items():
        session.add(
            Earning(batch_seq=seq, kind=kind, beneficiary=beneficiary, address=address, amount=amount)
        )


def _data(
    ledger: Ledger,
    leaves: list[AttributionLeaf],
    answers: list[ScoredAnswer],
    entries: dict[str, list[JournalEntry]],
) -> bytes:
    """Returns the batch's data object: everything from which leaves, root and payouts can be recomputed.

    Amounts are decimal texts, because some languages lose integers beyond 2^53.
    """
    return canonical_json(
        {
            "schema": DATA_SCHEMA,
            "chain_id": ledger.chain_id,
            "ledger": ledger.address,
            "seq": leaves[0].batch_seq,
            "first_event": leaves[0].event_index,
            "events": [
                {
                    "inference": leaf.inference,
                    "model_digest": leaf.model_version_digest,
                    "report_digest": leaf.report_digest,
                    "record_digest": leaf.record_digest,
                    "fee": str(leaf.fee_paid),
                    "dust": str(answer.dust),
                    "payouts": [
                        {
                            "kind": entry.kind,
                            "beneficiary": entry.beneficiary,
                            "address": entry.address,
                            "amount": str(entry.amount),
                        }
                        for entry in entries[leaf.inference]
                    ],
                }
                for leaf, answer in zip(leaves, answers, strict=True)
            ],
        }
    )
