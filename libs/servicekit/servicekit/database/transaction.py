"""Transactions: atomic and serialisable."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session, sessionmaker
from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from servicekit import crash
from servicekit.database.engine import is_conflict, is_outage, is_read_only
from servicekit.errors import Aborted, Unavailable

crash.primitive(__name__)
_CONFLICT = "TRANSACTION_CONFLICT"
T = TypeVar("T")

_FIRST_PAUSE_S = 0.04
_LONGEST_PAUSE_S = 1.0
_LONGEST_TURN_S = 10.0
# By file, not by engine: several engines may be open on one file. Reentrant, so that a nested transaction fails in SQLite
# with a clear error instead of waiting here for itself.
_WRITERS: dict[str, threading.RLock] = {}
_READ_ONLY = {"sqlite_begin": "DEFERRED", "postgresql_readonly": True}


def session_factory(engine: Engine) -> sessionmaker[Session]:
    """Returns a factory of sessions whose objects stay readable after the commit."""
    return sessionmaker(engine, expire_on_commit=False)


@contextmanager
def transaction(engine: Engine) -> Iterator[Session]:
    """Yields a session that commits when the block ends and rolls back when it raises.

    Raises:
        Aborted: the transaction conflicted with another one; the block may run again (`run_in_transaction` does that).
        Unavailable: the connection to the database was lost. The block had no effect, unless its commit was already sent.
    """
    try:
        with _turn(engine), session_factory(engine)() as session, session.begin():
            yield session
            if not _only_reads(engine):
                crash.point("before commit")
        if not _only_reads(engine):
            crash.point("after commit")
    except PoolTimeout as error:
        raise Unavailable(
            "DATABASE_UNAVAILABLE", "every connection to the database is in use, try again", retry_after_s=1
        ) from error
    except DBAPIError as error:
        if is_conflict(error):
            raise Aborted(_CONFLICT, "another change won, try again", retry_after_s=0.1) from error
        if is_read_only(error) and _only_reads(engine):
            raise  # a write inside `reading` is a defect, whatever the server is
        if is_outage(error):
            raise Unavailable(
                "DATABASE_UNAVAILABLE", "the database does not answer, try again", retry_after_s=1
            ) from error
        raise


@contextmanager
def reading(engine: Engine) -> Iterator[Session]:
    """Yields a session that reads one consistent state. On SQLite it neither waits for writers nor blocks them.

    Raises:
        Aborted: as in `transaction`. In PostgreSQL even a reader can conflict with serialisable writers.
    """
    with transaction(engine.execution_options(**_READ_ONLY)) as session:
        yield session


@contextmanager
def _turn(engine: Engine) -> Iterator[None]:
    """Queues the writers of one SQLite file in this process.

    Without the queue, SQLite makes writers retry after pauses of up to 100 ms, and a newcomer may overtake them: with 8
    threads one writer in a hundred waited for more than a second. Writers of other processes still wait in SQLite's way.
    """
    if engine.dialect.name != "sqlite" or _only_reads(engine):
        yield
        return
    lock = _WRITERS.setdefault(str(engine.url.database), threading.RLock())
    if not lock.acquire(timeout=_LONGEST_TURN_S):
        raise Aborted(_CONFLICT, "other changes take too long, try again", retry_after_s=1)
    try:
        yield
    finally:
        lock.release()


def _only_reads(engine: Engine) -> bool:
    return engine.get_execution_options().get("sqlite_begin") == "DEFERRED"


def run_in_transaction(engine: Engine, fn: Callable[[Session], T], attempts: int = 8) -> T:
    """Runs ``fn`` in a transaction, and runs it again from the start when the transaction conflicts with another one.

    ``fn`` may run several times, so it must have no effect except through its session.

    Raises:
        Aborted: all ``attempts`` conflicted with other transactions.
    """

    def once() -> T:
        with transaction(engine) as session:
            return fn(session)

    retrying = Retrying(
        retry=retry_if_exception(_lost),
        stop=stop_after_attempt(attempts),
        # Full jitter: two that collided must not collide again at the same moment.
        wait=wait_random_exponential(multiplier=_FIRST_PAUSE_S, max=_LONGEST_PAUSE_S),
        reraise=True,
    )
    return retrying(once)


def _lost(error: BaseException) -> bool:
    return isinstance(error, Aborted) and error.reason == _CONFLICT
