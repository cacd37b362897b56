"""Model versions in the database."""

from __future__ import annotations

import json
from collections.abc import Collection
from datetime import datetime
from typing import Any

from sqlalchemy import String, cast, func, select
from sqlalchemy.orm import Session

from evalstats.policy import Verdict
from identity.names import BaseModelName, ModelName, ModelVersionName, TrainingRunName
from servicekit.database import utc_now
from servicekit.lists import TEXT, Field, Listing, Page, Query, choices, resource
from trainer.contract.files import TrainingResult
from trainer.entities import FailedReport, Run, StateChange, Version, VersionState, check_version_move
from trainer.store.runs import bytes_of, to_run
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
        policy_digest=run.policy_digest,
        newest_report={},
        failed_reports=[],
        state=VersionState.TRAINED,
        history=[_change(VersionState.TRAINED, run.principal, f"trained by trainingRuns/{run.job.id}")],
    )
    session.add(row)
    session.flush()
    return _version(session, row)


def get(session: Session, name: ModelVersionName) -> Version | None:
    row = session.get(VersionRow, (name.model, name.version))
    return _version(session, row) if row else None


LISTING = Listing(
    fields={
        "name": Field(
            "models/" + VersionRow.model + "/versions/" + cast(VersionRow.number, String),
            resource(ModelVersionName),
            sortable=False,
        ),
        "state": Field(VersionRow.state, choices({state.name: state.value for state in VersionState})),
        "verdict": Field(
            VersionRow.verdict,
            choices(
                {
                    "PASSED": Verdict.PASS,
                    "FAILED": Verdict.FAILED,
                    "INCONCLUSIVE": Verdict.INCONCLUSIVE,
                    "INCOMPLETE": Verdict.INCOMPLETE,
                }
            ),
        ),
        "model": Field(VersionRow.model, resource(ModelName, lambda name: name.model)),
        "base_model": Field(RunRow.base_model, resource(BaseModelName, lambda name: name.base_model)),
        "owner": Field(RunRow.principal, TEXT),
        "digest": Field(VersionRow.digest, TEXT, sortable=False),
        "adapter_digest": Field(VersionRow.adapter_digest, TEXT, sortable=False),
        "report_digest": Field(VersionRow.report_digest, TEXT, sortable=False),
        "policy_digest": Field(VersionRow.policy_digest, TEXT, sortable=False),
        "training_run": Field(VersionRow.run, resource(TrainingRunName, lambda name: name.training_run)),
    },
    key=[VersionRow.model, VersionRow.number.desc()],
)
"""What model versions are filtered and sorted by; by model, newest first within one."""


def page(session: Session, model: str, query: Query) -> Page[Version]:
    """Returns a page of versions, of all models for "". Raises InvalidArgument."""
    statement = (
        select(VersionRow, RunRow, JobRow)
        .join(RunRow, RunRow.id == VersionRow.run)
        .join(JobRow, JobRow.id == VersionRow.run)
    )
    if model:
        statement = statement.where(VersionRow.model == model)
    found = LISTING.page(session, statement, query, bytes_of=lambda item: _bytes(*item))
    items = [_to_version(version, to_run(run, job)) for version, run, job in found.items]
    return Page(items, found.next_page_token, found.total_size)


def _bytes(row: VersionRow, run: RunRow, job: JobRow) -> int:
    """Returns a bound for a version's size in a response."""
    content = row.packages, row.history, row.failed_reports
    return len(json.dumps(content, ensure_ascii=False).encode()) + bytes_of(run, job)


def exists_model(session: Session, model: str) -> bool:
    """Returns whether a model has a training run, and so has or will have a version."""
    return session.scalars(select(RunRow.id).where(RunRow.model == model).limit(1)).first() is not None


def promoted(session: Session, model: str) -> Version | None:
    """Returns the version of a model that is served, if one is."""
    query = select(VersionRow).where(VersionRow.model == model, VersionRow.state == VersionState.PROMOTED)
    row = session.scalars(query).first()
    return _version(session, row) if row else None


def set_report(
    session: Session, name: ModelVersionName, report_digest: str, verdict: str, policy_digest: str
) -> Version:
    """Records a report of a version, and which report stands for it from now on.

    That is its newest failed report that no override lifts; else its newest complete one; else its newest. So a complete report
    replaces an incomplete one and never the reverse, and no later report replaces a failed one.
    """
    row = session.get_one(VersionRow, (name.model, name.version))
    made = {"report": report_digest, "verdict": verdict, "policy": policy_digest}
    if verdict == Verdict.FAILED and report_digest not in {each["report"] for each in row.failed_reports}:
        failed = {"report": report_digest, "policy": policy_digest, "override": ""}
        row.failed_reports = [*row.failed_reports, failed]
    if verdict != Verdict.INCOMPLETE or row.newest_report.get("verdict") in (None, Verdict.INCOMPLETE):
        row.newest_report = made
    return _stand(session, row)


def lift(session: Session, name: ModelVersionName, reports: Collection[str], override: str) -> Version:
    """Records that an approved override lifts these failed reports of a version, and which report stands for it now."""
    row = session.get_one(VersionRow, (name.model, name.version))
    row.failed_reports = [
        {**each, "override": each["override"] or (override if each["report"] in reports else "")}
        for each in row.failed_reports
    ]
    return _stand(session, row)


def _stand(session: Session, row: VersionRow) -> Version:
    standing = [each for each in row.failed_reports if not each["override"]]
    if standing:
        row.report_digest, row.verdict = standing[-1]["report"], Verdict.FAILED
        row.policy_digest = standing[-1]["policy"]
    else:
        row.report_digest, row.verdict = row.newest_report["report"], row.newest_report["verdict"]
        row.policy_digest = row.newest_report["policy"]
    session.flush()
    return _version(session, row)


def follow_report(session: Session, version: Version) -> Version:
    """Moves a version by the report that stands for it. One that is or was served keeps its state: people decide on that."""
    state = VersionState.BLOCKED if version.verdict == Verdict.FAILED else VersionState.EVALUATED
    if version.state in (state, VersionState.PROMOTED, VersionState.RETIRED):
        return version
    return move(session, version.name, state, "trainer", f"report {version.report_digest}: {version.verdict}")


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
    return _to_version(row, to_run(run, session.get_one(JobRow, row.run)))


def _to_version(row: VersionRow, run: Run) -> Version:
    return Version(
        name=ModelVersionName(row.model, row.number),
        digest=row.digest,
        run=run,
        adapter_digest=row.adapter_digest,
        training_manifest_digest=row.training_manifest_digest,
        compute=row.compute,
        packages=row.packages,
        report_digest=row.report_digest,
        verdict=row.verdict,
        policy_digest=row.policy_digest,
        failed_reports=tuple(
            FailedReport(
                report_digest=each["report"], policy_digest=each["policy"], override=each["override"]
            )
            for each in row.failed_reports
        ),
        state=VersionState(row.state),
        history=tuple(_state_change(change) for change in row.history),
    )


def _state_change(change: dict[str, Any]) -> StateChange:
    time = datetime.fromisoformat(change["time"])
    return StateChange(VersionState(change["state"]), time, change["principal"], change["reason"])
