"""A relay with its database and object store on a chain, and the means to let it die anywhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from openledger.attribution.v1 import attribution_pb2
from sqlalchemy import select

from chain_relay.answers import Terms, record_answer
from chain_relay.chain import Chain, LedgerState
from chain_relay.contracts import CONTRACT_OF, load_artifact
from chain_relay.convert import attributed_answer
from chain_relay.deploy import DeployPlan, deploy
from chain_relay.relay import Relay, RelayRules
from chain_relay.sealing import open_ledger
from chain_relay.sender import FeeLimits, Sender
from chain_relay.settings import Settings
from chain_relay.signer import open_signer
from chain_relay.store import batches
from chain_relay.store.tables import Batch, BatchState
from chain_relay.web3_chain import Web3Chain, connect
from openledger_testing import attributed_answers
from openledger_testing.anvil import Anvil
from openledger_testing.fake_chain import FakeChain
from servicekit.database import engine as open_engine
from servicekit.database import migrate, reading, transaction, utc_now
from servicekit.database.watches import Changes
from servicekit.objects import ObjectStore

GWEI = 10**9


class Died(BaseException):
    """The process ended here. Not an Exception: nothing may handle it."""


class DyingChain:
    """A chain whose relay dies before or after a call of one method."""

    def __init__(self, chain: Chain, method: str, *, after: bool) -> None:
        self._chain = chain
        self._method = method
        self._after = after

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._chain, name)
        if name != self._method:
            return found

        def dying(*arguments: Any) -> None:
            if self._after:
                found(*arguments)
            raise Died

        return dying


class Rig:
    """What both chains share. A new relay from `restart` knows only what is in the database and on the chain."""

    def __init__(self, folder: Path, chain: Chain, database_url: str = "") -> None:
        self.settings = Settings(auth_mode="development", state_dir=folder)
        self.chain = chain
        self.signer = open_signer(31337, None, None, None)
        self.engine = open_engine(database_url or f"sqlite:///{folder / 'relay.db'}")
        migrate(self.engine, "chain_relay")
        # No poll: only what this process commits wakes a watch.
        self.changes = Changes(self.engine, batches.versions, poll_s=3600)
        self.objects = ObjectStore(folder / "objects")
        self.later = timedelta()
        latest = chain.block("latest")
        assert latest is not None
        with transaction(self.engine) as session:
            open_ledger(session, chain.chain_id, chain.ledger_address, chain.ledger(latest))
        self.relay = self.restart()

    def restart(
        self, chain: Chain | None = None, clock: Callable[[], float] = time.monotonic, **rules: Any
    ) -> Relay:
        """A new relay, as a new process would make it."""
        chain = chain or self.chain
        limits = FeeLimits(cap=200 * GWEI, bump_after_s=30)
        given = {"batch_max_events": 10_000, "batch_max_age_s": 3600.0, "poll_interval_s": 0.01}
        self.relay = Relay(
            self.engine,
            self.objects,
            chain,
            Sender(self.engine, chain, self.signer, limits, now=self.now),
            RelayRules(
                **{**given, "reward_interval_s": 0.0, "reward_certainty": BatchState.COMMITTED, **rules}
            ),
            changes=self.changes,
            may_mint=True,
            now=self.now,
            clock=clock,
        )
        return self.relay

    def now(self) -> datetime:
        """The clock of the relay: the real one, moved by `later`."""
        return utc_now() + self.later

    def feed(self, count: int, **fields: Any) -> list[attribution_pb2.AttributionScored]:
        """Answers that wait for a batch."""
        settings = self.settings
        terms = Terms(settings.rates, settings.split, settings.accounts)
        events = [attributed_answers.scored(**fields) for _ in range(count)]
        with transaction(self.engine) as session:
            for event in events:
                record_answer(session, attributed_answer(event), terms)
        return events

    def batch(self, seq: int) -> Batch:
        """A batch as the database has it."""
        with reading(self.engine) as session:
            return session.scalars(select(Batch).where(Batch.seq == seq)).one()

    def die(self, method: str, *, after: bool, act: Callable[[Relay], Any] = Relay.step) -> None:
        """Lets a relay die at a call to the chain; afterwards a new one stands."""
        dying: Any = DyingChain(self.chain, method, after=after)
        try:
            act(self.restart(dying))
        except Died:
            self.restart()
            return
        raise AssertionError(f"the relay never called {method}")

    def mine(self, blocks: int = 1) -> None:
        """Mines, and lets the relay look."""
        raise NotImplementedError

    def reorg(self, depth: int, keep: bytes | None = None) -> None:
        """Replaces the newest blocks; what was in them is gone but for the signed bytes to keep."""
        raise NotImplementedError

    def forget(self, transaction_hash: str) -> None:
        """Lets the node forget a transaction that is in no block."""
        raise NotImplementedError

    def commitments(self) -> list[int]:
        """Sequence numbers that were committed, as the chain's own log has them."""
        raise NotImplementedError

    def on_ledger(self) -> LedgerState:
        """What the ledger expects next."""
        latest = self.chain.block("latest")
        assert latest is not None
        return self.chain.ledger(latest)

    def close(self) -> None:
        """Lets go of the database."""
        self.engine.dispose()


class AnvilRig(Rig):
    """On a real chain: contracts deployed, blocks only when the test mines."""

    def __init__(self, folder: Path, node: Anvil) -> None:
        self.node = node
        self.w3 = connect(node.url)
        settings = Settings(auth_mode="development", state_dir=folder)
        signer = open_signer(31337, None, None, None)
        plan = DeployPlan(settings.artifacts, reward_delay_s=2, funding=0)
        self.deployment = deploy(self.w3, signer, plan, folder / "contracts.json")
        node.stop_mining()
        super().__init__(folder, Web3Chain(self.w3, self.deployment, settings.artifacts))

    def mine(self, blocks: int = 1) -> None:
        self.node.mine(blocks)
        self.relay.step()

    def reorg(self, depth: int, keep: bytes | None = None) -> None:
        self.node.rpc("anvil_reorg", depth, [["0x" + keep.hex(), 0]] if keep else [])

    def forget(self, transaction_hash: str) -> None:
        self.node.rpc("anvil_dropTransaction", transaction_hash)

    def commitments(self) -> list[int]:
        logs = self.contract("ledger").events.Committed().get_logs(from_block=0)
        return [int(log["args"]["seq"]) for log in logs]

    def contract(self, name: str) -> Any:
        """A contract, to ask it directly."""
        artifact = load_artifact(self.settings.artifacts, CONTRACT_OF[name])
        return self.w3.eth.contract(address=getattr(self.deployment, name), abi=artifact.abi)


class FakeRig(Rig):
    """On a chain in memory."""

    def __init__(self, folder: Path, database_url: str = "") -> None:
        self.fake = FakeChain()
        super().__init__(folder, self.fake, database_url)

    def mine(self, blocks: int = 1) -> None:
        self.fake.mine(blocks)
        self.relay.step()

    def reorg(self, depth: int, keep: bytes | None = None) -> None:
        self.fake.reorg(depth, keep)

    def forget(self, transaction_hash: str) -> None:
        self.fake.forget(transaction_hash)

    def commitments(self) -> list[int]:
        return self.fake.committed()
