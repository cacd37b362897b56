"""The embedded log's file: its tables, and how connections read and write it."""

from __future__ import annotations

import fcntl
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from servicekit import crash
from servicekit.eventlog.base import EventLogError, EventLogUnavailable

crash.primitive(__name__)

OFFSET_BITS = 40
"""A record's row id is partition id << OFFSET_BITS | offset: one B-tree in delivery order, no second index.
40 bits of offset and 23 of partition id last 35 years at 1,000 records a second in each of 8 million
partitions."""

_BUSY_TIMEOUT_S = 15.0
_VERSION = 1
_SCHEMA = """
CREATE TABLE topics (
    name TEXT PRIMARY KEY,
    partitions INTEGER NOT NULL,
    retention_ms INTEGER                -- NULL: for ever
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
    headers TEXT NOT NULL               -- JSON [[name, value as latin-1], ...]
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
    owner TEXT,                         -- who reads it; NULL between a release and the next acquisition
    wanted TEXT,                        -- who is to read it; another owner lets go at its next poll
    epoch INTEGER NOT NULL DEFAULT 0,   -- grows with every change of owner: fences former ones
    PRIMARY KEY (group_name, partition_id)
) WITHOUT ROWID;
CREATE INDEX ownership_by_partition ON ownership (partition_id, owner);
"""


def prepare(path: Path) -> None:
    """Make the file and its tables where they are missing. Safe when several processes do it at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Turning WAL on needs the file for itself and does not honour the busy timeout: one process at a time.
    with path.with_name(path.name + ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
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
                elif version != _VERSION:
                    raise EventLogError(
                        f"{path} has layout {version}; this release reads layout {_VERSION} only"
                    )
        finally:
            connection.close()


def connect(path: Path, synchronous: Literal["FULL", "NORMAL"]) -> sqlite3.Connection:
    """A connection in autocommit mode.

    FULL fsyncs at each commit. NORMAL, in WAL mode, leaves that to the next checkpoint or FULL commit: its
    last commits survive a kill of the process but not of the machine, which suits offsets and leases
    (records repeat).
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
        connection.execute("PRAGMA journal_size_limit = 67108864")  # give a grown WAL's space back
    return connection


@contextmanager
def writing(connection: sqlite3.Connection) -> Iterator[None]:
    """A write transaction: commits at the end, rolls back on any exception."""
    with translated():
        # IMMEDIATE: a reader that becomes a writer would fail at once instead of waiting for its turn.
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
    """SQLite's locked, full and I/O errors as EventLogUnavailable."""
    try:
        yield
    except sqlite3.OperationalError as error:
        raise EventLogUnavailable(f"embedded event log: {error}") from error
