"""Tables and queries.

An answer is pending from the transaction that took its event in, and scored from the transaction that wrote its
record, its shares and the event about it: there is no state between. What a crash leaves is either of the two.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

from sqlalchemy import (
    BigInteger,
    CursorResult,
    ForeignKey,
    Index,
    LargeBinary,
    String,
    Text,
    func,
    select,
    update,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from servicekit.database import UtcDateTime, new_metadata


class Base(DeclarativeBase):
    """This service's tables, with outbox and inbox."""

    metadata = new_metadata()


class ModelVersionRow(Base):
    """A model version as last heard of."""

    __tablename__ = "model_versions"

    name: Mapped[str] = mapped_column(String(160), primary_key=True)
    version_digest: Mapped[str] = mapped_column(String(71), index=True)
    """Two versions trained alike, byte for byte, have one digest."""
    base_digest: Mapped[str] = mapped_column(String(71))
    adapter_digest: Mapped[str] = mapped_column(String(71))
    training_manifest_digest: Mapped[str] = mapped_column(String(71))
    told: Mapped[datetime] = mapped_column(UtcDateTime())
    """Time of the newest event about it; an older one that arrives later is not applied."""


class IndexRow(Base):
    """An index that is wanted, being built, or ready. One for each version digest."""

    __tablename__ = "indexes"

    version_digest: Mapped[str] = mapped_column(String(71), primary_key=True)
    model_version: Mapped[str] = mapped_column(ForeignKey("model_versions.name"), unique=True)
    """The first version by which it was asked for."""
    digest: Mapped[str] = mapped_column(String(71), default="")
    """Of the index; "" until it is ready."""
    wanted: Mapped[datetime] = mapped_column(UtcDateTime())
    stage: Mapped[str] = mapped_column(String(40), default="waiting")
    done: Mapped[int] = mapped_column(BigInteger, default=0)
    total: Mapped[int] = mapped_column(BigInteger, default=0)
    eta_s: Mapped[float] = mapped_column(default=0.0)
    record_count: Mapped[int] = mapped_column(BigInteger, default=0)
    control_count: Mapped[int] = mapped_column(BigInteger, default=0)
    error: Mapped[str] = mapped_column(Text, default="")
    failures: Mapped[int] = mapped_column(default=0)
    not_before: Mapped[datetime] = mapped_column(UtcDateTime())


class TreasuryRow(Base):
    """Where a Datanet's unattributed part goes, as of its newest snapshot."""

    __tablename__ = "treasuries"

    datanet: Mapped[str] = mapped_column(String(160), primary_key=True)
    address: Mapped[str] = mapped_column(String(42))
    snapshot: Mapped[int] = mapped_column(BigInteger)


class AnswerRow(Base):
    """An answer: pending with its event, or scored with its record."""

    __tablename__ = "answers"

    id: Mapped[str] = mapped_column(String(26), primary_key=True)
    """The inference's ULID: answers in order of their time."""
    model_version: Mapped[str] = mapped_column(String(160))
    version_digest: Mapped[str] = mapped_column(String(71))
    """"" for a base model."""
    principal: Mapped[str] = mapped_column(String(256), default="", server_default="")
    """Who asked."""
    pending: Mapped[bool] = mapped_column()
    event: Mapped[bytes] = mapped_column(LargeBinary)
    """InferenceCompleted; emptied when scored."""
    traceparent: Mapped[str] = mapped_column(String(55), default="", server_default="")
    """The trace that its scoring goes on with; "" for none."""
    failures: Mapped[int] = mapped_column(default=0)
    not_before: Mapped[datetime] = mapped_column(UtcDateTime())
    record: Mapped[bytes] = mapped_column(LargeBinary, default=b"")
    """Canonical JSON."""
    digest: Mapped[str] = mapped_column(String(71), default="")
    score_time: Mapped[datetime | None] = mapped_column(UtcDateTime())
    unattributed_ppm: Mapped[int] = mapped_column(default=0)
    naive_control_ppm: Mapped[int] = mapped_column(default=0)
    control_check_ppm: Mapped[int] = mapped_column(default=0)

    __table_args__ = (
        Index("answers_to_score", "pending", "version_digest", "id"),
        Index("answers_by_version", "model_version", "id"),
        Index("answers_by_principal", "principal", "id"),
    )


class ShareRow(Base):
    """One contributor's part of one answer, for totals; the record is what counts."""

    __tablename__ = "shares"

    answer: Mapped[str] = mapped_column(ForeignKey("answers.id"), primary_key=True)
    contributor: Mapped[str] = mapped_column(String(290), primary_key=True)
    ppm: Mapped[int] = mapped_column()
    naive_ppm: Mapped[int] = mapped_column()
    lexical_ppm: Mapped[int] = mapped_column()
    record_count: Mapped[int] = mapped_column(BigInteger)
    cluster_count: Mapped[int] = mapped_column(BigInteger)


@dataclass(frozen=True)
class Finished:
    """What turns a pending answer into a scored one."""

    record: bytes
    digest: str
    score_time: datetime
    unattributed_ppm: int
    naive_control_ppm: int
    control_check_ppm: int


def next_answer(session: Session, now: datetime) -> tuple[AnswerRow, str] | None:
    """The oldest pending answer that can be scored now, and its index's digest ("" for a base model's)."""
    return (
        session.execute(
            select(AnswerRow, func.coalesce(IndexRow.digest, ""))
            .outerjoin(IndexRow, AnswerRow.version_digest == IndexRow.version_digest)
            .where(
                AnswerRow.pending,
                AnswerRow.not_before <= now,
                (AnswerRow.version_digest == "") | (func.coalesce(IndexRow.digest, "") != ""),
            )
            .order_by(AnswerRow.id)
            .limit(1)
        )
        .tuples()
        .first()
    )


def finish(session: Session, answer_id: str, finished: Finished) -> bool:
    """Turns a pending answer into a scored one; False when it is scored already, and then nothing changes."""
    result = cast(
        "CursorResult[Any]",
        session.execute(
            update(AnswerRow)
            .where(AnswerRow.id == answer_id, AnswerRow.pending)
            .values(
                pending=False,
                event=b"",
                record=finished.record,
                digest=finished.digest,
                score_time=finished.score_time,
                unattributed_ppm=finished.unattributed_ppm,
                naive_control_ppm=finished.naive_control_ppm,
                control_check_ppm=finished.control_check_ppm,
            )
        ),
    )
    return result.rowcount == 1


def next_index(session: Session, now: datetime) -> tuple[IndexRow, ModelVersionRow] | None:
    """The index that has waited longest, and its version."""
    return (
        session.execute(
            select(IndexRow, ModelVersionRow)
            .join(ModelVersionRow, IndexRow.model_version == ModelVersionRow.name)
            .where(IndexRow.digest == "", IndexRow.not_before <= now)
            .order_by(IndexRow.wanted, IndexRow.model_version)
            .limit(1)
        )
        .tuples()
        .first()
    )


def versions_without_index(session: Session) -> Sequence[ModelVersionRow]:
    """Known versions that pending answers wait for and nobody has asked an index of."""
    waiting = select(AnswerRow.version_digest).where(AnswerRow.pending).distinct()
    return session.scalars(
        select(ModelVersionRow)
        .outerjoin(IndexRow, IndexRow.version_digest == ModelVersionRow.version_digest)
        .where(IndexRow.version_digest.is_(None), ModelVersionRow.version_digest.in_(waiting))
    ).all()


def want_index(session: Session, version: ModelVersionRow, now: datetime) -> None:
    """Asks for a version's index, once."""
    if session.get(IndexRow, version.version_digest) is None:
        session.add(
            IndexRow(
                model_version=version.name, version_digest=version.version_digest, wanted=now, not_before=now
            )
        )


def answers(
    session: Session, model_version: str, principal: str | None, before: str, limit: int
) -> Sequence[AnswerRow]:
    """Newest first, those older than `before` ("" for all) and, unless None, asked by the principal."""
    query = select(AnswerRow).order_by(AnswerRow.id.desc()).limit(limit)
    if model_version:
        query = query.where(AnswerRow.model_version == model_version)
    if principal is not None:
        query = query.where(AnswerRow.principal == principal)
    if before:
        query = query.where(AnswerRow.id < before)
    return session.scalars(query).all()


def indexes(session: Session, after: str, limit: int) -> Sequence[IndexRow]:
    """By model version."""
    query = select(IndexRow).order_by(IndexRow.model_version).limit(limit)
    return session.scalars(query.where(IndexRow.model_version > after) if after else query).all()


def treasuries(session: Session, datanets: set[str]) -> dict[str, str]:
    """Addresses of those Datanets that have one."""
    rows = session.scalars(select(TreasuryRow).where(TreasuryRow.datanet.in_(datanets)))
    return {row.datanet: row.address for row in rows if row.address}
