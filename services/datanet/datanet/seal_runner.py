"""Runs seal operations, a few at a time, each in a thread of its own.

A step, once a second and whenever there is news, compares the database with what runs here: it records how far each operation
is, stops those that were cancelled or lost, takes back those that an earlier process left, deletes files that nothing needs,
and begins what waits while a thread is free. The database says what should run; nothing else is kept between two steps but the
threads themselves, so the process may be killed at any line.
"""

from __future__ import annotations

import errno
import logging
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial

from sqlalchemy import Engine
from sqlalchemy.orm import Session

from datanet import metrics, store
from datanet.seal_operation import LEASE_S, MAX_ATTEMPTS, OperationState, SealOperation
from datanet.seal_progress import SealProgress
from datanet.sealing import LostClaim, Sealing
from datanet.work_folders import WorkFolders
from servicekit.database import reading, run_in_transaction
from servicekit.database.watches import Changes
from servicekit.errors import Aborted, DomainError, Internal, ResourceExhausted, Unavailable, to_status
from servicekit.server.loops import repeat
from servicekit.telemetry.metrics import saturation

logger = logging.getLogger(__name__)

EVERY_S = 1.0
"""Between two steps: how old the progress that others see can be."""
_FIRST_PAUSE_S = 5.0
"""Before the attempt after one that an outage ended; each further pause is three times as long."""
_STOP_S = 10.0
"""How long a stopping service waits for its threads. A thread that takes longer has lost its claim."""


class _Stopped(Exception):
    """The service stops, or cannot record that the operation runs."""


class _Job:
    """An operation that runs here."""

    def __init__(self, operation: SealOperation, clock: Callable[[], float]) -> None:
        self.operation = operation
        self.progress = SealProgress(clock)
        self.thread: threading.Thread | None = None
        self._clock = clock
        self._recorded_at = clock()
        self._stop: Exception | None = None

    def recorded(self) -> None:
        """Notes that the database knows that it runs."""
        self._recorded_at = self._clock()

    def stop(self, reason: Exception) -> None:
        """Makes the thread end soon with this error."""
        self._stop = self._stop or reason

    def at(self, stage: str, done: int, total: int) -> None:
        """Follows the work; raises to end it."""
        if self._stop is not None:
            raise self._stop
        if self._clock() - self._recorded_at > LEASE_S / 2:
            raise _Stopped  # the process was paused, or the database is down: another process may take it over
        self.progress.at(stage, done, total)


class SealRunner:
    """One thread calls `run`; any thread may call `notify`.

    Args:
        engine: the database.
        sealing: makes the snapshots.
        changes: whom to notify of changes.
        work: where files are kept between attempts.
        max_running: operations that run at once.
        clock: seconds that never go back.
    """

    def __init__(
        self,
        *,
        engine: Engine,
        sealing: Sealing,
        changes: Changes,
        work: WorkFolders,
        max_running: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine = engine
        self._sealing = sealing
        self._changes = changes
        self._work = work
        self._max_running = max_running
        self._clock = clock
        self._jobs: dict[str, _Job] = {}
        self._jobs_lock = threading.Lock()
        self._lives: dict[str, tuple[object, float]] = {}
        """Of operations that other processes run: the last sign of life, and since when it has not changed."""
        self._not_before: dict[str, float] = {}
        self._waiting = 0
        self._loop = repeat(self.step, EVERY_S, name="sealing", longest_delay_s=2 * EVERY_S)
        saturation("sealing", lambda: len(self._jobs) + self._waiting, max_running)

    def notify(self) -> None:
        """Makes the next step begin now."""
        self._loop.notify()

    def run(self, stop: threading.Event) -> None:
        """Runs operations until `stop` is set. Those that run then are released for the next process."""
        try:
            self._loop(stop)
        finally:
            self.close()

    def close(self) -> None:
        """Stops what runs, and lets another process seal in this folder."""
        jobs = self._running()
        for job in jobs:
            job.stop(_Stopped())
        until = self._clock() + _STOP_S
        for job in jobs:
            if job.thread is not None:
                job.thread.join(timeout=max(0.0, until - self._clock()))
        self._work.release()

    def step(self) -> None:
        """Brings what runs here into agreement with the database, once."""
        worker = self._work.worker()
        if not worker:
            return  # another process uses this state folder, and runs the operations
        for job in self._running():
            self._record(job)
        found = self._open()
        for lost in self._left(found, worker):
            run_in_transaction(self._engine, partial(self._give_back, operation=lost))
        self._work.keep([each.name for each in found if each.worker in ("", worker)])
        while len(self._running()) < self._max_running and self._begin(worker):
            pass

    def _open(self) -> list[SealOperation]:
        with reading(self._engine) as session:
            return store.operations.open_operations(session)

    def _running(self) -> Sequence[_Job]:
        with self._jobs_lock:
            return list(self._jobs.values())

    def _record(self, job: _Job) -> None:
        """Records how far an operation is; stops it if it is not ours any more."""
        claim, position = job.operation.claim, job.progress.position

        def record(session: Session) -> bool:
            self._changes.notify(session, str(job.operation.name))
            return store.operations.advance(session, claim, position)

        if run_in_transaction(self._engine, record):
            job.recorded()
        else:
            job.stop(LostClaim())

    def _left(self, found: Sequence[SealOperation], worker: str) -> list[SealOperation]:
        """Returns the operations that no process runs any more: those of an earlier process in this folder, and those of other
        processes that show no sign of life."""
        here = {job.operation.claim for job in self._running()}
        lives: dict[str, tuple[object, float]] = {}
        left = []
        for each in found:
            if each.state is not OperationState.RUNNING or each.claim in here:
                continue
            if each.worker == worker:
                left.append(each)
                continue
            # The clocks of two processes may differ, so it is the changes of the row that count.
            life = (each.worker, each.version)
            known, since = self._lives.get(each.name.operation, (None, 0.0))
            since = since if known == life else self._clock()
            lives[each.name.operation] = (life, since)
            if self._clock() - since >= LEASE_S:
                left.append(each)
        self._lives = lives
        return left

    def _give_back(
        self, session: Session, operation: SealOperation, why: str = "its process ended each time"
    ) -> None:
        """Makes an operation wait for its next attempt; ends it if it had too many."""
        if operation.attempts < MAX_ATTEMPTS:
            store.operations.release(session, operation.claim)
        else:
            error = Aborted("SEAL_GIVEN_UP", f"gave up after {operation.attempts} attempts: {why}")
            store.operations.fail(session, operation.claim, to_status(error).SerializeToString())
        self._announce(session, operation)

    def _announce(self, session: Session, operation: SealOperation) -> None:
        """Wakes who watches an operation, or one that waits: its place may have changed."""
        waiting = store.operations.waiting(session)
        self._changes.notify(session, str(operation.name), *map(str, waiting))

    def _begin(self, worker: str) -> bool:
        """Begins the next operation; returns False if there is none."""
        now = self._clock()
        self._not_before = {id_: at for id_, at in self._not_before.items() if at > now}
        with reading(self._engine) as session:
            self._waiting = len(store.operations.waiting(session))
        if not self._waiting:
            return False

        def claim(session: Session) -> SealOperation | None:
            claimed = store.operations.claim_next(session, worker, list(self._not_before))
            if claimed is not None:
                self._announce(session, claimed)
            return claimed

        claimed = run_in_transaction(self._engine, claim)
        if claimed is None:
            return False
        job = _Job(claimed, self._clock)
        with self._jobs_lock:
            self._jobs[claimed.name.operation] = job
        job.thread = threading.Thread(
            target=self._run, args=(job,), name=f"seal {claimed.name.operation}", daemon=True
        )
        job.thread.start()
        return True

    def _run(self, job: _Job) -> None:
        """Runs an operation to the end of its attempt, and records that end."""
        try:
            self._attempt(job)
        except Exception:
            # The database is down: the next step finds the operation here without a thread.
            logger.exception("the end of a sealing is not recorded yet", extra=_named(job))
        finally:
            with self._jobs_lock:
                del self._jobs[job.operation.name.operation]
            self.notify()

    def _attempt(self, job: _Job) -> None:
        operation, began = job.operation, self._clock()
        try:
            with self._work.folder(operation.name) as folder:
                made = self._sealing.seal(operation, folder, job.at)
        except LostClaim:
            logger.info("a sealing was cancelled, or another process continues it", extra=_named(job))
            self._work.remove(operation.name)
        except _Stopped:
            run_in_transaction(self._engine, lambda session: self._release(session, operation))
        except (Aborted, Unavailable, OSError) as error:
            self._interrupted(job, error)
        except DomainError as error:
            self._fail(job, error)
        except Exception as error:
            logger.exception("a sealing failed", extra=_named(job))
            self._fail(job, Internal(operation.name.operation), error)
        else:
            self._work.remove(operation.name)
            metrics.SEAL_SECONDS.observe(self._clock() - began)
            metrics.SEALS.labels("succeeded").inc()
            logger.info("sealed", extra={**_named(job), "snapshot": made.name})

    def _release(self, session: Session, operation: SealOperation) -> None:
        store.operations.release(session, operation.claim, counted=False)
        self._announce(session, operation)

    def _interrupted(self, job: _Job, error: Exception) -> None:
        """An outage ended the attempt: the next one comes after a pause."""
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            self._fail(job, ResourceExhausted("DISK_FULL", "the disk of the service's state folder is full"))
            return
        logger.warning("a sealing is interrupted, and continues: %s", error, extra=_named(job))
        metrics.SEALS.labels("interrupted").inc()
        operation = job.operation
        pause_s = _FIRST_PAUSE_S * 3 ** (operation.attempts - 1)
        self._not_before[operation.name.operation] = self._clock() + pause_s
        why = error.strerror or "input/output error" if isinstance(error, OSError) else str(error)
        run_in_transaction(self._engine, lambda session: self._give_back(session, operation, why))

    def _fail(self, job: _Job, error: DomainError, cause: Exception | None = None) -> None:
        metrics.SEALS.labels("failed").inc()
        logger.info("a sealing failed: %s", cause or error, extra={**_named(job), "reason": error.reason})
        status = to_status(error).SerializeToString()

        def fail(session: Session) -> None:
            store.operations.fail(session, job.operation.claim, status)
            self._announce(session, job.operation)

        run_in_transaction(self._engine, fail)
        self._work.remove(job.operation.name)


def _named(job: _Job) -> dict[str, object]:
    return {"operation": str(job.operation.name), "attempt": job.operation.attempts}
