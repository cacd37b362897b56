"""The relay's loop: look at the chain, seal what is due, send the one thing that the chain needs next.

Every step starts from what the database and the chain say now, and each keeps its result before the next begins.
So the loop has no state of its own: it may be killed anywhere and started again.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from chain_relay import batch_states, metrics, rewards
from chain_relay.chain import Block, Call, CallReverts, Chain, ChainUnavailable
from chain_relay.observer import Heads, LedgerConflict, Observer
from chain_relay.registrar import Registrar
from chain_relay.rewards import Rewards
from chain_relay.sealing import seal, waiting
from chain_relay.sender import FeeAboveCap, Sender
from chain_relay.tables import Batch, BatchState, Ledger, RewardRoot
from identity.digest import digest_to_bytes
from identity.names import BatchName, RewardRootName
from servicekit import backoff, telemetry
from servicekit.database import reading, run_in_transaction, utc_now
from servicekit.errors import Aborted, FailedPrecondition
from servicekit.objects import ObjectStore

logger = logging.getLogger(__name__)

_SEAL_ATTEMPTS = 30


Once = Callable[[Session, Callable[[], str]], str]
"""Runs a making in its transaction, or returns what an earlier run of the same request made."""


def _always(session: Session, make: Callable[[], str]) -> str:
    return make()


@dataclass(frozen=True)
class RelayRules:
    """When things are due."""

    batch_max_events: int
    batch_max_age_s: float
    poll_interval_s: float
    reward_interval_s: float
    """0 proposes only when asked."""
    reward_certainty: BatchState


class Relay:
    """One writer for one ledger. `run` is its thread; `notify` wakes it."""

    def __init__(
        self,
        engine: Engine,
        objects: ObjectStore,
        chain: Chain,
        sender: Sender,
        rules: RelayRules,
        *,
        may_mint: bool,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self._engine = engine
        self._objects = objects
        self._chain = chain
        self._sender = sender
        self._rules = rules
        self._now = now
        self._observer = Observer(engine, chain)
        self._registrar = Registrar(engine, chain)
        self._rewards = Rewards(engine, chain, may_mint=may_mint, now=now)
        self._wake = threading.Event()
        self._baseline_asked = False

    def notify(self) -> None:
        """Look now, not at the next interval."""
        self._wake.set()

    def run(self, stop: threading.Event) -> None:
        """Steps until `stop` is set. A node that is away is waited for; a conflict is reported, again and again."""
        failures = 0
        while not stop.is_set():
            self._wake.clear()
            try:
                self.step()
                failures = 0
            except ChainUnavailable as error:
                failures += 1
                metrics.CHAIN_FAILURES.inc()
                if failures == 1:
                    logger.warning("the chain does not answer, waiting for it: %s", error)
            except Aborted:
                failures += 1  # another transaction won, again and again; nothing is broken
            except LedgerConflict as error:
                failures += 1
                logger.error("%s", error)
            except Exception:
                failures += 1
                logger.exception("a step of the relay failed, trying again")
            if failures:
                backoff.wait(stop, failures)
            else:
                self._wake.wait(self._rules.poll_interval_s)

    def step(self) -> None:
        """One look, at most one new transaction."""
        self._seal_due()
        heads = self._observer.look()
        metrics.SIGNER_BALANCE.set(self._chain.balance(self._sender.address) / 1e18)
        self._measure_baseline()
        nonce = self._sender.free_nonce(heads.latest)
        self._propose_due(heads)
        if nonce is None:
            return
        for purpose, call in self._needed(heads):
            try:
                with telemetry.within(self._traceparent(purpose)):
                    self._sender.submit(call, purpose, nonce, _on_signed(purpose))
                return
            except CallReverts as error:
                # The chain moved, or a delay is a second longer on its clock: the next look decides.
                logger.info("%s is not possible now: %s", purpose, error)
            except FeeAboveCap as error:
                logger.warning("%s waits: %s", purpose, error)
                return

    def seal_now(self, once: Once = _always) -> str:
        """Seals what waits, at most one batch; its name, or "" when nothing waited. `once` guards a repeat."""

        def make(session: Session) -> str:
            batch = seal(session, self._objects, self._rules.batch_max_events)
            if batch is None:
                return ""
            return str(BatchName(batch.seq))

        # On PostgreSQL a batch conflicts with answers that arrive meanwhile; it is rare and must win in the end.
        name = run_in_transaction(
            self._engine, lambda session: once(session, lambda: make(session)), _SEAL_ATTEMPTS
        )
        self.notify()
        return name

    def _seal_due(self) -> None:
        while True:
            with reading(self._engine) as session:
                count, oldest = waiting(session)
            age_s = (self._now() - oldest).total_seconds() if oldest else 0.0
            metrics.WAITING.set(count)
            metrics.OLDEST_WAITING_SECONDS.set(age_s)
            full = count >= self._rules.batch_max_events
            if not full and (oldest is None or age_s < self._rules.batch_max_age_s):
                return
            self.seal_now()

    def _needed(self, heads: Heads) -> Iterator[tuple[str, Call]]:
        """What the chain lacks, the most urgent first."""
        yield from self._next_commit(heads)
        yield from self._rewards.next_calls(heads.latest)
        yield from self._registrar.next_calls(heads.latest, heads.finalized)

    def _next_commit(self, heads: Heads) -> Iterator[tuple[str, Call]]:
        with reading(self._engine) as session:
            batch = session.get(Batch, heads.ledger.next_seq)
        if batch is not None:
            data_hash = digest_to_bytes(batch.data_digest)
            args = (batch.seq, batch.first_event, batch.event_count, batch.root, data_hash)
            yield f"commit/{batch.seq}", Call("ledger", "commit", args)

    def _traceparent(self, purpose: str) -> str:
        """The trace that a transaction goes on with: its batch's; "" for what is of no batch."""
        kind, _, key = purpose.partition("/")
        if kind != "commit":
            return ""
        with reading(self._engine) as session:
            return session.get_one(Batch, int(key)).traceparent

    def _propose_due(self, heads: Heads) -> None:
        if not self._rules.reward_interval_s:
            return
        with reading(self._engine) as session:
            newest = session.scalars(select(RewardRoot).order_by(RewardRoot.number.desc()).limit(1)).first()
        if newest is not None:
            age_s = (self._now() - newest.create_time).total_seconds()
            if age_s < self._rules.reward_interval_s:
                return
        try:
            self.make_reward_root(at=heads.latest)
        except FailedPrecondition:
            return  # nothing new, or one is on its way

    def make_reward_root(self, once: Once = _always, at: Block | None = None) -> str:
        """Writes the next reward root, and returns its name. Raises FailedPrecondition, ChainUnavailable."""
        latest = at or self._chain.block("latest")
        if latest is None:
            raise ChainUnavailable("the node has no latest block")
        chain_next = self._chain.distributor(latest).next_number

        def make(session: Session) -> str:
            root = rewards.make_root(
                session,
                self._chain.chain_id,
                self._chain.distributor_address,
                self._rules.reward_certainty,
                chain_next,
            )
            return str(RewardRootName(root.number))

        name = run_in_transaction(self._engine, lambda session: once(session, lambda: make(session)))
        self.notify()
        return name

    def _measure_baseline(self) -> None:
        """Once: the gas that one event would use in a transaction of its own. A node that cannot say is no failure."""
        if self._baseline_asked:
            return
        self._baseline_asked = True
        with reading(self._engine) as session:
            ledger = session.scalars(select(Ledger)).one()
        if not ledger.baseline_gas:
            try:
                gas = self._chain.baseline_gas(self._sender.address)
            except (ChainUnavailable, CallReverts) as error:
                logger.info("this node does not estimate with a state override: %s", error)
                return

            def write(session: Session) -> None:
                session.get_one(Ledger, ledger.address).baseline_gas = gas

            run_in_transaction(self._engine, write)
            ledger.baseline_gas = gas
        metrics.BASELINE_GAS.set(ledger.baseline_gas)


def _on_signed(purpose: str) -> Callable[[Session], None] | None:
    """A batch is submitted in the transaction that keeps its signed bytes."""
    kind, _, key = purpose.partition("/")
    if kind != "commit":
        return None

    def submitted(session: Session) -> None:
        batch_states.advance(session, session.get_one(Batch, int(key)), BatchState.SUBMITTED)

    return submitted
