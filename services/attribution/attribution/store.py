"""Tables and queries.

An answer is pending from the transaction that processes its event, and scored from the transaction that writes its record,
its shares and the event about it. There is no state in between, so a crash leaves one of the two.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
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
    case,
    func,
    select,
    update,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from identity.names import AttributionName, InferenceName, ModelVersionName
from servicekit.database import UtcDateTime, new_metadata
from servicekit.lists import (
    BOOLEAN,
    INTEGER,
    TEXT,
    TIME,
    Field,
    Listing,
    Page,
    Query,
    choices,
    resource,
)


class Base(DeclarativeBase):
    """This service's tables, with outbox and inbox."""

    metadata = new_metadata()


class ModelVersionRow(Base):
    """The latest known state of a model version."""

    __tablename__ = "model_versions"

    name: Mapped[str] = mapped_column(String(160), primary_key=True)
    version_digest: Mapped[str] = mapped_column(String(71), index=True)
    """Two versions with identical training have the same digest."""
    base_digest: Mapped[str] = mapped_column(String(71))
    adapter_digest: Mapped[str] = mapped_column(String(71))
    training_manifest_digest: Mapped[str] = mapped_column(String(71))
    published_at: Mapped[datetime] = mapped_column(UtcDateTime())
    """Time of the newest event about it. An older event that arrives later is ignored."""


class IndexRow(Base):
    """An index that is requested, being built, or ready. One for each version digest."""

    __tablename__ = "indexes"

    version_digest: Mapped[str] = mapped_column(String(71), primary_key=True)
    model_version: Mapped[str] = mapped_column(ForeignKey("model_versions.name"), unique=True)
    """The first version that it was requested for."""
    digest: Mapped[str] = mapped_column(String(71), default="")
    """Of the index; "" until it is ready."""
    requested_at: Mapped[datetime] = mapped_column(UtcDateTime())
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
    """The address that receives a Datanet's unattributed part, from its newest snapshot."""

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
    """The trace that its scoring continues; "" for none."""
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
    """One contributor's share of one answer, for totals; the record is authoritative."""

    __tablename__ = "shares"

    answer: Mapped[str] = mapped_column(ForeignKey("answers.id"), primary_key=True)
    contributor: Mapped[str] = mapped_column(String(290), primary_key=True)
    ppm: Mapped[int] = mapped_column()
    naive_ppm: Mapped[int] = mapped_column()
    lexical_ppm: Mapped[int] = mapped_column()
    record_count: Mapped[int] = mapped_column(BigInteger)
    cluster_count: Mapped[int] = mapped_column(BigInteger)


@dataclass(frozen=True, kw_only=True)
class Finished:
    """The values of a scored answer."""

    record: bytes
    digest: str
    score_time: datetime
    unattributed_ppm: int
    naive_control_ppm: int
    control_check_ppm: int


def next_answer(session: Session, now: datetime) -> tuple[AnswerRow, str] | None:
    """Returns the oldest pending answer that can be scored now, and its index's digest ("" for a base model's answer)."""
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
    """Marks a pending answer as scored. Returns False, and changes nothing, if it is scored already."""
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
    """Returns the index that has waited longest, and its version."""
    return (
        session.execute(
            select(IndexRow, ModelVersionRow)
            .join(ModelVersionRow, IndexRow.model_version == ModelVersionRow.name)
            .where(IndexRow.digest == "", IndexRow.not_before <= now)
            .order_by(IndexRow.requested_at, IndexRow.model_version)
            .limit(1)
        )
        .tuples()
        .first()
    )


def versions_without_index(session: Session) -> Sequence[ModelVersionRow]:
    """Returns known versions without an index that pending answers wait for."""
    waiting = select(AnswerRow.version_digest).where(AnswerRow.pending).distinct()
    return session.scalars(
        select(ModelVersionRow)
        .outerjoin(IndexRow, IndexRow.version_digest == ModelVersionRow.version_digest)
        .where(IndexRow.version_digest.is_(None), ModelVersionRow.version_digest.in_(waiting))
    ).all()


def answer_versions(session: Session, ids: Collection[str]) -> Mapping[str, bool]:
    """Returns {answer: whether it is pending}, for watches (`servicekit.database.watches`)."""
    rows = session.execute(select(AnswerRow.id, AnswerRow.pending).where(AnswerRow.id.in_(ids)))
    return dict(rows.tuples().all())


def request_index(session: Session, version: ModelVersionRow, now: datetime) -> None:
    """Requests a version's index. Requesting it again changes nothing."""
    if session.get(IndexRow, version.version_digest) is None:
        session.add(
            IndexRow(
                model_version=version.name,
                version_digest=version.version_digest,
                requested_at=now,
                not_before=now,
            )
        )


ANSWERS = Listing(
    fields={
        "name": Field(AnswerRow.id, resource(AttributionName, lambda name: name.inference)),
        "inference": Field(AnswerRow.id, resource(InferenceName, lambda name: name.inference)),
        "state": Field(AnswerRow.pending, choices({"PENDING": True, "SCORED": False}), sortable=False),
        "model.name": Field(AnswerRow.model_version, TEXT, sortable=False),
        "principal": Field(AnswerRow.principal, TEXT, sortable=False),
        "digest": Field(AnswerRow.digest, TEXT, sortable=False),
        "score_time": Field(AnswerRow.score_time, TIME),
        "unattributed_ppm": Field(AnswerRow.unattributed_ppm, INTEGER),
    },
    key=[AnswerRow.id.desc()],
)

INDEXES = Listing(
    fields={
        "name": Field(IndexRow.model_version, resource(ModelVersionName)),  # a version has one index
        "model_version": Field(IndexRow.model_version, TEXT),
        "digest": Field(IndexRow.digest, TEXT, sortable=False),
        "ready": Field(case((IndexRow.digest != "", True), else_=False), BOOLEAN, sortable=False),
        "progress.stage": Field(IndexRow.stage, TEXT, sortable=False),
        "record_count": Field(IndexRow.record_count, INTEGER),
        "control_count": Field(IndexRow.control_count, INTEGER),
        "error": Field(IndexRow.error, TEXT, sortable=False),
    },
    key=[IndexRow.model_version],
)


def answers(session: Session, query: Query, *, model_version: str, principal: str | None) -> Page[AnswerRow]:
    """Returns a page of answers, newest first: of one model version unless "", of one principal unless None."""
    rows = select(AnswerRow)
    if model_version:
        rows = rows.where(AnswerRow.model_version == model_version)
    if principal is not None:
        rows = rows.where(AnswerRow.principal == principal)
    return ANSWERS.page(session, rows, query, bytes_of=_bytes)


def indexes(session: Session, query: Query) -> Page[IndexRow]:
    """Returns a page of indexes, by model version."""
    return INDEXES.page(session, select(IndexRow), query, bytes_of=_index_bytes)


def _bytes(row: AnswerRow) -> int:
    """Size of an attribution in a response: the record, and at most as much again for the fields read from it."""
    return 2 * len(row.record) + 500


def _index_bytes(row: IndexRow) -> int:
    """Size of an index in a response: its texts, and a bound for its numbers."""
    return len(f"{row.model_version}{row.digest}{row.stage}{row.error}".encode()) + 200


def treasuries(session: Session, datanets: set[str]) -> dict[str, str]:
    """Returns {Datanet: address}; Datanets without an address are missing."""
    rows = session.scalars(select(TreasuryRow).where(TreasuryRow.datanet.in_(datanets)))
    return {row.datanet: row.address for row in rows if row.address}
