"""The relay's loop: reads the chain, seals what is due, sends the one transaction that the chain needs next.

Every step starts from the current state of the database and the chain, and stores its result before the next begins.
So the loop has no state of its own: it can be killed at any point and started again.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import partial

from sqlalchemy import Engine, func, select
from sqlalchemy.orm import Session

from chain_relay import batch_states, metrics, rewards
from chain_relay.chain import Block, Call, CallReverts, Chain, ChainUnavailable
from chain_relay.observer import Heads, Observer
from chain_relay.registrar import Registrar
from chain_relay.rewards import Rewards
from chain_relay.sealing import seal, waiting
from chain_relay.sender import FeeAboveCap, Sender
from chain_relay.store.tables import (
    Batch,
    BatchState,
    Ledger,
    RegisteredDataset,
    RegisteredModel,
    RewardRoot,
    RewardRootState,
)
from identity.digest import digest_to_bytes
from identity.names import BatchName, RewardRootName
from servicekit.database import reading, run_in_transaction, utc_now
from servicekit.database.watches import Changes
from servicekit.errors import FailedPrecondition
from servicekit.objects import ObjectStore
from servicekit.server.loops import Loop, repeat
from servicekit.telemetry import traces as telemetry

logger = logging.getLogger(__name__)

_SEAL_ATTEMPTS = 30
_QUIET_S = 5.0
_STEP_BOUND_S = 180.0
"""A step makes several calls of the node, each with a deadline, and may build a reward tree."""


Once = Callable[[Session, Callable[[], str]], str]
"""Makes something in its transaction, or returns what the same request made before."""


def _always(session: Session, make: Callable[[], str]) -> str:
    return make()


@dataclass(frozen=True, kw_only=True)
class RelayRules:
    """When things are due."""

    batch_max_events: int
    batch_max_age_s: float
    poll_interval_s: float
    reward_interval_s: float
    """0 proposes only when asked."""
    reward_certainty: BatchState


@dataclass(frozen=True, kw_only=True)
class _Stored:
    """The newest batch, reward root and open registrations, as far as they tell of new work."""

    batches: int | None
    datasets: int | None
    models: tuple[int, datetime | None]
    rewards: int | None
    due_by_time: bool
    """A reward root waits for its delay to pass: it becomes due without any change."""


class Relay:
    """The one writer of a ledger. `loop` is its thread; `notify` wakes it."""

    def __init__(
        self,
        engine: Engine,
        objects: ObjectStore,
        chain: Chain,
        sender: Sender,
        rules: RelayRules,
        *,
        changes: Changes,
        may_mint: bool,
        now: Callable[[], datetime] = utc_now,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine = engine
        self._objects = objects
        self._chain = chain
        self._sender = sender
        self._rules = rules
        self._changes = changes
        self._now = now
        self._clock = clock
        self._observer = Observer(engine, chain, changes)
        self._registrar = Registrar(engine, chain)
        self._rewards = Rewards(engine, chain, may_mint=may_mint, now=now)
        self._loop = repeat(
            self._counted_step,
            rules.poll_interval_s,
            name="relay",
            expected=(ChainUnavailable,),
            bound_s=_STEP_BOUND_S,
        )
        self._baseline_measured = False
        self._quiet: tuple[str, _Stored] | None = None
        self._stepped_s = 0.0

    def notify(self) -> None:
        """Takes the next step now, not at the next interval."""
        self._quiet = None
        self._loop.notify()

    @property
    def loop(self) -> Loop:
        """The loop to run as a thread: it waits for an unreachable node, and reports a conflict at every step."""
        return self._loop

    def _counted_step(self) -> None:
        try:
            self.poll()
        except ChainUnavailable:
            metrics.CHAIN_FAILURES.inc()
            raise

    def poll(self) -> None:
        """Takes a step, unless the last one had nothing to do, and neither the chain's head nor the database changed since.

        A step makes a dozen calls of the node. An idle relay makes one, and takes a step every few seconds nevertheless,
        because a node may change what is safe or finalized without a new block.
        """
        self._seal_due()
        latest = self._chain.block("latest")
        if latest is None:
            raise ChainUnavailable("the node has no latest block")
        metrics.CHAIN_SEEN.set_to_current_time()
        stored = self._stored()
        found = (latest.hash, stored)
        if found == self._quiet and self._clock() - self._stepped_s < _QUIET_S:
            return
        self._quiet = None
        if not self.step() and not stored.due_by_time:
            self._quiet = found
        self._stepped_s = self._clock()

    def step(self) -> bool:
        """Reads the chain once and sends at most one new transaction. Returns whether there was something to do."""
        self._seal_due()
        heads = self._observer.observe()
        metrics.SIGNER_BALANCE.set(self._chain.balance(self._sender.address) / 1e18)
        self._measure_baseline()
        nonce = self._sender.free_nonce(heads.latest)
        self._propose_due(heads)
        if nonce is None:
            return True
        waits = False
        for purpose, call in self._needed(heads):
            try:
                with telemetry.within(self._traceparent(purpose)):
                    self._sender.submit(call, purpose, nonce, self._on_signed(purpose))
                return True
            except CallReverts as error:
                # The chain moved, or its clock is a second behind: the next step decides.
                logger.info("%s is not possible now: %s", purpose, error)
                waits = True
            except FeeAboveCap as error:
                logger.warning("%s waits: %s", purpose, error)
                return True
        return waits

    def _stored(self) -> _Stored:
        """Returns what changes in the database when there is something new to send."""
        with reading(self._engine) as session:
            open_models = select(func.count(), func.max(RegisteredModel.event_time)).where(
                RegisteredModel.final.is_(False)
            )
            models, newest = session.execute(open_models).one()
            return _Stored(
                batches=session.scalar(select(func.max(Batch.seq))),
                datasets=session.scalar(
                    select(func.count())
                    .select_from(RegisteredDataset)
                    .where(RegisteredDataset.final.is_(False))
                ),
                models=(models, newest),
                rewards=session.scalar(select(func.max(RewardRoot.number))),
                due_by_time=session.scalar(
                    select(RewardRoot.number)
                    .where(RewardRoot.state.in_((RewardRootState.PENDING, RewardRootState.PROPOSED)))
                    .limit(1)
                )
                is not None,
            )

    def seal_now(self, once: Once = _always) -> str:
        """Seals what waits, at most one batch. Returns its name, or "" when nothing waited. `once` guards a repeat."""

        def make(session: Session) -> str:
            batch = seal(session, self._objects, self._rules.batch_max_events)
            if batch is None:
                return ""
            name = str(BatchName(batch.seq))
            self._changes.notify(session, name)
            return name

        # On PostgreSQL a batch conflicts with answers that arrive meanwhile; it is rare and must win in the end.
        name = run_in_transaction(
            self._engine, lambda session: once(session, lambda: make(session)), _SEAL_ATTEMPTS
        )
        self.notify()
        return name

    def _age_s(self, since: datetime | None) -> float:
        return (self._now() - since).total_seconds() if since else 0.0

    def _seal_due(self) -> None:
        while True:
            with reading(self._engine) as session:
                count, oldest = waiting(session)
            age_s = self._age_s(oldest)
            metrics.WAITING.set(count)
            metrics.OLDEST_WAITING_SECONDS.set_function(partial(self._age_s, oldest))
            full = count >= self._rules.batch_max_events
            if not full and (oldest is None or age_s < self._rules.batch_max_age_s):
                return
            self.seal_now()

    def _needed(self, heads: Heads) -> Iterator[tuple[str, Call]]:
        """Yields what the chain lacks, the most urgent first."""
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
        """Returns the trace that a transaction continues: its batch's; "" when it belongs to no batch."""
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
        """Measures once the gas of one event in a transaction of its own. A node that cannot estimate it is no failure."""
        if self._baseline_measured:
            return
        self._baseline_measured = True
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

    def _on_signed(self, purpose: str) -> Callable[[Session], None] | None:
        """Returns what marks a batch as submitted in the transaction that stores its signed bytes."""
        kind, _, key = purpose.partition("/")
        if kind != "commit":
            return None

        def submitted(session: Session) -> None:
            batch_states.advance(session, session.get_one(Batch, int(key)), BatchState.SUBMITTED)
            self._changes.notify(session, str(BatchName(int(key))))

        return submitted
