"""Training runs in the database."""

from __future__ import annotations

from dataclasses import asdict

from sqlalchemy import desc, select
from sqlalchemy.orm import Session

from trainer.assessment import Intent
from trainer.entities import JobState, Run
from trainer.jobs.files import SnapshotInput
from trainer.spec import TrainingSpec
from trainer.store.jobs import to_job
from trainer.store.tables import JobRow, RunRow


def add(session: Session, run: Run) -> None:
    """Inserts a run; its job stands already."""
    session.add(
        RunRow(
            id=run.job.id,
            model=run.model,
            base_model=run.base_model,
            base_digest=run.base_digest,
            snapshots=[asdict(snapshot) for snapshot in run.snapshots],
            spec=run.spec.to_json(),
            origins=dict(run.origins),
            intent=asdict(run.intent),
            assessment=dict(run.assessment),
            principal=run.principal,
            version=0,
            tokens_per_s=0.0,
        )
    )
    session.flush()


def get(session: Session, id_: str) -> Run | None:
    row = session.get(RunRow, id_)
    return to_run(row, session.get_one(JobRow, id_)) if row else None


def page(session: Session, model: str, before: str, limit: int) -> list[Run]:
    """Runs, newest first, older than id `before`; all models for ""."""
    query = select(RunRow, JobRow).join(JobRow, JobRow.id == RunRow.id).order_by(desc(RunRow.id)).limit(limit)
    if model:
        query = query.where(RunRow.model == model)
    if before:
        query = query.where(RunRow.id < before)
    return [to_run(run, job) for run, job in session.execute(query)]


def first_principal(session: Session, model: str) -> str | None:
    """Who asked for the model's first run; None for a model without one. ULIDs are in order of time."""
    return session.scalar(select(RunRow.principal).where(RunRow.model == model).order_by(RunRow.id).limit(1))


def succeeded(session: Session, id_: str, version: int, tokens_per_s: float) -> None:
    """Notes the version that a run made, and its speed."""
    row = session.get_one(RunRow, id_)
    row.version, row.tokens_per_s = version, tokens_per_s
    session.flush()


def newest_speed(session: Session, base_digest: str) -> float:
    """Training tokens a second of the newest run of this base that succeeded; 0 without one."""
    query = (
        select(RunRow.tokens_per_s)
        .join(JobRow, JobRow.id == RunRow.id)
        .where(RunRow.base_digest == base_digest, JobRow.state == JobState.SUCCEEDED)
        .order_by(desc(RunRow.id))
        .limit(1)
    )
    return session.scalars(query).first() or 0.0


def to_run(row: RunRow, job: JobRow) -> Run:
    return Run(
        job=to_job(job),
        model=row.model,
        base_model=row.base_model,
        base_digest=row.base_digest,
        snapshots=tuple(SnapshotInput(**snapshot) for snapshot in row.snapshots),
        spec=TrainingSpec.from_json(row.spec),
        origins=row.origins,
        intent=Intent(row.intent["purpose"], tuple((suite, margin) for suite, margin in row.intent["keep"])),
        assessment=row.assessment,
        principal=row.principal,
        version=row.version,
        tokens_per_s=row.tokens_per_s,
    )
