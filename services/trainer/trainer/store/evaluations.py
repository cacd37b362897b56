"""Evaluations in the database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import desc, select
from sqlalchemy.orm import Session

from identity.digest import digest_json
from identity.names import ModelVersionName
from trainer.entities import Evaluation, Job, JobState
from trainer.store.jobs import to_job
from trainer.store.tables import EvaluationRow, JobRow


def add(
    session: Session,
    job: Job,
    version: ModelVersionName,
    suites: Sequence[Mapping[str, Any]],
    *,
    policy_digest: str,
    policy_source: str,
) -> Evaluation:
    """Inserts an evaluation whose job exists."""
    row = EvaluationRow(
        id=job.id,
        model=version.model,
        version=version.version,
        suites=[dict(suite) for suite in suites],
        suites_digest=_digest(suites),
        report_digest="",
        outcomes_digest="",
        policy_digest=policy_digest,
        policy_source=policy_source,
        verdict="",
    )
    session.add(row)
    session.flush()
    return _evaluation(row, session.get_one(JobRow, job.id))


def get(session: Session, id_: str) -> Evaluation | None:
    row = session.get(EvaluationRow, id_)
    return _evaluation(row, session.get_one(JobRow, id_)) if row else None


def current(
    session: Session, version: ModelVersionName, suites: Sequence[Mapping[str, Any]], policy_digest: str
) -> Evaluation | None:
    """Returns the newest evaluation of a version by the same suites and policy that runs or has succeeded."""
    query = (
        _select()
        .where(
            EvaluationRow.model == version.model,
            EvaluationRow.version == version.version,
            EvaluationRow.suites_digest == _digest(suites),
            EvaluationRow.policy_digest == policy_digest,
            JobRow.state.in_([JobState.QUEUED, JobState.RUNNING, JobState.SUCCEEDED]),
        )
        .order_by(desc(EvaluationRow.id))
        .limit(1)
    )
    found = session.execute(query).first()
    return _evaluation(*found) if found else None


def by_report(session: Session, report_digest: str) -> Evaluation | None:
    """An evaluation that made this report."""
    found = session.execute(_select().where(EvaluationRow.report_digest == report_digest).limit(1)).first()
    return _evaluation(*found) if found else None


def succeeded(session: Session, id_: str, report_digest: str, outcomes_digest: str, verdict: str) -> None:
    row = session.get_one(EvaluationRow, id_)
    row.report_digest, row.outcomes_digest, row.verdict = report_digest, outcomes_digest, verdict
    session.flush()


def _select() -> Any:
    return select(EvaluationRow, JobRow).join(JobRow, JobRow.id == EvaluationRow.id)


def _digest(suites: Sequence[Mapping[str, Any]]) -> str:
    return digest_json([dict(suite) for suite in suites])


def _evaluation(row: EvaluationRow, job: JobRow) -> Evaluation:
    return Evaluation(
        job=to_job(job),
        version=ModelVersionName(row.model, row.version),
        suites=tuple(row.suites),
        report_digest=row.report_digest,
        outcomes_digest=row.outcomes_digest,
        policy_digest=row.policy_digest,
        policy_source=row.policy_source,
        verdict=row.verdict,
    )
