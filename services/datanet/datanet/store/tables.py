"""The tables of this service. Ids in them are the last segments of resource names; times are UTC."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, ForeignKeyConstraint, Index, Integer, LargeBinary, String, Text, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import JSON

from servicekit.database import UtcDateTime, new_metadata
from servicekit.request_ids import add_request_ids

_BIG = BigInteger().with_variant(Integer(), "sqlite")  # SQLite numbers rows only of exactly INTEGER

# The row that a text belongs to: rows rejected by a rule do not count, one rejected by a person does, or whoever
# sends the text again under another name would get past that person.
_HOLDS_ITS_TEXT = text("rule IN ('', 'review')")


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
    """A contributor. One principal is one contributor of a Datanet: a cap would mean nothing otherwise."""

    __tablename__ = "contributors"

    datanet: Mapped[str] = mapped_column(String(64), primary_key=True)
    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    principal: Mapped[str] = mapped_column(String(256))
    display_name: Mapped[str] = mapped_column(Text)
    payout_address: Mapped[str] = mapped_column(String(42))
    consent_licence: Mapped[str] = mapped_column(String(256))
    consent_time: Mapped[datetime] = mapped_column(UtcDateTime)
    accepted_count: Mapped[int] = mapped_column(BigInteger)
    pending_count: Mapped[int] = mapped_column(BigInteger)
    rejected_count: Mapped[int] = mapped_column(BigInteger)

    __table_args__ = (
        ForeignKeyConstraint(["datanet"], ["datanets.id"]),
        Index("contributors_by_principal", "datanet", "principal", unique=True),
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
        # What makes a retry of a cut stream change nothing.
        Index("records_once_a_contributor", "datanet", "digest", "contributor", unique=True),
        # What makes a text belong to one contributor, whoever else sends it.
        Index(
            "records_one_holder",
            "datanet",
            "digest",
            unique=True,
            sqlite_where=_HOLDS_ITS_TEXT,
            postgresql_where=_HOLDS_ITS_TEXT,
        ),
        Index("records_by_state", "datanet", "state", "seq"),
        {"sqlite_autoincrement": True},  # a number freed by a deleted row must not come back
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
    """{"splits": [[name, records, clusters]], "contributors": the same, "rejected": [[rule, records]]}."""
    seal_time: Mapped[datetime] = mapped_column(UtcDateTime)

    __table_args__ = (ForeignKeyConstraint(["datanet"], ["datanets.id"]),)
