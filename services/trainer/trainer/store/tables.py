"""The tables of this service. Ids in them are the last segments of resource names; times are UTC."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Boolean, Float, ForeignKey, Index, Integer, LargeBinary, String, Text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import JSON

from servicekit.database import UtcDateTime, new_metadata
from servicekit.database.request_ids import add_request_ids

_NAME = String(160)
_DIGEST = String(71)
_ULID = String(26)
_PRINCIPAL = String(256)
_POLICY_VERSION = String(128)


class Base(DeclarativeBase):
    """With `outbox` and `inbox`."""

    metadata = new_metadata()


add_request_ids(Base.metadata)


class SnapshotRow(Base):
    """A sealed snapshot, as datanet's event described it. It never changes."""

    __tablename__ = "snapshots"

    name: Mapped[str] = mapped_column(_NAME, primary_key=True)
    root: Mapped[str] = mapped_column(_DIGEST)
    manifest_digest: Mapped[str] = mapped_column(_DIGEST)
    records_digest: Mapped[str] = mapped_column(_DIGEST)
    prompt: Mapped[str] = mapped_column(Text)
    completion: Mapped[str] = mapped_column(Text)


class JobRow(Base):
    """A job that runs at Ray: what trainings and evaluations share. Its id names its attempts at Ray too."""

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
    gate_policy: Mapped[str] = mapped_column(_POLICY_VERSION, server_default="")
    """Name of the policy's version; "", like the next, for a run of a release without gate policies."""
    policy_digest: Mapped[str] = mapped_column(String(71), server_default="")

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
    policy_digest: Mapped[str] = mapped_column(String(71), server_default="")
    policy_source: Mapped[str] = mapped_column(String(71), server_default="")
    verdict: Mapped[str] = mapped_column(String(16), server_default="")

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
    policy_digest: Mapped[str] = mapped_column(String(71), server_default="")
    """Of the policy that the report was judged by."""
    newest_report: Mapped[dict[str, str]] = mapped_column(JSON, server_default="{}")
    """The newest complete report, or the newest one while none is complete."""
    failed_reports: Mapped[list[dict[str, str]]] = mapped_column(JSON, server_default="[]")


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
    """Who completed the approval; "" until then, as `approve_time` is absent."""
    create_time: Mapped[datetime] = mapped_column(UtcDateTime)
    approve_time: Mapped[datetime | None] = mapped_column(UtcDateTime)
    state: Mapped[str] = mapped_column(String(16), server_default="pending")
    approvals: Mapped[list[dict[str, str]]] = mapped_column(JSON, server_default="[]")
    people: Mapped[int] = mapped_column(Integer, server_default="2")
    failed_reports: Mapped[list[str]] = mapped_column(JSON, server_default="[]")
    refuser: Mapped[str] = mapped_column(_PRINCIPAL, server_default="")
    refuse_reason: Mapped[str] = mapped_column(Text, server_default="")
    refuse_time: Mapped[datetime | None] = mapped_column(UtcDateTime)

    __table_args__ = (Index("promotion_overrides_by_version", "model", "version"),)


class PromotionRow(Base):
    """One change of what a model serves. Rows are inserted and never changed; `entry` says everything, the other columns
    repeat what lists are filtered by."""

    __tablename__ = "promotions"

    model: Mapped[str] = mapped_column(String(64), primary_key=True)
    number: Mapped[int] = mapped_column(Integer, primary_key=True)
    entry: Mapped[bytes] = mapped_column(LargeBinary)
    """Canonical JSON, whose sha256 is `hash`."""
    hash: Mapped[str] = mapped_column(_DIGEST)
    version: Mapped[int] = mapped_column(Integer)
    kind: Mapped[str] = mapped_column(String(16))
    principal: Mapped[str] = mapped_column(_PRINCIPAL)
    report_digest: Mapped[str] = mapped_column(String(71))
    policy_digest: Mapped[str] = mapped_column(String(71))
    override: Mapped[str] = mapped_column(String(26))
    promote_time: Mapped[datetime] = mapped_column(UtcDateTime)


class GatePolicyRow(Base):
    """One version of a gate policy. What it asks for never changes; its state does."""

    __tablename__ = "gate_policies"

    policy: Mapped[str] = mapped_column(String(64), primary_key=True)
    version: Mapped[int] = mapped_column(Integer, primary_key=True)
    digest: Mapped[str] = mapped_column(_DIGEST)
    state: Mapped[str] = mapped_column(String(16))
    requester: Mapped[str] = mapped_column(_PRINCIPAL)
    reason: Mapped[str] = mapped_column(Text)
    loosens: Mapped[list[str]] = mapped_column(JSON)
    people: Mapped[int] = mapped_column(Integer)
    approvals: Mapped[list[dict[str, str]]] = mapped_column(JSON)
    refuser: Mapped[str] = mapped_column(_PRINCIPAL)
    refuse_reason: Mapped[str] = mapped_column(Text)
    create_time: Mapped[datetime] = mapped_column(UtcDateTime)
    decide_time: Mapped[datetime | None] = mapped_column(UtcDateTime)


class PolicyContentRow(Base):
    """The canonical JSON of every gate policy that another table names by digest, effective ones included."""

    __tablename__ = "policy_contents"

    digest: Mapped[str] = mapped_column(_DIGEST, primary_key=True)
    content: Mapped[bytes] = mapped_column(LargeBinary)
