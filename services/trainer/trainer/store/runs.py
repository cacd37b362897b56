"""Training runs in the database."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from sqlalchemy import desc, select
from sqlalchemy.orm import Session

from identity.names import BaseModelName, GatePolicyVersionName, ModelName, TrainingRunName
from servicekit.lists import TEXT, TIME, Field, Listing, Page, Query, choices, resource
from trainer.assessment import Assessment, Intent
from trainer.contract.files import SnapshotInput
from trainer.contract.spec import TrainingSpec
from trainer.entities import JobState, Run
from trainer.store.jobs import to_job
from trainer.store.tables import JobRow, RunRow


def add(session: Session, run: Run) -> None:
    """Inserts a run whose job exists."""
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
            assessment=run.assessment.to_json(),
            principal=run.principal,
            version=0,
            tokens_per_s=0.0,
            gate_policy=str(run.gate_policy) if run.gate_policy else "",
            policy_digest=run.policy_digest,
        )
    )
    session.flush()


def get(session: Session, id_: str) -> Run | None:
    row = session.get(RunRow, id_)
    return to_run(row, session.get_one(JobRow, id_)) if row else None


LISTING = Listing(
    fields={
        "name": Field(RunRow.id, resource(TrainingRunName, lambda name: name.training_run)),
        "state": Field(JobRow.state, choices({state.name: state.value for state in JobState})),
        "model": Field(RunRow.model, resource(ModelName, lambda name: name.model)),
        "base_model": Field(RunRow.base_model, resource(BaseModelName, lambda name: name.base_model)),
        "principal": Field(RunRow.principal, TEXT),
        "create_time": Field(JobRow.create_time, TIME),
        "start_time": Field(JobRow.start_time, TIME),
        "end_time": Field(JobRow.end_time, TIME),
    },
    key=[RunRow.id.desc()],
)
"""What training runs are filtered and sorted by; newest first."""


def page(session: Session, model: str, query: Query) -> Page[Run]:
    """Returns a page of runs, of all models for "". Raises InvalidArgument."""
    statement = select(RunRow, JobRow).join(JobRow, JobRow.id == RunRow.id)
    if model:
        statement = statement.where(RunRow.model == model)
    found = LISTING.page(session, statement, query, bytes_of=lambda item: bytes_of(*item))
    return Page([to_run(run, job) for run, job in found.items], found.next_page_token, found.total_size)


def bytes_of(row: RunRow, job: JobRow) -> int:
    """Returns a bound for a run's size in a response, which shows its specification up to twice."""
    content = row.snapshots, row.spec, row.origins, row.intent, row.assessment, job.error
    return 2 * len(json.dumps(content, ensure_ascii=False).encode()) + 1000


def first_principal(session: Session, model: str) -> str | None:
    """Returns who created the model's first run; None for a model without one. ULIDs are in order of time."""
    return session.scalar(select(RunRow.principal).where(RunRow.model == model).order_by(RunRow.id).limit(1))


def gate_policies(session: Session, model: str) -> list[tuple[GatePolicyVersionName, str]]:
    """Returns, oldest first, the gate policy version and the effective policy's digest of each run of a model that has made a
    version or may still make one."""
    query = (
        select(RunRow.gate_policy, RunRow.policy_digest)
        .join(JobRow, JobRow.id == RunRow.id)
        .where(
            RunRow.model == model,
            RunRow.gate_policy != "",
            JobRow.state.not_in([JobState.FAILED, JobState.CANCELLED]),
        )
        .order_by(RunRow.id)
    )
    rows = list(session.execute(query).tuples())
    found = list(dict.fromkeys(reversed(rows)))  # each at its newest place
    return [(GatePolicyVersionName.parse(name), digest) for name, digest in reversed(found)]


def succeeded(session: Session, id_: str, version: int, tokens_per_s: float) -> None:
    """Records the version that a run made, and its speed."""
    row = session.get_one(RunRow, id_)
    row.version, row.tokens_per_s = version, tokens_per_s
    session.flush()


def newest_speed(session: Session, base_digest: str) -> float:
    """Returns the training tokens a second of the newest run of this base that succeeded; 0 without one."""
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
        intent=_intent(row.intent),
        assessment=Assessment.from_json(row.assessment),
        principal=row.principal,
        version=row.version,
        tokens_per_s=row.tokens_per_s,
        gate_policy=GatePolicyVersionName.parse(row.gate_policy) if row.gate_policy else None,
        policy_digest=row.policy_digest,
    )


def _intent(content: Mapping[str, Any]) -> Intent:
    keep = tuple((suite, margin) for suite, margin in content["keep"])
    return Intent(content["purpose"], keep, content.get("gate_policy", ""))
