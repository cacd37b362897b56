"""The relay's tables. Amounts are decimal texts: base units outgrow 64 bits at 9.2 OPEN."""

from __future__ import annotations

import enum
from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    Dialect,
    Enum,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    String,
    UniqueConstraint,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeDecorator

from servicekit.database import UtcDateTime, new_metadata
from servicekit.database.request_ids import add_request_ids


class Base(DeclarativeBase):
    """All tables of this service, with outbox and inbox."""

    metadata = new_metadata()


add_request_ids(Base.metadata)


class Amount(TypeDecorator[int]):
    """A non-negative integer below 2^256 as decimal text. Sums are made in Python: SQL would round or overflow."""

    impl = String(78)
    cache_ok = True

    def process_bind_param(self, value: int | None, dialect: Dialect) -> str | None:
        """Refuses what no amount can be."""
        if value is not None and not 0 <= value < 1 << 256:
            raise ValueError(f"{value} is not an amount of base units")
        return None if value is None else str(value)

    def process_result_value(self, value: Any, dialect: Dialect) -> int | None:
        """The number."""
        return None if value is None else int(value)


class BatchState(enum.Enum):
    """How certain a batch is, in rising order; a reorg moves a batch back to SEALED."""

    SEALED = 1
    SUBMITTED = 2
    COMMITTED = 3
    SETTLED = 4
    FINAL = 5


class RewardRootState(enum.Enum):
    """State of a reward root."""

    PENDING = 1
    PROPOSED = 2
    ACCEPTED = 3
    VETOED = 4


class Outcome(enum.Enum):
    """The outcome of a signed transaction as of the latest block."""

    OPEN = 1
    SUCCEEDED = 2
    REVERTED = 3
    REPLACED = 4
    """Another transaction has its nonce."""


_SEQUENCE = BigInteger().with_variant(Integer(), "sqlite")


class Ledger(Base):
    """The one ledger this relay writes, and the numbers its next batch gets. One row."""

    __tablename__ = "ledger"

    address: Mapped[str] = mapped_column(String(42), primary_key=True)
    chain_id: Mapped[int] = mapped_column(BigInteger)
    next_seq: Mapped[int] = mapped_column(BigInteger)
    next_event: Mapped[int] = mapped_column(BigInteger)
    baseline_gas: Mapped[int] = mapped_column(BigInteger, default=0)


class ScoredAnswer(Base):
    """One attributed answer, in order of arrival; without a batch until it is sealed into one."""

    __tablename__ = "scored_answer"
    __table_args__ = (
        Index("scored_answer_by_batch", "batch_seq", "position"),
        {"sqlite_autoincrement": True},
    )

    position: Mapped[int] = mapped_column(_SEQUENCE, primary_key=True, autoincrement=True)
    inference: Mapped[str] = mapped_column(String(64), unique=True)
    model_digest: Mapped[str] = mapped_column(String(71))
    report_digest: Mapped[str] = mapped_column(String(71))
    record_digest: Mapped[str] = mapped_column(String(71))
    fee: Mapped[int] = mapped_column(Amount)
    dust: Mapped[int] = mapped_column(Amount)
    receive_time: Mapped[datetime] = mapped_column(UtcDateTime)
    traceparent: Mapped[str] = mapped_column(String(55), default="", server_default="")
    """The trace that sealing continues; "" for none."""
    batch_seq: Mapped[int | None] = mapped_column(ForeignKey("batch.seq"))
    event_index: Mapped[int | None] = mapped_column(BigInteger)


class JournalEntry(Base):
    """One part of one answer's fee. The parts of an answer add up to its fee less its dust."""

    __tablename__ = "journal"
    __table_args__ = (Index("journal_by_beneficiary", "kind", "beneficiary", "address"),)

    inference: Mapped[str] = mapped_column(ForeignKey("scored_answer.inference"), primary_key=True)
    line: Mapped[int] = mapped_column(Integer, primary_key=True)
    kind: Mapped[str] = mapped_column(String(16))
    beneficiary: Mapped[str] = mapped_column(String(256))
    address: Mapped[str] = mapped_column(String(42))
    amount: Mapped[int] = mapped_column(Amount)


class Batch(Base):
    """Events committed by one root."""

    __tablename__ = "batch"

    seq: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    first_event: Mapped[int] = mapped_column(BigInteger)
    event_count: Mapped[int] = mapped_column(Integer)
    root: Mapped[bytes] = mapped_column(LargeBinary(32))
    data_digest: Mapped[str] = mapped_column(String(71))
    state: Mapped[BatchState] = mapped_column(Enum(BatchState, native_enum=False, length=16), index=True)
    reorg_count: Mapped[int] = mapped_column(Integer, default=0)
    fee_total: Mapped[int] = mapped_column(Amount)
    payout_total: Mapped[int] = mapped_column(Amount)
    dust: Mapped[int] = mapped_column(Amount)
    transaction_hash: Mapped[str] = mapped_column(String(66), default="")
    block_number: Mapped[int] = mapped_column(BigInteger, default=0)
    block_hash: Mapped[str] = mapped_column(String(66), default="")
    gas_used: Mapped[int] = mapped_column(BigInteger, default=0)
    gas_price: Mapped[int] = mapped_column(Amount, default=0)
    traceparent: Mapped[str] = mapped_column(String(55), default="", server_default="")
    """The trace it was sealed in, which its commitment continues; "" for none."""


class BatchChange(Base):
    """A state that a batch came to, and when the relay saw it."""

    __tablename__ = "batch_change"
    __table_args__ = (Index("batch_change_by_batch", "batch_seq", "id"),)

    id: Mapped[int] = mapped_column(_SEQUENCE, primary_key=True, autoincrement=True)
    batch_seq: Mapped[int] = mapped_column(ForeignKey("batch.seq"))
    state: Mapped[BatchState] = mapped_column(Enum(BatchState, native_enum=False, length=16))
    time: Mapped[datetime] = mapped_column(UtcDateTime)


class Earning(Base):
    """What one beneficiary earned by one batch at one address: the journal, summed when the batch is sealed."""

    __tablename__ = "earning"

    batch_seq: Mapped[int] = mapped_column(ForeignKey("batch.seq"), primary_key=True)
    kind: Mapped[str] = mapped_column(String(16), primary_key=True)
    beneficiary: Mapped[str] = mapped_column(String(256), primary_key=True)
    address: Mapped[str] = mapped_column(String(42), primary_key=True)
    amount: Mapped[int] = mapped_column(Amount)


class SignedTransaction(Base):
    """Signed bytes, kept from before they are first sent. Several may share a nonce: one, and its bumps."""

    __tablename__ = "signed_transaction"
    __table_args__ = (Index("signed_transaction_by_nonce", "nonce", "outcome"),)

    id: Mapped[int] = mapped_column(_SEQUENCE, primary_key=True, autoincrement=True)
    hash: Mapped[str] = mapped_column(String(66), unique=True)
    purpose: Mapped[str] = mapped_column(String(300), index=True)
    nonce: Mapped[int] = mapped_column(BigInteger)
    to: Mapped[str] = mapped_column(String(42))
    data: Mapped[bytes] = mapped_column(LargeBinary)
    gas_limit: Mapped[int] = mapped_column(BigInteger)
    max_fee: Mapped[int] = mapped_column(Amount)
    priority_fee: Mapped[int] = mapped_column(Amount)
    raw: Mapped[bytes] = mapped_column(LargeBinary)
    outcome: Mapped[Outcome] = mapped_column(Enum(Outcome, native_enum=False, length=16))
    sign_time: Mapped[datetime] = mapped_column(UtcDateTime)
    gas_used: Mapped[int] = mapped_column(BigInteger, default=0)
    block_number: Mapped[int] = mapped_column(BigInteger, default=0)


class RegisteredDataset(Base):
    """A sealed snapshot that the registry must hold."""

    __tablename__ = "registered_dataset"

    name: Mapped[str] = mapped_column(String(256), primary_key=True)
    root: Mapped[str] = mapped_column(String(71))
    manifest_digest: Mapped[str] = mapped_column(String(71))
    final: Mapped[bool] = mapped_column(default=False, index=True)


class RegisteredModel(Base):
    """A model version that the registry must hold, with the newest report and state."""

    __tablename__ = "registered_model"

    version_digest: Mapped[str] = mapped_column(String(71), primary_key=True)
    name: Mapped[str] = mapped_column(String(256))
    base_digest: Mapped[str] = mapped_column(String(71))
    adapter_digest: Mapped[str] = mapped_column(String(71))
    report_digest: Mapped[str] = mapped_column(String(71))
    state: Mapped[int] = mapped_column(Integer)
    event_time: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """Of the newest event about it; None for a row from before this column."""
    final: Mapped[bool] = mapped_column(default=False, index=True)


class RewardRoot(Base):
    """All accounts' cumulative rewards under one root."""

    __tablename__ = "reward_root"

    number: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    root: Mapped[bytes] = mapped_column(LargeBinary(32))
    state: Mapped[RewardRootState] = mapped_column(Enum(RewardRootState, native_enum=False, length=16))
    account_count: Mapped[int] = mapped_column(Integer)
    total: Mapped[int] = mapped_column(Amount)
    last_seq: Mapped[int] = mapped_column(BigInteger)
    create_time: Mapped[datetime] = mapped_column(UtcDateTime)
    accept_after: Mapped[datetime | None] = mapped_column(UtcDateTime)


class RewardAccount(Base):
    """One account's cumulative amount under a reward root; `position` is the leaf's place."""

    __tablename__ = "reward_account"
    __table_args__ = (UniqueConstraint("reward_root", "position"),)

    reward_root: Mapped[int] = mapped_column(ForeignKey("reward_root.number"), primary_key=True)
    address: Mapped[str] = mapped_column(String(42), primary_key=True)
    position: Mapped[int] = mapped_column(Integer)
    cumulative: Mapped[int] = mapped_column(Amount)
