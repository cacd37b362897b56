"""What the relay needs from a chain, and what a chain's answers mean.

Truth is contract state read at a block, never a receipt: a receipt says what a node once saw, state says what
holds now. Every read therefore names its block, and a decision that needs two values reads both at the same one.
Blocks come under three tags: `latest` may be reorganised away, `safe` is unlikely to be, `finalized` is not.

`web3_chain.py` calls a node; the tests have a second implementation, and one test suite covers both.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

Tag = Literal["latest", "safe", "finalized"]
ContractName = Literal["ledger", "registry", "distributor", "token"]


class ChainUnavailable(Exception):
    """The node does not answer, or not with sense. Nothing is known about what it did; ask again later."""


class CallReverts(Exception):
    """A transaction would revert (or a read does): `reason` is the contract's error, as far as it is known."""

    def __init__(self, call: str, reason: str) -> None:
        super().__init__(f"{call} reverts: {reason}")
        self.call = call
        self.reason = reason


class SendRefused(Exception):
    """The node refuses signed bytes. `reason` says which of the refusals that mean something it is."""

    def __init__(
        self, reason: Literal["NONCE_TOO_LOW", "UNDERPRICED", "NO_FUNDS", "OTHER"], text: str
    ) -> None:
        super().__init__(f"{reason}: {text}")
        self.reason = reason


@dataclass(frozen=True)
class Block:
    """A block: its number, hash and time (Unix seconds)."""

    number: int
    hash: str
    timestamp: int


@dataclass(frozen=True)
class Call:
    """A contract function with its arguments: the same for every chain, encoded by the chain that sends it."""

    contract: ContractName
    function: str
    args: tuple[int | str | bytes, ...]

    def __str__(self) -> str:
        return f"{self.contract}.{self.function}"


@dataclass(frozen=True)
class LedgerState:
    """What the next batch must be."""

    next_seq: int
    next_event: int


@dataclass(frozen=True, kw_only=True)
class Commitment:
    """A batch's commitment on chain."""

    root: bytes
    transaction_hash: str
    block: Block
    gas_used: int
    gas_price: int
    """Effective price, wei a unit of gas."""


@dataclass(frozen=True)
class ModelOnChain:
    """A model version in the registry; `state` is 0 where it is unknown."""

    report_digest: bytes
    state: int


@dataclass(frozen=True, kw_only=True)
class DistributorState:
    """The distributor: what is accepted, what is pending, what it holds. Amounts in base units."""

    next_number: int
    accepted_number: int
    accepted_root: bytes
    pending_root: bytes
    """32 zero bytes when no proposal is open."""
    accept_after: int
    """Unix seconds."""
    total_claimed: int
    balance: int


@dataclass(frozen=True)
class FeeQuote:
    """What a block would take now, wei a unit of gas."""

    base_fee: int
    priority_fee: int


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """What became of a transaction."""

    transaction_hash: str
    succeeded: bool
    block: Block
    gas_used: int
    gas_price: int


class Chain(Protocol):
    """One chain and this deployment's contracts on it. Every method may raise ChainUnavailable."""

    @property
    def chain_id(self) -> int: ...

    @property
    def ledger_address(self) -> str: ...

    @property
    def distributor_address(self) -> str: ...

    def block(self, at: Tag | int) -> Block | None:
        """The block of a tag or number; None when there is none yet."""

    def ledger(self, at: Block) -> LedgerState:
        """The ledger's counters; zeros in blocks before it was deployed."""

    def root(self, seq: int, at: Block) -> bytes:
        """A batch's root; 32 zero bytes when it is not committed."""

    def commitment(self, seq: int, at: Block) -> Commitment | None:
        """Where a batch was committed, up to a block."""

    def dataset_root(self, name_hash: bytes, at: Block) -> bytes:
        """A registered snapshot's root; 32 zero bytes when it is unknown."""

    def model(self, version_digest: bytes, at: Block) -> ModelOnChain:
        """A registered model version."""

    def distributor(self, at: Block) -> DistributorState:
        """The distributor's state."""

    def claimed(self, account: str, at: Block) -> int:
        """What an account has claimed, base units."""

    def nonce(self, account: str, at: Block) -> int:
        """Transactions of an account that are in the chain up to a block."""

    def balance(self, account: str) -> int:
        """What an account can pay gas with, wei."""

    def fee_quote(self) -> FeeQuote:
        """Prices of the next block."""

    def encode(self, call: Call) -> tuple[str, bytes]:
        """The address and the data of a call."""

    def estimate(self, call: Call, sender: str) -> int:
        """The gas a call would use now. Raises CallReverts."""

    def send(self, raw: bytes) -> None:
        """Hands signed bytes to the node; bytes it already has are no error. Raises SendRefused."""

    def receipt(self, transaction_hash: str) -> Receipt | None:
        """What became of a transaction; None while it is in no block."""

    def baseline_gas(self, sender: str) -> int:
        """Gas of recording one event in a transaction of its own, for comparison."""
