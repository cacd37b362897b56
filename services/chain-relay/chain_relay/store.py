"""Queries of the API: what was settled, proven, earned."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from chain_relay.sealing import leaf_of
from chain_relay.tables import (
    Batch,
    BatchState,
    Earning,
    JournalEntry,
    Ledger,
    Outcome,
    RewardRoot,
    ScoredAnswer,
    SignedTransaction,
)
from identity.evm_merkle import EvmMerkleTree
from identity.leaf import AttributionLeaf
from servicekit.errors import FailedPrecondition, NotFound


@dataclass(frozen=True)
class Inclusion:
    """That an answer is in a batch."""

    batch: Batch
    index: int
    leaf: AttributionLeaf
    proof: list[bytes]


@dataclass(frozen=True)
class Earned:
    """What one beneficiary earned at one address."""

    kind: str
    beneficiary: str
    address: str
    amount: int


def ledger(session: Session) -> Ledger:
    """The ledger this database belongs to."""
    return session.scalars(select(Ledger)).one()


def batch(session: Session, seq: int) -> Batch:
    """One batch. Raises NotFound."""
    found = session.get(Batch, seq)
    if found is None:
        raise NotFound("batch", f"batches/{seq}")
    return found


def batches(session: Session, below: int | None, limit: int) -> list[Batch]:
    """Batches, newest first, below a sequence number."""
    query = select(Batch).order_by(Batch.seq.desc()).limit(limit)
    return list(session.scalars(query if below is None else query.where(Batch.seq < below)))


def reward_root(session: Session, number: int) -> RewardRoot:
    """One reward root. Raises NotFound."""
    found = session.get(RewardRoot, number)
    if found is None:
        raise NotFound("reward root", f"rewardRoots/{number}")
    return found


def reward_roots(session: Session, below: int | None, limit: int) -> list[RewardRoot]:
    """Reward roots, newest first, below a number."""
    query = select(RewardRoot).order_by(RewardRoot.number.desc()).limit(limit)
    return list(session.scalars(query if below is None else query.where(RewardRoot.number < below)))


def transaction_hash(session: Session, purpose: str) -> str:
    """Hash of the transaction that reached a purpose; "" when there is none of ours."""
    query = (
        select(SignedTransaction.hash)
        .where(SignedTransaction.purpose == purpose, SignedTransaction.outcome == Outcome.SUCCEEDED)
        .order_by(SignedTransaction.id.desc())
        .limit(1)
    )
    return session.scalar(query) or ""


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
    found = batch(session, row.batch_seq)
    its_ledger = ledger(session)
    rows = session.scalars(
        select(ScoredAnswer).where(ScoredAnswer.batch_seq == found.seq).order_by(ScoredAnswer.position)
    )
    leaves = [leaf_of(its_ledger, found.seq, found.first_event + n, each) for n, each in enumerate(rows)]
    index = next(n for n, leaf in enumerate(leaves) if leaf.inference == inference)
    tree = EvmMerkleTree([leaf.hash() for leaf in leaves])
    return Inclusion(found, index, leaves[index], tree.proof(index))


def earned(session: Session) -> list[Earned]:
    """What every beneficiary earned in batches that are on chain, largest first."""
    sums: dict[tuple[str, str, str], int] = defaultdict(int)
    query = (
        select(Earning.kind, Earning.beneficiary, Earning.address, Earning.amount)
        .join(Batch, Batch.seq == Earning.batch_seq)
        .where(Batch.state.in_(_ON_CHAIN))
    )
    for kind, beneficiary, address, amount in session.execute(query):
        sums[kind, beneficiary, address] += amount
    rows = [Earned(*key, amount) for key, amount in sums.items()]
    return sorted(rows, key=lambda row: (-row.amount, row.kind, row.beneficiary, row.address))


def totals(session: Session) -> tuple[int, int, int]:
    """Fees, payouts and dust of all batches that are on chain."""
    query = select(Batch.fee_total, Batch.payout_total, Batch.dust).where(Batch.state.in_(_ON_CHAIN))
    rows = session.execute(query).all()
    return sum(row[0] for row in rows), sum(row[1] for row in rows), sum(row[2] for row in rows)


def waiting_count(session: Session) -> int:
    """Answers in no batch."""
    return session.scalar(select(func.count()).where(ScoredAnswer.batch_seq.is_(None))) or 0


_ON_CHAIN = (BatchState.COMMITTED, BatchState.SETTLED, BatchState.FINAL)
