"""Reads the chain and records how certain each batch is."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from sqlalchemy import Engine, func, select
from sqlalchemy.orm import Session

from chain_relay import batch_states, metrics
from chain_relay.chain import Block, Chain, ChainUnavailable, Commitment, LedgerState
from chain_relay.store.tables import Batch, BatchState, SignedTransaction
from identity.names import BatchName
from servicekit.database import reading, run_in_transaction
from servicekit.database.watches import Changes

_AT_ONCE = 100


class LedgerConflict(Exception):
    """The ledger holds another root for one of our batches: another relay writes it. An operator must decide."""

    def __init__(self, seq: int, ours: bytes, theirs: bytes) -> None:
        super().__init__(
            f"batch {seq} is committed with root 0x{theirs.hex()}, ours is 0x{ours.hex()}: "
            "another relay writes this ledger"
        )
        self.seq = seq


@dataclass(frozen=True, kw_only=True)
class Heads:
    """The chain at one moment: its blocks, and how many batches each of them holds."""

    latest: Block
    ledger: LedgerState
    """At the latest block."""
    settled_seq: int
    """Batches below it are in a safe block."""
    final_seq: int
    """Batches below it are in a finalized block."""
    finalized: Block | None


@dataclass(frozen=True)
class _Sighting:
    """What the chain says of one batch."""

    gone: bool
    commitment: Commitment | None
    certainty: BatchState | None


class Observer:
    """Keeps the batches' states true to the chain."""

    def __init__(self, engine: Engine, chain: Chain, changes: Changes) -> None:
        """`changes`: those of batches, by name."""
        self._engine = engine
        self._chain = chain
        self._changes = changes

    def observe(self) -> Heads:
        """Reads the chain once, and moves batches forward and back. Raises ChainUnavailable, LedgerConflict."""
        heads = self._heads()
        with reading(self._engine) as session:
            batches = list(
                session.scalars(
                    select(Batch).where(Batch.state != BatchState.FINAL).order_by(Batch.seq).limit(_AT_ONCE)
                )
            )
        for batch in batches:
            sight = self._sight(batch, heads)
            if sight.gone or sight.certainty is not None:
                run_in_transaction(self._engine, partial(self._apply, seq=batch.seq, sight=sight))
        with reading(self._engine) as session:
            metrics.UNCOMMITTED.set(
                session.scalar(select(func.count()).where(Batch.seq >= heads.ledger.next_seq)) or 0
            )
        return heads

    def _heads(self) -> Heads:
        latest = self._chain.block("latest")
        if latest is None:
            raise ChainUnavailable("the node has no latest block")
        safe, finalized = self._chain.block("safe"), self._chain.block("finalized")
        metrics.CHAIN_SEEN.set_to_current_time()
        metrics.CHAIN_HEAD.set(latest.timestamp)
        metrics.CHAIN_FINALIZED.set(finalized.timestamp if finalized else 0)
        return Heads(
            latest=latest,
            ledger=self._chain.ledger(latest),
            settled_seq=self._chain.ledger(safe).next_seq if safe else 0,
            final_seq=self._chain.ledger(finalized).next_seq if finalized else 0,
            finalized=finalized,
        )

    def _sight(self, batch: Batch, heads: Heads) -> _Sighting:
        """What the chain says of a batch, and whether the block that held it is gone."""
        if batch.block_number > heads.latest.number:
            return _Sighting(
                False, None, None
            )  # this node is behind: a chain that replaces blocks is not shorter
        gone = False
        if batch.block_hash:
            canonical = self._chain.block(batch.block_number)
            gone = canonical is None or canonical.hash != batch.block_hash
        if batch.seq >= heads.ledger.next_seq:
            return _Sighting(gone or bool(batch.block_hash), None, None)
        commitment: Commitment | None = None
        if gone or not batch.block_hash:
            commitment = self._find(batch.seq, heads.latest)
            if commitment is None:
                return _Sighting(
                    gone, None, None
                )  # the chain moved between two reads; the next step reads again
            if commitment.root != batch.root:
                raise LedgerConflict(batch.seq, batch.root, commitment.root)
        return _Sighting(gone, commitment, _certainty(batch.seq, heads))

    def _find(self, seq: int, latest: Block) -> Commitment | None:
        """Returns where a batch is committed: by our own transactions, else by the log (another relay may have sent it)."""
        with reading(self._engine) as session:
            query = select(SignedTransaction.hash).where(SignedTransaction.purpose == f"commit/{seq}")
            hashes = session.scalars(query.order_by(SignedTransaction.id.desc())).all()
        for transaction_hash in hashes:
            receipt = self._chain.receipt(transaction_hash)
            if receipt is not None and receipt.succeeded:
                root = self._chain.root(seq, latest)
                return Commitment(
                    root=root,
                    transaction_hash=transaction_hash,
                    block=receipt.block,
                    gas_used=receipt.gas_used,
                    gas_price=receipt.gas_price,
                )
        return self._chain.commitment(seq, latest)

    def _apply(self, session: Session, seq: int, sight: _Sighting) -> None:
        batch = session.get_one(Batch, seq)
        before = batch.state, batch.reorg_count
        if sight.gone and batch.block_hash:
            batch_states.move_back(session, batch)
        if sight.commitment is not None:
            batch_states.commit(session, batch, sight.commitment)
        if sight.certainty is not None and batch.block_hash:
            batch_states.advance(session, batch, sight.certainty)
        if (batch.state, batch.reorg_count) != before:
            self._changes.notify(session, str(BatchName(seq)))


def _certainty(seq: int, heads: Heads) -> BatchState:
    if seq < heads.final_seq:
        return BatchState.FINAL
    return BatchState.SETTLED if seq < heads.settled_seq else BatchState.COMMITTED
