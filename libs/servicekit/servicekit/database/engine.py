"""Engines with the settings that make SQLite and PostgreSQL keep the same promises."""

from __future__ import annotations

import fcntl
import sqlite3
import time
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.pool import ConnectionPoolEntry, QueuePool

from servicekit.errors import StartupError
from servicekit.metrics import saturation

_BUSY_TIMEOUT_MS = 10_000
_POOL_SIZE = 8
_POOL_OVERFLOW = 40  # more in all than a service has threads: none waits for a connection

# serialization_failure, deadlock_detected, lock_not_available (PostgreSQL, appendix A)
_CONFLICT_STATES = frozenset({"40001", "40P01", "55P03"})

# admin_shutdown, crash_shutdown, cannot_connect_now, too_many_connections; connection_exception is all of class 08
_AWAY_STATES = frozenset({"57P01", "57P02", "57P03", "53300"})

_DOWN_STATES = frozenset({"57P01", "57P02", "57P03"})


def engine(url: str) -> Engine:
    """An engine for ``sqlite:///path`` or ``postgresql+psycopg://...`` (``postgresql://`` is read as the latter).

    The folder of a SQLite file is made. Nothing is connected yet.

    Raises:
        StartupError: the URL cannot be read, or is of another database.
    """
    try:
        parsed = make_url(url)
    except Exception:
        # Not shown: what cannot be read may hold a password anywhere.
        raise StartupError(
            "database_url is not a database URL (sqlite:///path or postgresql://...)"
        ) from None
    backend = parsed.get_backend_name()
    if backend not in _OPEN:
        raise StartupError(
            f"database_url {parsed.render_as_string()!r}: only sqlite and postgresql are supported"
        )
    made = _OPEN[backend](parsed)
    pool = made.pool
    assert isinstance(pool, QueuePool)
    saturation("database_connections", pool.checkedout, _POOL_SIZE + _POOL_OVERFLOW)
    return made


def is_conflict(error: BaseException) -> bool:
    """Whether a transaction failed only because another one won, so that it may simply run again."""
    if not isinstance(error, DBAPIError):
        return False
    if getattr(error.orig, "sqlstate", None) in _CONFLICT_STATES:
        return True
    name = str(getattr(error.orig, "sqlite_errorname", ""))
    return isinstance(error, OperationalError) and name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED"))


def is_away(error: BaseException) -> bool:
    """Whether the database cannot be reached, or let its connection go: the same may succeed once it is back."""
    if not isinstance(error, DBAPIError):
        return False
    if error.connection_invalidated:
        return True
    if not isinstance(error, OperationalError) or not hasattr(error.orig, "sqlstate"):
        return False  # SQLite's is a file
    state = getattr(error.orig, "sqlstate", None)
    # Without a state the server said nothing: nobody listens, or the connection broke.
    return state is None or state in _AWAY_STATES or str(state).startswith("08")


def is_outage(error: BaseException) -> bool:
    """Whether the database could not be reached, or went away in the middle: what was not committed is not there."""
    if not isinstance(error, DBAPIError):
        return False
    state = str(getattr(error.orig, "sqlstate", None) or "")
    # connection exceptions, and a server that shuts down, crashed or starts (PostgreSQL, appendix A)
    if error.connection_invalidated or state.startswith("08") or state in _DOWN_STATES:
        return True
    postgresql = type(error.orig).__module__.startswith("psycopg")
    return postgresql and isinstance(error, OperationalError) and not state


def _sqlite(url: URL) -> Engine:
    if url.database in (None, "", ":memory:"):
        raise StartupError(
            "a service's SQLite database must be a file: threads would each see their own memory"
        )
    assert url.database is not None
    try:
        Path(url.database).parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StartupError(f"cannot make the folder of database {url.database}: {error.strerror}") from None
    made = create_engine(
        url,
        pool_size=_POOL_SIZE,
        max_overflow=_POOL_OVERFLOW,
        connect_args={"timeout": _BUSY_TIMEOUT_MS / 1000, "check_same_thread": False},
        hide_parameters=True,  # a failed statement is logged; what it wrote is somebody's data
    )
    event.listen(made, "connect", _prepare_sqlite)
    event.listen(made, "begin", _begin_sqlite)
    return made


def _prepare_sqlite(connection: Any, record: ConnectionPoolEntry) -> None:
    """Runs once a connection. pysqlite's own transaction control is off: `_begin_sqlite` begins."""
    connection.isolation_level = None
    cursor = connection.cursor()
    try:
        _turn_wal_on(cursor)
        # NORMAL would lose the last commits with the power; an event that was acknowledged must not be lost.
        cursor.execute("PRAGMA synchronous = FULL")
        cursor.execute("PRAGMA foreign_keys = ON")
    finally:
        cursor.close()


def _turn_wal_on(cursor: Any) -> None:
    """Turning WAL on needs the file for itself and does not honour the busy timeout: one process at a time, and again
    while one that has just opened the file still looks at it."""
    (file,) = (row[2] for row in cursor.execute("PRAGMA database_list").fetchall() if row[1] == "main")
    with Path(f"{file}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        deadline = time.monotonic() + _BUSY_TIMEOUT_MS / 1000
        while True:
            try:
                if cursor.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
                    cursor.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.01)  # SQLite has no way to wait for this lock


def _begin_sqlite(connection: Connection) -> None:
    """Takes the write lock at once: a lock that is upgraded halfway fails at once, without waiting for its turn."""
    mode = connection.get_execution_options().get("sqlite_begin", "IMMEDIATE")
    connection.exec_driver_sql(f"BEGIN {mode}")


def _postgresql(url: URL) -> Engine:
    return create_engine(
        url.set(drivername="postgresql+psycopg"),
        pool_size=_POOL_SIZE,
        max_overflow=_POOL_OVERFLOW,
        pool_pre_ping=True,
        isolation_level="SERIALIZABLE",
        hide_parameters=True,  # as above
    )


_OPEN = {"sqlite": _sqlite, "postgresql": _postgresql}
