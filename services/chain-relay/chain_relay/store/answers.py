"""Reads settled answers: their fees, and the proofs that they are in a batch."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from chain_relay.store import batches
from chain_relay.store.tables import Batch, BatchChange, JournalEntry, Ledger, ScoredAnswer
from identity.evm_merkle import EvmMerkleTree
from identity.leaf import AttributionLeaf
from servicekit.errors import FailedPrecondition, NotFound


@dataclass(frozen=True, kw_only=True)
class Inclusion:
    """That an answer is in a batch."""

    batch: Batch
    history: list[BatchChange]
    index: int
    leaf: AttributionLeaf
    proof: list[bytes]


def leaf_of(ledger: Ledger, seq: int, event_index: int, answer: ScoredAnswer) -> AttributionLeaf:
    """Returns the leaf of an answer at its position in a batch."""
    return AttributionLeaf(
        chain_id=ledger.chain_id,
        ledger=ledger.address,
        batch_seq=seq,
        event_index=event_index,
        inference=answer.inference,
        model_version_digest=answer.model_digest,
        report_digest=answer.report_digest,
        record_digest=answer.record_digest,
        fee_paid=answer.fee,
    )


def answer(session: Session, inference: str) -> ScoredAnswer:
    """One settled answer. Raises NotFound."""
    found = session.scalars(select(ScoredAnswer).where(ScoredAnswer.inference == inference)).one_or_none()
    if found is None:
        raise NotFound("settlement of inference", inference)
    return found


def journal(session: Session, inference: str) -> list[JournalEntry]:
    """The parts of an answer's fee."""
    query = select(JournalEntry).where(JournalEntry.inference == inference).order_by(JournalEntry.line)
    return list(session.scalars(query))


def inclusion(session: Session, inference: str) -> Inclusion:
    """The proof that an answer is in its batch.

    The tree is made again from the batch's answers: 10,000 leaves take about 50 ms, and nothing needs keeping.
    Raises NotFound, and FailedPrecondition NOT_IN_A_BATCH while it waits.
    """
    row = answer(session, inference)
    if row.batch_seq is None:
        raise FailedPrecondition(
            "NOT_IN_A_BATCH",
            f"{inference} is not in a batch yet: wait for the next one, or flush",
            subject=inference,
        )
    found = batches.batch(session, row.batch_seq)
    ledger = batches.ledger(session)
    rows = session.scalars(
        select(ScoredAnswer).where(ScoredAnswer.batch_seq == found.seq).order_by(ScoredAnswer.position)
    )
    leaves = [leaf_of(ledger, found.seq, found.first_event + n, each) for n, each in enumerate(rows)]
    index = next(n for n, leaf in enumerate(leaves) if leaf.inference == inference)
    tree = EvmMerkleTree([leaf.hash() for leaf in leaves])
    return Inclusion(
        batch=found,
        history=batches.history(session, found.seq),
        index=index,
        leaf=leaves[index],
        proof=tree.proof(index),
    )
