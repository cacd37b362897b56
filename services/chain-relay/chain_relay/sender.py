"""The transaction manager: one signer, one nonce at a time, bytes kept before they are sent.

What holds wherever the process is killed:
  - signed bytes are in the database before a node sees them, so nothing is ever sent that is not known here;
  - a nonce that the latest block has not used is answered by sending the same bytes again, never by signing
    something else: a restart and a reorg are the same case;
  - a price is raised only for a transaction that is refused as underpriced or not mined for long, by 12.5% rounded
    up on both prices (nodes refuse less), never beyond the cap, and all versions keep the one nonce;
  - whether a purpose is reached is read from contract state, so a receipt that never comes harms nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Engine, Update, select, update
from sqlalchemy.orm import Session

from chain_relay import metrics, tracing
from chain_relay.chain import Block, Call, Chain, FeeQuote, SendRefused
from chain_relay.signer import Signer, Unsigned
from chain_relay.store.tables import Outcome, SignedTransaction
from servicekit.database import reading, run_in_transaction, utc_now

logger = logging.getLogger(__name__)

_GAS_MARGIN = 1.25  # state may change between the estimate and the block


class FeeAboveCap(Exception):
    """The next block asks more than the cap; nothing was signed."""

    def __init__(self, needed: int, cap: int) -> None:
        super().__init__(f"the next block asks {needed} wei a unit of gas, the cap is {cap}")


@dataclass(frozen=True)
class FeeLimits:
    """What a transaction may cost, wei a unit of gas, and when its price is raised."""

    cap: int
    bump_after_s: float


class Sender:
    """Signs transactions, sends them, and repeats what is not mined. Used by one thread."""

    def __init__(
        self,
        engine: Engine,
        chain: Chain,
        signer: Signer,
        limits: FeeLimits,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self._engine = engine
        self._chain = chain
        self._signer = signer
        self._limits = limits
        self._now = now

    @property
    def address(self) -> str:
        """Who signs."""
        return self._signer.address

    def free_nonce(self, at: Block) -> int | None:
        """The nonce that a new transaction may use, or None while an earlier one waits to be mined.

        Writes down what became of earlier transactions as of block `at`, and sends again what is in no block.
        """
        nonce = self._chain.nonce(self.address, at)
        self._conclude(nonce, at)
        waiting = self._waiting(nonce)
        for transaction in waiting:
            self._send_again(transaction)
        # A gap below the first waiting one (its predecessor was not ours to keep) must be filled by a new one.
        return None if waiting and waiting[0].nonce == nonce else nonce

    def submit(
        self, call: Call, purpose: str, nonce: int, record: Callable[[Session], None] | None = None
    ) -> str:
        """Signs a call, keeps the bytes, sends them; returns the hash.

        `record` runs in the transaction that keeps the bytes. Raises CallReverts, FeeAboveCap, ChainUnavailable;
        a refusal by the node is not an error here, because the bytes are kept and sent again.
        """
        with tracing.transaction(purpose):
            return self._submit(call, purpose, nonce, record)

    def _submit(self, call: Call, purpose: str, nonce: int, record: Callable[[Session], None] | None) -> str:
        gas_limit = int(self._chain.estimate(call, self.address) * _GAS_MARGIN)
        max_fee, priority_fee = self._price(self._chain.fee_quote())
        to, data = self._chain.encode(call)
        unsigned = Unsigned(
            chain_id=self._chain.chain_id,
            nonce=nonce,
            to=to,
            data=data,
            gas_limit=gas_limit,
            max_fee=max_fee,
            priority_fee=priority_fee,
        )
        transaction = self._keep(unsigned, purpose, record)
        metrics.TRANSACTIONS.labels("signed").inc()
        self._send(transaction)
        return transaction.hash

    def _price(self, quote: FeeQuote) -> tuple[int, int]:
        """Twice the base fee outlives six full blocks in a row; both prices stay below the cap."""
        needed = quote.base_fee + quote.priority_fee
        if needed > self._limits.cap:
            metrics.FEE_CAPPED.inc()
            raise FeeAboveCap(needed, self._limits.cap)
        return min(2 * quote.base_fee + quote.priority_fee, self._limits.cap), quote.priority_fee

    def _keep(
        self, unsigned: Unsigned, purpose: str, record: Callable[[Session], None] | None
    ) -> SignedTransaction:
        with tracing.step("sign transaction"):
            signed = self._signer.sign(unsigned)

        def write(session: Session) -> SignedTransaction:
            transaction = SignedTransaction(
                hash=signed.hash,
                purpose=purpose,
                nonce=unsigned.nonce,
                to=unsigned.to,
                data=unsigned.data,
                gas_limit=unsigned.gas_limit,
                max_fee=unsigned.max_fee,
                priority_fee=unsigned.priority_fee,
                raw=signed.raw,
                outcome=Outcome.OPEN,
                sign_time=self._now(),
            )
            session.add(transaction)
            if record is not None:
                record(session)
            return transaction

        return run_in_transaction(self._engine, write)

    def _send(self, transaction: SignedTransaction) -> bool:
        """Sends; False when the node says that the price is too low."""
        try:
            with tracing.step("send transaction", transaction.hash):
                self._chain.send(transaction.raw)
        except SendRefused as refusal:
            # NONCE_TOO_LOW: it, or a version of it, is mined; the next step records that.
            log = logger.debug if refusal.reason == "NONCE_TOO_LOW" else logger.warning
            log("the node refuses %s (%s): %s", transaction.purpose, transaction.hash, refusal)
            return refusal.reason != "UNDERPRICED"
        return True

    def _send_again(self, transaction: SignedTransaction) -> None:
        accepted = self._send(transaction)
        age_s = (self._now() - transaction.sign_time).total_seconds()
        if not accepted or age_s > self._limits.bump_after_s:
            self._bump(transaction)

    def _bump(self, old: SignedTransaction) -> None:
        quote = self._chain.fee_quote()
        priority_fee = max(_raised(old.priority_fee), quote.priority_fee)
        max_fee = max(_raised(old.max_fee), 2 * quote.base_fee + priority_fee)
        if max_fee > self._limits.cap:
            max_fee = self._limits.cap
            if max_fee < _raised(old.max_fee) or priority_fee > max_fee:
                metrics.FEE_CAPPED.inc()
                return
        unsigned = Unsigned(
            chain_id=self._chain.chain_id,
            nonce=old.nonce,
            to=old.to,
            data=old.data,
            gas_limit=old.gas_limit,
            max_fee=max_fee,
            priority_fee=priority_fee,
        )
        logger.info("raising the price of %s to %d wei a unit of gas", old.purpose, max_fee)
        metrics.TRANSACTIONS.labels("bumped").inc()
        self._send(self._keep(unsigned, old.purpose, None))

    def _waiting(self, nonce: int) -> list[SignedTransaction]:
        """The newest version of every transaction that the chain has not used, in order; reopened if it once had."""
        with reading(self._engine) as session:
            rows = session.scalars(
                select(SignedTransaction)
                .where(SignedTransaction.nonce >= nonce)
                .order_by(SignedTransaction.nonce, SignedTransaction.id)
            ).all()
        newest = {row.nonce: row for row in rows}
        if any(row.outcome is not Outcome.OPEN for row in newest.values()):
            self._execute(
                update(SignedTransaction).where(SignedTransaction.nonce >= nonce).values(outcome=Outcome.OPEN)
            )
        return list(newest.values())

    def _conclude(self, nonce: int, at: Block) -> None:
        """Records the outcome of open transactions whose nonce the chain has used."""
        with reading(self._engine) as session:
            rows = session.scalars(
                select(SignedTransaction).where(
                    SignedTransaction.nonce < nonce, SignedTransaction.outcome == Outcome.OPEN
                )
            ).all()
        for row in rows:
            receipt = self._chain.receipt(row.hash)
            if receipt is None:
                outcome, gas_used, number = Outcome.REPLACED, 0, at.number
            else:
                outcome = Outcome.SUCCEEDED if receipt.succeeded else Outcome.REVERTED
                gas_used, number = receipt.gas_used, receipt.block.number
            if outcome is Outcome.REVERTED:
                logger.warning("%s (%s) was mined and reverted", row.purpose, row.hash)
            metrics.TRANSACTIONS.labels(outcome.name.lower()).inc()
            change = (
                update(SignedTransaction)
                .where(SignedTransaction.id == row.id)
                .values(outcome=outcome, gas_used=gas_used, block_number=number)
            )
            self._execute(change)

    def _execute(self, change: Update) -> None:
        run_in_transaction(self._engine, lambda session: session.execute(change))


def _raised(price: int) -> int:
    """12.5% more, rounded up."""
    return -(-price * 9 // 8)
