"""Transactions: all or nothing, and in some serial order."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session, sessionmaker

from servicekit import crash
from servicekit.database.engine import is_conflict, is_outage
from servicekit.errors import Aborted, Unavailable

crash.primitive(__name__)
_CONFLICT = "TRANSACTION_CONFLICT"
T = TypeVar("T")

_FIRST_PAUSE_S = 0.02
_LONGEST_PAUSE_S = 1.0
_LONGEST_TURN_S = 10.0
# By file, not by engine: several may be open on one. Reentrant, so that a transaction inside another fails in SQLite, with
# an error that says so, and does not wait here for itself.
_WRITERS: dict[str, threading.RLock] = {}
_READ_ONLY = {"sqlite_begin": "DEFERRED", "postgresql_readonly": True}


def session_factory(engine: Engine) -> sessionmaker[Session]:
    """Sessions whose objects stay readable after the commit."""
    return sessionmaker(engine, expire_on_commit=False)


@contextmanager
def transaction(engine: Engine) -> Iterator[Session]:
    """A session that commits when the block ends and rolls back when it raises.

    Raises:
        Aborted: another transaction won; the block may be run again (`run_in_transaction` does).
        Unavailable: the database went away. Unless its commit was on the way, nothing of the block is there.
    """
    try:
        with _turn(engine), session_factory(engine)() as session, session.begin():
            yield session
            if not _only_reads(engine):
                crash.point("before commit")
        if not _only_reads(engine):
            crash.point("after commit")
    except DBAPIError as error:
        if is_conflict(error):
            raise Aborted(_CONFLICT, "another change won, try again", retry_after_s=0.1) from error
        if is_outage(error):
            raise Unavailable(
                "DATABASE_UNAVAILABLE", "the database does not answer, try again", retry_after_s=1
            ) from error
        raise


@contextmanager
def reading(engine: Engine) -> Iterator[Session]:
    """A session that only reads one consistent state; on SQLite it neither waits for writers nor makes them wait.

    Raises:
        Aborted: as `transaction`; PostgreSQL may have no serial order even for a reader.
    """
    with transaction(engine.execution_options(**_READ_ONLY)) as session:
        yield session


@contextmanager
def _turn(engine: Engine) -> Iterator[None]:
    """Writers of one SQLite file in this process wait in line.

    SQLite makes them try again after pauses that grow to 100 ms, and whoever has just come may go first: with 8 threads
    one in a hundred waited for more than a second. Other processes are still waited for in SQLite's way.
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
    """Runs ``fn`` in a transaction, again from the start when another one won.

    ``fn`` must have no effect but through its session: it may run several times.

    Raises:
        Aborted: it lost ``attempts`` times.
    """
    for attempt in range(1, attempts + 1):
        try:
            with transaction(engine) as session:
                return fn(session)
        except Aborted as error:
            if attempt == attempts or error.reason != _CONFLICT:
                raise
            # Full jitter: two that collided must not collide again at the same moment.
            pause_s = random.uniform(0, min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2**attempt))
            threading.Event().wait(pause_s)
    raise AssertionError("unreachable: attempts is at least 1")
