"""Jobs in the database."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from servicekit.database import ulid, utc_now
from trainer.entities import Job, JobKind, JobState, check_job_move
from trainer.store.tables import JobRow


def add(session: Session, kind: JobKind) -> Job:
    """Inserts a job, queued. Ids sort by time, so the queue is in their order."""
    row = JobRow(
        id=ulid(),
        kind=kind,
        state=JobState.QUEUED,
        at_ray=False,
        attempts=0,
        error="",
        create_time=utc_now(),
        start_time=None,
        end_time=None,
    )
    session.add(row)
    session.flush()
    return to_job(row)


def get(session: Session, id_: str) -> Job | None:
    row = session.get(JobRow, id_)
    return to_job(row) if row else None


def versions(session: Session, ids: Collection[str]) -> Mapping[str, Hashable]:
    """Returns, for watches, a value for each job that differs after every change of it."""
    query = select(JobRow.id, JobRow.state, JobRow.attempts).where(JobRow.id.in_(ids))
    return {id_: (state, attempts) for id_, state, attempts in session.execute(query).tuples()}


def open_jobs(session: Session) -> list[Job]:
    """Returns the jobs that are not over, or that Ray may still run; oldest first."""
    waiting = JobRow.state.in_([JobState.QUEUED, JobState.RUNNING])
    query = select(JobRow).where(or_(waiting, JobRow.at_ray)).order_by(JobRow.id)
    return [to_job(row) for row in session.scalars(query)]


def move(session: Session, id_: str, state: JobState, error: str = "") -> Job:
    """Changes a job's state and sets its times. Raises IllegalMove."""
    row = session.get_one(JobRow, id_, with_for_update=True)
    check_job_move(JobState(row.state), state)
    now = utc_now()
    row.state = state
    row.error = error
    if state is JobState.RUNNING:
        row.start_time = row.start_time or now
    elif state is JobState.QUEUED:
        row.at_ray = False
    elif state.final:
        row.end_time = now
    session.flush()
    return to_job(row)


def reaches_ray(session: Session, id_: str) -> Job:
    """Records, before it is submitted, that Ray may run the job from now on. Recorded twice, it is the same attempt."""
    row = session.get_one(JobRow, id_)
    if not row.at_ray:
        row.at_ray = True
        row.attempts += 1
        session.flush()
    return to_job(row)


def left_ray(session: Session, id_: str) -> None:
    """Records that Ray no longer runs the job."""
    session.get_one(JobRow, id_).at_ray = False


def to_job(row: JobRow) -> Job:
    return Job(
        id=row.id,
        kind=JobKind(row.kind),
        state=JobState(row.state),
        at_ray=row.at_ray,
        attempts=row.attempts,
        error=row.error,
        create_time=row.create_time,
        start_time=row.start_time,
        end_time=row.end_time,
    )
