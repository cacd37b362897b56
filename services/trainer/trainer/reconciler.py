"""Keeps the database and Ray in agreement: submits queued jobs, follows them, records their results.

It keeps nothing between two steps. The database says what should be; Ray and the job's folder say what is. So the
process may be killed at any line, and the next one continues:

- between recording the attempt and submitting it: the job is still queued, and is submitted;
- between submitting it and recording that it runs: it is submitted again under the same id, which Ray knows;
- while the job runs, or after it ended: the result file exists or will;
- between the result file and recording it: one transaction makes the version, the job's state and the events.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

from sqlalchemy import Engine
from sqlalchemy.orm import Session

from servicekit.database import reading, run_in_transaction
from servicekit.database.watches import Changes
from servicekit.heartbeats import Heartbeat
from trainer import metrics
from trainer.contract.failure import clear_failure, read_failure
from trainer.contract.files import command
from trainer.entities import Job, JobKind, JobState
from trainer.job_handlers import JobHandler
from trainer.jobs.runner import JobRunner, JobStatus, RunnerUnavailable
from trainer.store import jobs

logger = logging.getLogger(__name__)

MAX_ATTEMPTS = 3
"""How often a job that Ray lost (a killed process, a restarted cluster) is submitted. A job that failed with an error
of its own would fail again, and is not."""


class Reconciler:
    """Owned by one thread."""

    def __init__(
        self,
        *,
        engine: Engine,
        changes: Changes,
        runner: JobRunner,
        handlers: Mapping[JobKind, JobHandler],
        jobs_dir: Path,
        python: str,
        max_running: int,
    ) -> None:
        self._engine = engine
        self._changes = changes
        self._runner = runner
        self._handlers = handlers
        self._jobs_dir = jobs_dir
        self._python = python
        self._max_running = max_running
        self._available = True
        self._ray = Heartbeat("ray")

    def step(self) -> None:
        """Acts once on every open job."""
        with reading(self._engine) as session:
            found = jobs.open_jobs(session)
        try:
            busy = sum(self._follow(job) for job in found if job.state is not JobState.QUEUED)
            waiting = [job for job in found if job.state is JobState.QUEUED]
            submitted = waiting[: max(0, self._max_running - busy)]
            for job in submitted:
                self._submit(job)
            self._report_available()
            metrics.JOBS_WAITING.set(len(waiting) - len(submitted))
            metrics.JOBS_RUNNING.set(busy + len(submitted))
        except RunnerUnavailable as error:
            self._report_unavailable(error)

    def folder(self, id_: str) -> Path:
        """A job's folder."""
        return self._jobs_dir / id_

    def _submit(self, job: Job) -> None:
        folder, handler = self.folder(job.id), self._handlers[job.kind]

        def prepare(session: Session) -> Job | None:
            """Records the attempt first: a job that is cancelled after this is stopped at Ray, wherever this process ends."""
            if _state(session, job) is not JobState.QUEUED:
                return None
            handler.prepare(session, job.id, folder)
            return jobs.reaches_ray(session, job.id)

        def running(session: Session) -> None:
            if _state(session, job) is JobState.QUEUED:
                jobs.move(session, job.id, JobState.RUNNING)
                self._changes.notify(session, job.id)
                handler.changed(session, job.id)

        recorded = run_in_transaction(self._engine, prepare)
        if recorded is not None:
            clear_failure(folder)
            self._runner.submit(recorded.submission, command(self._python, handler.module, folder))
            run_in_transaction(self._engine, running)
            logger.info("submitted a job", extra={"job": recorded.submission, "kind": job.kind})

    def _follow(self, job: Job) -> bool:
        """Acts on a job's status; returns whether Ray still runs it."""
        status = self._runner.status(job.submission)
        if job.state is JobState.RUNNING:
            self._follow_running(job, status)
        elif job.state is JobState.CANCELLED and status is JobStatus.RUNNING:
            self._runner.stop(job.submission)
        if status is JobStatus.RUNNING:
            return True
        if job.at_ray:
            self._leave(job)
        return False

    def _leave(self, job: Job) -> None:
        """Records that Ray no longer runs a job. Clears one that is over first: once recorded, it is never visited again."""
        with reading(self._engine) as session:
            over = _state(session, job).final
        if over:
            self._handlers[job.kind].clear(self.folder(job.id))
        run_in_transaction(self._engine, lambda session: jobs.left_ray(session, job.id))

    def _follow_running(self, job: Job, status: JobStatus) -> None:
        # The status was read before the folder: a job that had ended by then has written everything that it will.
        folder = self.folder(job.id)
        handler = self._handlers[job.kind]
        if handler.has_result(folder):
            # In no transaction that writes: an evaluation's result is computed again.
            with reading(self._engine) as session:
                refusal = handler.refusal(session, job.id, folder)
            self._move(job, JobState.FAILED if refusal else JobState.SUCCEEDED, refusal)
        elif status is JobStatus.RUNNING:
            return
        elif (reason := read_failure(folder)) is not None:
            self._move(job, JobState.FAILED, reason)
        elif status is JobStatus.STOPPED:
            self._move(job, JobState.FAILED, "stopped at Ray, not by this service")
        elif job.attempts >= MAX_ATTEMPTS:
            self._move(
                job, JobState.FAILED, f"Ray lost it {job.attempts} times; the last status was {status}"
            )
        else:
            logger.warning("Ray lost a job", extra={"job": job.id, "status": status})
            metrics.JOB_RETRIES.labels(job.kind).inc()
            self._move(job, JobState.QUEUED)

    def _move(self, job: Job, state: JobState, error: str = "") -> None:
        """Changes a running job's state with all that follows from it, unless the job was cancelled meanwhile."""
        handler = self._handlers[job.kind]

        def move(session: Session) -> Job | None:
            if _state(session, job) is not JobState.RUNNING:
                return None
            if state is JobState.SUCCEEDED:
                handler.finish(session, job.id, self.folder(job.id))
            moved = jobs.move(session, job.id, state, error)
            self._changes.notify(session, job.id)
            handler.changed(session, job.id)
            return moved

        moved = run_in_transaction(self._engine, move)
        if moved is not None and state.final:
            metrics.JOBS.labels(job.kind, state).inc()
            if moved.start_time is not None and moved.end_time is not None:
                seconds = (moved.end_time - moved.start_time).total_seconds()
                metrics.JOB_SECONDS.labels(job.kind).observe(seconds)
            logger.info("a job ended", extra={"job": job.id, "state": state, "error": error})

    def _report_unavailable(self, error: RunnerUnavailable) -> None:
        metrics.RAY_FAILURES.inc()
        self._ray.failed(error)
        if self._available:
            logger.warning("Ray is unreachable; jobs wait", extra={"error": str(error)[:300]})
        self._available = False

    def _report_available(self) -> None:
        self._ray.succeeded()
        if not self._available:
            logger.info("Ray answers again")
        self._available = True


def _state(session: Session, job: Job) -> JobState:
    now = jobs.get(session, job.id)
    assert now is not None
    return now.state
