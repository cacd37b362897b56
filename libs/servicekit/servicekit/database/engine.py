"""Engines, with the settings that give SQLite and PostgreSQL the same guarantees."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, ExceptionContext, create_engine, event, make_url
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.pool import ConnectionPoolEntry, QueuePool

from servicekit import private
from servicekit.database._bounded import BoundedConnection, set_session
from servicekit.deadlines import (
    DatabaseDeadlines,
    lock_file,
    postgresql_arguments,
    postgresql_session,
)
from servicekit.errors import StartupError, Unavailable
from servicekit.sqlite import PRAGMAS
from servicekit.telemetry.metrics import saturation

_BUSY_TIMEOUT_MS = 10_000
_DEADLINES = DatabaseDeadlines()
_POOL_SIZE = 8
_POOL_OVERFLOW = 40  # more connections than a service has threads, so that no thread waits for one

_READ_ONLY_STATE = "25006"

# serialization_failure, deadlock_detected, lock_not_available (PostgreSQL, appendix A)
_CONFLICT_STATES = frozenset({"40001", "40P01", "55P03"})

# query_canceled (the statement took too long), admin_shutdown, crash_shutdown, cannot_connect_now, too_many_connections, and
# read_only_sql_transaction: after a failover the server behind an old connection is a standby. All codes of class 08
# (connection_exception) count as well.
_OUTAGE_STATES = frozenset({"57014", "57P01", "57P02", "57P03", "53300", _READ_ONLY_STATE})


def engine(url: str, deadlines: DatabaseDeadlines = _DEADLINES) -> Engine:
    """Returns an engine for ``sqlite:///path`` or ``postgresql+psycopg://...`` (``postgresql://`` means the latter).

    Creates the folder of a SQLite file. Does not connect yet. No call of PostgreSQL exceeds `deadlines`.

    Raises:
        StartupError: the URL cannot be read, or is of another database.
    """
    try:
        parsed = make_url(url)
    except Exception:  # noqa: BLE001 - any error of the parser may quote a password
        # The URL is not shown: where it cannot be parsed, any part of it may be a password.
        raise StartupError(
            "database_url is not a database URL (sqlite:///path or postgresql://...)"
        ) from None
    backend = parsed.get_backend_name()
    if backend not in ("sqlite", "postgresql"):
        raise StartupError(
            f"database_url {parsed.render_as_string()!r}: only sqlite and postgresql are supported"
        )
    made = _sqlite(parsed) if backend == "sqlite" else _postgresql(parsed, deadlines)
    pool = made.pool
    assert isinstance(pool, QueuePool)
    saturation("database_connections", pool.checkedout, _POOL_SIZE + _POOL_OVERFLOW)
    return made


def is_conflict(error: BaseException) -> bool:
    """Returns whether a transaction failed only because it conflicted with another one, so that it may run again."""
    if not isinstance(error, DBAPIError):
        return False
    if getattr(error.orig, "sqlstate", None) in _CONFLICT_STATES:
        return True
    name = str(getattr(error.orig, "sqlite_errorname", ""))
    return isinstance(error, OperationalError) and name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED"))


def is_outage(error: BaseException) -> bool:
    """Returns whether the database could not be reached, closed the connection, or temporarily refuses writes.

    The same may succeed after the outage. A transaction that was not committed had no effect. A SQLite database is a file
    and has no outages.
    """
    if not isinstance(error, DBAPIError):
        return False
    state = getattr(error.orig, "sqlstate", None)
    if error.connection_invalidated or state in _OUTAGE_STATES or str(state or "").startswith("08"):
        return True
    if _refused_by_standby(error.orig):
        return True
    # Without a state there was no answer: the server cannot be reached, or the connection broke.
    from_postgresql = hasattr(error.orig, "sqlstate")
    return from_postgresql and isinstance(error, OperationalError) and state is None


def _refused_by_standby(original: BaseException | None) -> bool:
    """Returns whether a hot standby refused a serialisable transaction, which it does before anything is read or written.

    Its state, feature_not_supported, says no more than that; its message names the standby.
    """
    return getattr(original, "sqlstate", None) == "0A000" and "standby" in str(original)


def is_damaged(error: BaseException) -> bool:
    """Returns whether SQLite found its file malformed."""
    if not isinstance(error, DBAPIError) or not isinstance(error.orig, sqlite3.DatabaseError):
        return False
    return getattr(error.orig, "sqlite_errorcode", 0) & 0xFF in (
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_NOTADB,
    )


def _sqlite(url: URL) -> Engine:
    if url.database in (None, "", ":memory:"):
        raise StartupError(
            "a service's SQLite database must be a file: threads would each see their own memory"
        )
    assert url.database is not None
    try:
        private.folder(Path(url.database).parent)
    except OSError as error:
        raise StartupError(f"cannot make the folder of database {url.database}: {error.strerror}") from None
    made = create_engine(
        url,
        pool_size=_POOL_SIZE,
        max_overflow=_POOL_OVERFLOW,
        connect_args={"timeout": _BUSY_TIMEOUT_MS / 1000, "check_same_thread": False},
        hide_parameters=True,  # a failed statement is logged, and its parameters are user data
    )
    event.listen(made, "connect", _prepare_sqlite)
    event.listen(made, "begin", _begin_sqlite)
    return made


def _prepare_sqlite(connection: Any, record: ConnectionPoolEntry) -> None:
    """Runs once per connection. Turns pysqlite's own transaction control off: `_begin_sqlite` begins transactions."""
    connection.isolation_level = None
    connection.text_factory = _text
    cursor = connection.cursor()
    try:
        _turn_wal_on(cursor)
        # NORMAL would lose the last commits at a power failure; an acknowledged event must not be lost.
        cursor.execute("PRAGMA synchronous = FULL")
        cursor.execute("PRAGMA foreign_keys = ON")
        for pragma in PRAGMAS:
            cursor.execute(pragma)
    finally:
        cursor.close()


def _text(data: bytes) -> str:
    """Returns a text of the database. A byte that changed on the disk becomes U+FFFD: an error would name no row."""
    return data.decode(errors="replace")


def _turn_wal_on(cursor: Any) -> None:
    """Turns WAL on. That needs exclusive access to the file and ignores the busy timeout, so one process does it at a time,
    and retries while another process, which has just opened the file, still reads it."""
    (file,) = (row[2] for row in cursor.execute("PRAGMA database_list").fetchall() if row[1] == "main")
    with private.file(Path(f"{file}.lock")).open("w") as lock:
        try:
            lock_file(lock, _BUSY_TIMEOUT_MS / 1000)
        except TimeoutError as error:
            raise Unavailable("DATABASE_BUSY", f"the database cannot be opened: {error}") from None
        private.file(Path(file))
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
    """Takes the write lock at the start. A read lock that is upgraded later would fail immediately instead of waiting."""
    mode = connection.get_execution_options().get("sqlite_begin", "IMMEDIATE")
    connection.exec_driver_sql(f"BEGIN {mode}")


def is_read_only(error: BaseException) -> bool:
    """Returns whether PostgreSQL refused a write because the transaction or the server is read-only."""
    return isinstance(error, DBAPIError) and getattr(error.orig, "sqlstate", None) == _READ_ONLY_STATE


def _postgresql(url: URL, limits: DatabaseDeadlines) -> Engine:
    given = postgresql_arguments(limits)
    made = create_engine(
        url.set(drivername="postgresql+psycopg"),
        connect_args={name: given[name] for name in given.keys() - url.query.keys()},
        pool_timeout=limits.pool_s,
        pool_size=_POOL_SIZE,
        max_overflow=_POOL_OVERFLOW,
        pool_pre_ping=True,
        isolation_level="SERIALIZABLE",
        hide_parameters=True,  # as above
    )
    event.listen(made, "handle_error", _leave_standby)
    session = postgresql_session(limits)

    def connect(dialect: Any, record: Any, arguments: Any, parameters: Any) -> BoundedConnection:
        connection = BoundedConnection.connect(*arguments, **parameters)
        with connection.answering_within(limits.connect_s):
            set_session(connection, session)
        connection.answer_within_s = limits.statement_s + limits.answer_s
        return connection

    def ping(dbapi_connection: Any) -> bool:
        with dbapi_connection.answering_within(limits.ping_s):
            return check(dbapi_connection)

    event.listen(made, "do_connect", connect)
    check = made.dialect.do_ping
    made.dialect.do_ping = ping  # type: ignore[method-assign]
    return made


def _leave_standby(context: ExceptionContext) -> None:
    """Closes connections to a server that became a standby, because new connections find the new primary."""
    options = {} if context.connection is None else context.connection.get_execution_options()
    if _refused_by_standby(context.original_exception):
        context.is_disconnect = True
    if (
        not options.get("postgresql_readonly")
        and getattr(context.original_exception, "sqlstate", None) == _READ_ONLY_STATE
    ):
        context.is_disconnect = True
