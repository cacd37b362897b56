"""Keeps the database and Ray in agreement: hands over queued jobs, follows them, takes over their results.

It remembers nothing between two looks. What should be stands in the database, what is at Ray and in the job's
folder; so the process may be killed at any line, and the next one goes on:

- between noting the hand-over and submitting: the job is queued still, and is handed over;
- between submitting and noting that it runs: it is submitted again under the same id, which Ray knows;
- while the job runs, or after it ended: the result file is there or will be;
- between the result file and taking it over: one transaction makes the version, the job's state and the
events.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from pathlib import Path

from sqlalchemy import Engine
from sqlalchemy.orm import Session

from servicekit.database import reading, run_in_transaction
from trainer import metrics
from trainer.entities import Job, JobKind, JobState
from trainer.jobs.failure import clear_failure, read_failure
from trainer.jobs.runner import JobRunner, JobStatus, RunnerUnavailable
from trainer.store import jobs
from trainer.work import Work

logger = logging.getLogger(__name__)

MAX_ATTEMPTS = 3
"""How often a job that Ray lost (a killed process, a restarted cluster) is handed over. One that failed by
itself, with an error of its own, would fail again."""


class Reconciler:
    """One thread owns it."""

    def __init__(
        self,
        engine: Engine,
        runner: JobRunner,
        works: Mapping[JobKind, Work],
        jobs_dir: Path,
        python: str,
        max_running: int,
    ) -> None:
        self._engine = engine
        self._runner = runner
        self._works = works
        self._jobs_dir = jobs_dir
        self._python = python
        self._max_running = max_running
        self._available = True

    def run(self, stop: threading.Event, interval_s: float) -> None:
        """Looks again and again until `stop` is set. Jobs at Ray run on without this process."""
        while not stop.is_set():
            try:
                self.look()
            except Exception:
                # One look must not end the service: a full disk or a busy database may be better at the next.
                metrics.LOOK_FAILURES.inc()
                logger.exception("a look at the jobs failed")
            stop.wait(interval_s)

    def look(self) -> None:
        """One look at every open job."""
        with reading(self._engine) as session:
            found = jobs.open_jobs(session)
        try:
            busy = sum(self._follow(job) for job in found if job.state is not JobState.QUEUED)
            waiting = [job for job in found if job.state is JobState.QUEUED]
            handed_over = waiting[: max(0, self._max_running - busy)]
            for job in handed_over:
                self._hand_over(job)
            self._report_available()
            metrics.JOBS_WAITING.set(len(waiting) - len(handed_over))
            metrics.JOBS_RUNNING.set(busy + len(handed_over))
        except RunnerUnavailable as error:
            self._report_unavailable(error)

    def folder(self, id_: str) -> Path:
        """A job's folder."""
        return self._jobs_dir / id_

    def _hand_over(self, job: Job) -> None:
        folder, work = self.folder(job.id), self._works[job.kind]

        def prepare(session: Session) -> Job | None:
            """Noted first: a job that is cancelled from here on is stopped at Ray, wherever this process dies."""
            if _state(session, job) is not JobState.QUEUED:
                return None
            work.prepare(session, job.id, folder)
            return jobs.reaches_ray(session, job.id)

        def running(session: Session) -> None:
            if _state(session, job) is JobState.QUEUED:
                jobs.move(session, job.id, JobState.RUNNING)
                work.changed(session, job.id)

        noted = run_in_transaction(self._engine, prepare)
        if noted is not None:
            clear_failure(folder)
            command = [self._python, "-m", work.module, "--run", str(folder)]
            self._runner.submit(noted.submission, command)
            run_in_transaction(self._engine, running)
            logger.info("handed over a job", extra={"job": noted.submission, "kind": job.kind})

    def _follow(self, job: Job) -> bool:
        """Acts on what became of a job; returns whether Ray still runs it."""
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
        """Ray does not run it any more. What is over is cleared first: noted as gone, it would never be looked at again."""
        with reading(self._engine) as session:
            over = _state(session, job).final
        if over:
            self._works[job.kind].clear(self.folder(job.id))
        run_in_transaction(self._engine, lambda session: jobs.left_ray(session, job.id))

    def _follow_running(self, job: Job, status: JobStatus) -> None:
        # The status was asked for before the folder is looked at: a job that had ended then has left what it will.
        folder = self.folder(job.id)
        if self._works[job.kind].has_result(folder):
            self._move(job, JobState.SUCCEEDED)
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
        """Changes a running job's state with all that follows from it; leaves one alone that was cancelled
        meanwhile."""
        work = self._works[job.kind]

        def move(session: Session) -> Job | None:
            if _state(session, job) is not JobState.RUNNING:
                return None
            if state is JobState.SUCCEEDED:
                work.finish(session, job.id, self.folder(job.id))
            moved = jobs.move(session, job.id, state, error)
            work.changed(session, job.id)
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
        if self._available:
            logger.warning("Ray does not answer; jobs wait", extra={"error": str(error)[:300]})
        self._available = False

    def _report_available(self) -> None:
        if not self._available:
            logger.info("Ray answers again")
        self._available = True


def _state(session: Session, job: Job) -> JobState:
    now = jobs.get(session, job.id)
    assert now is not None
    return now.state
