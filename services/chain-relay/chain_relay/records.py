"""What the API returns, before it becomes a message: rows with what belongs to them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from chain_relay.fee import Rates
from chain_relay.split import SplitBps
from chain_relay.store.balances import Earned
from chain_relay.store.tables import Batch, BatchChange, JournalEntry, Ledger, RewardRoot, ScoredAnswer


@dataclass(frozen=True, kw_only=True)
class Info:
    """The chain, its contracts, rates and splits."""

    ledger: Ledger
    contracts: Mapping[str, str]
    """Address by contract: "ledger", "distributor", "token", "registry"."""
    committer: str
    rates: Rates
    split: SplitBps
    waiting_events: int


@dataclass(frozen=True)
class BatchRecord:
    """A batch with the states it went through, oldest first."""

    batch: Batch
    history: list[BatchChange]


@dataclass(frozen=True)
class SettledAnswer:
    """An answer with the parts of its fee."""

    answer: ScoredAnswer
    journal: list[JournalEntry]


@dataclass(frozen=True, kw_only=True)
class AccountBalance:
    """What a beneficiary earned, and the sums of its address in base units.

    Beneficiaries that share an address show the same `claimable` and `claimed`.
    """

    earned: Earned
    claimable: int
    claimed: int


@dataclass(frozen=True, kw_only=True)
class RewardRootRecord:
    """A reward root with the hashes of the transactions that proposed and accepted it; "" for none."""

    root: RewardRoot
    propose_hash: str
    accept_hash: str


@dataclass(frozen=True, kw_only=True)
class Claim:
    """Everything an account needs to claim by a reward root. Amounts in base units."""

    root: RewardRootRecord
    address: str
    cumulative: int
    claimed: int
    proof: list[bytes]
    chain_id: int
    distributor: str
