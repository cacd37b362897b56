"""Model versions in the database."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import desc, func, select
from sqlalchemy.orm import Session

from identity.names import ModelVersionName
from servicekit.database import utc_now
from trainer.entities import Run, StateChange, Version, VersionState, check_version_move
from trainer.jobs.files import TrainingResult
from trainer.store.runs import to_run
from trainer.store.tables import JobRow, RunRow, VersionRow


def add(session: Session, run: Run, digest: str, result: TrainingResult) -> Version:
    """Inserts the next version of the run's model."""
    newest = session.scalar(select(func.max(VersionRow.number)).where(VersionRow.model == run.model))
    row = VersionRow(
        model=run.model,
        number=(newest or 0) + 1,
        digest=digest,
        run=run.job.id,
        adapter_digest=result.adapter_digest,
        training_manifest_digest=result.training_manifest_digest,
        compute=result.compute,
        packages=dict(result.packages),
        report_digest="",
        verdict="",
        state=VersionState.TRAINED,
        history=[_change(VersionState.TRAINED, run.principal, f"trained by trainingRuns/{run.job.id}")],
    )
    session.add(row)
    session.flush()
    return _version(session, row)


def get(session: Session, name: ModelVersionName) -> Version | None:
    row = session.get(VersionRow, (name.model, name.version))
    return _version(session, row) if row else None


def page(session: Session, model: str, after: tuple[str, int] | None, limit: int) -> list[Version]:
    """Versions by model, newest first within one; all models for "". `after` is the last one of the page
    before."""
    query = select(VersionRow).order_by(VersionRow.model, desc(VersionRow.number)).limit(limit)
    if model:
        query = query.where(VersionRow.model == model)
    if after is not None:
        last, number = after
        query = query.where(
            (VersionRow.model > last) | ((VersionRow.model == last) & (VersionRow.number < number))
        )
    return [_version(session, row) for row in session.scalars(query)]


def exists_model(session: Session, model: str) -> bool:
    """Whether a model has, or will have, a version."""
    return session.scalars(select(RunRow.id).where(RunRow.model == model).limit(1)).first() is not None


def promoted(session: Session, model: str) -> Version | None:
    """The version of a model that is served."""
    query = select(VersionRow).where(VersionRow.model == model, VersionRow.state == VersionState.PROMOTED)
    row = session.scalars(query).first()
    return _version(session, row) if row else None


def set_report(session: Session, name: ModelVersionName, report_digest: str, verdict: str) -> None:
    """Notes a version's newest report."""
    row = session.get_one(VersionRow, (name.model, name.version))
    row.report_digest, row.verdict = report_digest, verdict
    session.flush()


def move(
    session: Session, name: ModelVersionName, state: VersionState, principal: str, reason: str
) -> Version:
    """Changes a version's state and adds to its history. Raises IllegalMove."""
    row = session.get_one(VersionRow, (name.model, name.version), with_for_update=True)
    check_version_move(VersionState(row.state), state)
    row.state = state
    row.history = [*row.history, _change(state, principal, reason)]
    session.flush()
    return _version(session, row)


def _change(state: VersionState, principal: str, reason: str) -> dict[str, str]:
    return {"state": state, "time": utc_now().isoformat(), "principal": principal, "reason": reason}


def _version(session: Session, row: VersionRow) -> Version:
    run = session.get_one(RunRow, row.run)
    return Version(
        name=ModelVersionName(row.model, row.number),
        digest=row.digest,
        run=to_run(run, session.get_one(JobRow, row.run)),
        adapter_digest=row.adapter_digest,
        training_manifest_digest=row.training_manifest_digest,
        compute=row.compute,
        packages=row.packages,
        report_digest=row.report_digest,
        verdict=row.verdict,
        state=VersionState(row.state),
        history=tuple(_state_change(change) for change in row.history),
    )


def _state_change(change: dict[str, Any]) -> StateChange:
    time = datetime.fromisoformat(change["time"])
    return StateChange(VersionState(change["state"]), time, change["principal"], change["reason"])
