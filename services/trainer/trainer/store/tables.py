"""The tables of this service. Ids in them are the last segments of resource names; times are UTC."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Boolean, Float, ForeignKey, Index, Integer, String, Text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import JSON

from servicekit.database import UtcDateTime, new_metadata
from servicekit.request_ids import add_request_ids

_NAME = String(160)
_DIGEST = String(71)
_ULID = String(26)
_PRINCIPAL = String(256)


class Base(DeclarativeBase):
    """With `outbox` and `inbox`."""

    metadata = new_metadata()


add_request_ids(Base.metadata)


class SnapshotRow(Base):
    """A sealed snapshot, as datanet's event told it. It never changes."""

    __tablename__ = "snapshots"

    name: Mapped[str] = mapped_column(_NAME, primary_key=True)
    root: Mapped[str] = mapped_column(_DIGEST)
    manifest_digest: Mapped[str] = mapped_column(_DIGEST)
    records_digest: Mapped[str] = mapped_column(_DIGEST)
    prompt: Mapped[str] = mapped_column(Text)
    completion: Mapped[str] = mapped_column(Text)


class JobRow(Base):
    """A job of Ray's: the part that trainings and evaluations share. Its id names its attempts at Ray too."""

    __tablename__ = "jobs"

    id: Mapped[str] = mapped_column(_ULID, primary_key=True)
    kind: Mapped[str] = mapped_column(String(16))
    state: Mapped[str] = mapped_column(String(16))
    at_ray: Mapped[bool] = mapped_column(Boolean)
    """Whether Ray may still be running it."""
    attempts: Mapped[int] = mapped_column(Integer)
    error: Mapped[str] = mapped_column(Text)
    create_time: Mapped[datetime] = mapped_column(UtcDateTime)
    start_time: Mapped[datetime | None] = mapped_column(UtcDateTime)
    end_time: Mapped[datetime | None] = mapped_column(UtcDateTime)

    __table_args__ = (Index("jobs_by_state", "state", "id"),)


class RunRow(Base):
    """What a training run was asked to do, and the version it made."""

    __tablename__ = "training_runs"

    id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    model: Mapped[str] = mapped_column(String(64))
    base_model: Mapped[str] = mapped_column(String(64))
    base_digest: Mapped[str] = mapped_column(_DIGEST)
    snapshots: Mapped[list[dict[str, Any]]] = mapped_column(JSON)
    spec: Mapped[dict[str, Any]] = mapped_column(JSON)
    origins: Mapped[dict[str, str]] = mapped_column(JSON)
    intent: Mapped[dict[str, Any]] = mapped_column(JSON)
    assessment: Mapped[dict[str, Any]] = mapped_column(JSON)
    principal: Mapped[str] = mapped_column(_PRINCIPAL)
    version: Mapped[int] = mapped_column(Integer)
    """0 until it succeeded."""
    tokens_per_s: Mapped[float] = mapped_column(Float)
    """Measured while training, for the estimates of later runs; 0 until it succeeded."""

    __table_args__ = (Index("training_runs_by_model", "model", "id"),)


class EvaluationRow(Base):
    """An evaluation of a version by certain suites."""

    __tablename__ = "evaluations"

    id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    model: Mapped[str] = mapped_column(String(64))
    version: Mapped[int] = mapped_column(Integer)
    suites: Mapped[list[dict[str, Any]]] = mapped_column(JSON)
    suites_digest: Mapped[str] = mapped_column(_DIGEST)
    report_digest: Mapped[str] = mapped_column(String(71))
    """"" until it succeeded, like the next."""
    outcomes_digest: Mapped[str] = mapped_column(String(71))

    __table_args__ = (
        Index("evaluations_by_version", "model", "version", "suites_digest"),
        Index("evaluations_by_report", "report_digest"),
    )


class VersionRow(Base):
    """A model version. What it is never changes; its report, verdict, state and history do."""

    __tablename__ = "model_versions"

    model: Mapped[str] = mapped_column(String(64), primary_key=True)
    number: Mapped[int] = mapped_column(Integer, primary_key=True)
    digest: Mapped[str] = mapped_column(_DIGEST)
    run: Mapped[str] = mapped_column(ForeignKey("training_runs.id"), unique=True)
    adapter_digest: Mapped[str] = mapped_column(_DIGEST)
    training_manifest_digest: Mapped[str] = mapped_column(_DIGEST)
    compute: Mapped[str] = mapped_column(String(64))
    packages: Mapped[dict[str, str]] = mapped_column(JSON)
    report_digest: Mapped[str] = mapped_column(String(71))
    verdict: Mapped[str] = mapped_column(String(16))
    state: Mapped[str] = mapped_column(String(16))
    history: Mapped[list[dict[str, str]]] = mapped_column(JSON)


class OverrideRow(Base):
    """A decision of two people to promote against the gate."""

    __tablename__ = "promotion_overrides"

    id: Mapped[str] = mapped_column(_ULID, primary_key=True)
    model: Mapped[str] = mapped_column(String(64))
    version: Mapped[int] = mapped_column(Integer)
    report_digest: Mapped[str] = mapped_column(_DIGEST)
    reason: Mapped[str] = mapped_column(Text)
    requester: Mapped[str] = mapped_column(_PRINCIPAL)
    approver: Mapped[str] = mapped_column(_PRINCIPAL)
    create_time: Mapped[datetime] = mapped_column(UtcDateTime)
    approve_time: Mapped[datetime | None] = mapped_column(UtcDateTime)
