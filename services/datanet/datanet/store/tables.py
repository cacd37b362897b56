"""The tables of this service. Ids in them are the last segments of resource names; times are UTC."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    Float,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    String,
    Text,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import JSON

from servicekit.database import UtcDateTime, new_metadata
from servicekit.database.request_ids import add_request_ids

_BIG = BigInteger().with_variant(Integer(), "sqlite")  # SQLite numbers rows only of exactly INTEGER

_RUNS = text("state = 2")

# The row that owns a text. Rows rejected by a rule do not count, and neither do those whose contributor withdrew them (rule
# `withdrawn`): otherwise sending a stranger's text first and withdrawing it would keep its author out. A row rejected by
# a person does, and one that the owner withdrew: otherwise another contributor could send the same text again and bypass that
# decision.
_OWNS_ITS_TEXT = text("rule IN ('', 'review')")


class Base(DeclarativeBase):
    """With `outbox` and `inbox`."""

    metadata = new_metadata()


add_request_ids(Base.metadata)


class DatanetRow(Base):
    """A Datanet; it never changes."""

    __tablename__ = "datanets"

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    owner: Mapped[str] = mapped_column(String(256))
    display_name: Mapped[str] = mapped_column(Text)
    description: Mapped[str] = mapped_column(Text)
    licence: Mapped[str] = mapped_column(String(256))
    schema: Mapped[dict[str, Any]] = mapped_column(JSON)
    policy: Mapped[dict[str, Any]] = mapped_column(JSON)
    treasury_address: Mapped[str] = mapped_column(String(42))
    create_time: Mapped[datetime] = mapped_column(UtcDateTime)


class ContributorRow(Base):
    """A contributor. A principal is at most one contributor of a Datanet; otherwise a cap would have no effect."""

    __tablename__ = "contributors"

    datanet: Mapped[str] = mapped_column(String(64), primary_key=True)
    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    principal: Mapped[str] = mapped_column(String(256))
    principal_folded: Mapped[str] = mapped_column(String(71))
    """Digest of the folded name (`store.contributors.folded`); who a principal is, and what it may do, is never read from it."""
    display_name: Mapped[str] = mapped_column(Text)
    display_name_folded: Mapped[str] = mapped_column(String(71))
    payout_address: Mapped[str] = mapped_column(String(42))
    consent_licence: Mapped[str] = mapped_column(String(256))
    consent_time: Mapped[datetime] = mapped_column(UtcDateTime)
    accepted_count: Mapped[int] = mapped_column(BigInteger)
    pending_count: Mapped[int] = mapped_column(BigInteger)
    rejected_count: Mapped[int] = mapped_column(BigInteger)

    __table_args__ = (
        ForeignKeyConstraint(["datanet"], ["datanets.id"]),
        Index("contributors_by_principal", "datanet", "principal", unique=True),
        # Not unique: the first release took names and addresses that these find.
        Index("contributors_by_folded_principal", "datanet", "principal_folded"),
        Index("contributors_by_folded_display_name", "datanet", "display_name_folded"),
        Index("contributors_by_payout_address", "datanet", "payout_address"),
    )


class RecordRow(Base):
    """A contribution, accepted or not. `seq` is the order of arrival."""

    __tablename__ = "records"

    seq: Mapped[int] = mapped_column(_BIG, primary_key=True, autoincrement=True)
    datanet: Mapped[str] = mapped_column(String(64))
    contributor: Mapped[str] = mapped_column(String(64))
    digest: Mapped[str] = mapped_column(String(71))
    state: Mapped[int] = mapped_column(Integer)
    rule: Mapped[str] = mapped_column(String(64))
    field: Mapped[str] = mapped_column(String(64))
    reason: Mapped[str] = mapped_column(Text)
    content: Mapped[bytes] = mapped_column(LargeBinary)
    create_time: Mapped[datetime] = mapped_column(UtcDateTime)

    __table_args__ = (
        ForeignKeyConstraint(["datanet", "contributor"], ["contributors.datanet", "contributors.id"]),
        # Makes repeating an interrupted stream idempotent.
        Index("records_once_a_contributor", "datanet", "digest", "contributor", unique=True),
        # Makes a text belong to one contributor, even if others send it too.
        Index(
            "records_one_holder",
            "datanet",
            "digest",
            unique=True,
            sqlite_where=_OWNS_ITS_TEXT,
            postgresql_where=_OWNS_ITS_TEXT,
        ),
        Index("records_by_state", "datanet", "state", "seq"),
        {"sqlite_autoincrement": True},  # the number of a deleted row must not be used again
    )


class SnapshotRow(Base):
    """A sealed snapshot; it never changes."""

    __tablename__ = "snapshots"

    datanet: Mapped[str] = mapped_column(String(64), primary_key=True)
    number: Mapped[int] = mapped_column(Integer, primary_key=True)
    root: Mapped[str] = mapped_column(String(71))
    manifest_digest: Mapped[str] = mapped_column(String(71))
    records_digest: Mapped[str] = mapped_column(String(71))
    record_count: Mapped[int] = mapped_column(BigInteger)
    cluster_count: Mapped[int] = mapped_column(BigInteger)
    near_duplicate_cluster_count: Mapped[int] = mapped_column(BigInteger)
    counts: Mapped[dict[str, Any]] = mapped_column(JSON)
    """{"splits": [[name, records, clusters]], "contributors": the same, "contributor_count": number,
    "rejected": [[rule, records]]}."""
    seal_time: Mapped[datetime] = mapped_column(UtcDateTime)
    read_time: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """When its records were read; NULL in rows of earlier releases."""

    __table_args__ = (ForeignKeyConstraint(["datanet"], ["datanets.id"]),)


class SealOperationRow(Base):
    """The sealing of a snapshot; see `datanet.seal_operation`."""

    __tablename__ = "seal_operations"

    id: Mapped[str] = mapped_column(String(26), primary_key=True)
    datanet: Mapped[str] = mapped_column(String(64))
    principal: Mapped[str] = mapped_column(String(256))
    salt: Mapped[str] = mapped_column(Text)
    held_out_fraction: Mapped[float] = mapped_column(Float)
    control_fraction: Mapped[float] = mapped_column(Float)
    state: Mapped[int] = mapped_column(Integer)
    stage: Mapped[str] = mapped_column(String(16))
    done: Mapped[int] = mapped_column(BigInteger)
    total: Mapped[int] = mapped_column(BigInteger)
    eta_s: Mapped[float] = mapped_column(Float)
    snapshot: Mapped[int] = mapped_column(Integer)
    """0 until it has succeeded."""
    error: Mapped[bytes] = mapped_column(LargeBinary)
    """google.rpc.Status; empty unless it has failed."""
    attempts: Mapped[int] = mapped_column(Integer)
    worker: Mapped[str] = mapped_column(String(36))
    version: Mapped[int] = mapped_column(BigInteger)
    create_time: Mapped[datetime] = mapped_column(UtcDateTime)
    start_time: Mapped[datetime | None] = mapped_column(UtcDateTime)
    end_time: Mapped[datetime | None] = mapped_column(UtcDateTime)

    __table_args__ = (
        ForeignKeyConstraint(["datanet"], ["datanets.id"]),
        Index("seal_operations_by_datanet", "datanet", "id"),
        Index("seal_operations_by_state", "state", "id"),
        Index(
            "seal_operations_one_runs",
            "datanet",
            unique=True,
            sqlite_where=_RUNS,
            postgresql_where=_RUNS,
        ),
    )
