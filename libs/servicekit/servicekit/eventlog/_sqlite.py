"""The file of the embedded log: its tables and its connections."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from servicekit import crash, private
from servicekit.deadlines import lock_file
from servicekit.eventlog.base import EventLogError, EventLogUnavailable
from servicekit.sqlite import PRAGMAS

crash.primitive(__name__)

OFFSET_BITS = 40
"""A record's row id is partition id << OFFSET_BITS | offset: one B-tree in delivery order, no second index. 40 bits of offset
and 23 bits of partition id suffice for 35 years at 1,000 records a second in each of 8 million partitions."""

_BUSY_TIMEOUT_S = 15.0
_DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_VERSION = 3
_SCHEMA = """
CREATE TABLE topics (
    name TEXT PRIMARY KEY,
    partitions INTEGER NOT NULL,
    retention_ms INTEGER                -- NULL: forever
) WITHOUT ROWID;
CREATE TABLE partitions (
    id INTEGER PRIMARY KEY,
    topic TEXT NOT NULL REFERENCES topics,
    partition INTEGER NOT NULL,
    first_offset INTEGER NOT NULL DEFAULT 0,  -- the oldest record kept
    next_offset INTEGER NOT NULL DEFAULT 0,
    UNIQUE (topic, partition)
);
CREATE TABLE records (
    id INTEGER PRIMARY KEY,             -- partition id << 40 | offset
    timestamp_ms INTEGER NOT NULL,
    key BLOB NOT NULL,
    value BLOB NOT NULL,
    -- Headers: JSON [[name, value as latin-1], ...]. Checksum: see _checksum; NULL in records of layouts 1 and 2.
    headers TEXT NOT NULL,
    crc32c INTEGER
);
CREATE TABLE committed (
    group_name TEXT NOT NULL,
    partition_id INTEGER NOT NULL,
    next_offset INTEGER NOT NULL,
    PRIMARY KEY (group_name, partition_id)
) WITHOUT ROWID;
CREATE TABLE members (
    id TEXT PRIMARY KEY,
    group_name TEXT NOT NULL,
    topics TEXT NOT NULL,               -- JSON list
    lease_ms INTEGER NOT NULL,
    lease_until_ms INTEGER NOT NULL     -- Unix time
) WITHOUT ROWID;
CREATE TABLE ownership (
    group_name TEXT NOT NULL,
    partition_id INTEGER NOT NULL,
    owner TEXT,                         -- the member that reads it; NULL between release and acquisition
    assigned TEXT,                      -- the member that shall read it; another owner releases it at its next poll
    epoch INTEGER NOT NULL DEFAULT 0,   -- grows with every change of owner: fences former owners
    PRIMARY KEY (group_name, partition_id)
) WITHOUT ROWID;
CREATE INDEX ownership_by_partition ON ownership (partition_id, owner);
"""
_UPGRADES = {
    1: "ALTER TABLE ownership RENAME COLUMN wanted TO assigned;",  # old name
    2: "ALTER TABLE records ADD COLUMN crc32c INTEGER;",
}
"""By the layout that each leaves behind."""


def prepare(path: Path) -> None:
    """Creates the file and its tables, or upgrades older tables. Safe when several processes call it at once."""
    private.folder(path.parent)
    # Turning WAL on needs exclusive access to the file and ignores the busy timeout: one process at a time.
    with private.file(path.with_name(path.name + ".lock")).open("w") as lock:
        lock_file(lock)
        private.file(path)
        connection = connect(path, "FULL")
        try:
            with translated():
                connection.execute("PRAGMA journal_mode = WAL")
                (version,) = connection.execute("PRAGMA user_version").fetchone()
                if version == 0:
                    with crash.step("log tables"):
                        connection.executescript(
                            f"BEGIN; {_SCHEMA} PRAGMA user_version = {_VERSION}; COMMIT;"
                        )
                elif version in _UPGRADES:
                    steps = " ".join(step for layout, step in _UPGRADES.items() if layout >= version)
                    with crash.step("log upgrade"):
                        connection.executescript(f"BEGIN; {steps} PRAGMA user_version = {_VERSION}; COMMIT;")
                elif version != _VERSION:
                    raise EventLogError(
                        f"{path} has layout {version}; this release reads layouts 1 to {_VERSION}"
                    )
        finally:
            connection.close()


def connect(path: Path, synchronous: Literal["FULL", "NORMAL"]) -> sqlite3.Connection:
    """Returns a connection in autocommit mode.

    FULL fsyncs at each commit. NORMAL, in WAL mode, leaves that to the next checkpoint or FULL commit: the last commits
    survive a kill of the process but not a crash of the machine. That suffices for offsets and leases (records repeat).
    """
    with translated():
        connection = sqlite3.connect(
            path,
            timeout=_BUSY_TIMEOUT_S,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=256,
        )
        connection.execute(f"PRAGMA synchronous = {synchronous}")
        for pragma in PRAGMAS:
            connection.execute(pragma)
    return connection


@contextmanager
def writing(connection: sqlite3.Connection) -> Iterator[None]:
    """Runs the block in a write transaction: commits at its end, rolls back on any exception."""
    with translated():
        # IMMEDIATE: a reader that becomes a writer would fail at once instead of waiting.
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            with crash.step("log commit"):
                connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise


@contextmanager
def translated() -> Iterator[None]:
    """Raises SQLite's locked, full and I/O errors as EventLogUnavailable, and damage of its file as EventLogError."""
    try:
        yield
    except sqlite3.OperationalError as error:
        raise EventLogUnavailable(f"embedded event log: {error}") from error
    except sqlite3.DatabaseError as error:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF not in _DAMAGE:
            raise
        raise EventLogError(
            f"the embedded event log's file is damaged ({error}): stop the platform, then restore the file from a backup, or"
            " read what is left of it with the command `sqlite3 events.db .recover`"
        ) from error
