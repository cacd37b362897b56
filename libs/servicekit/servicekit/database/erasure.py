"""Makes deleted text leave the disk: SQLite's write-ahead log keeps old pages until it is overwritten.

`secure_delete` overwrites what is deleted in the database itself. The write-ahead log beside it still has the page as it was, and
a database that is rarely written keeps it for days. So the log is moved into the database and cut to nothing, regularly and
when a service starts. Between a deletion and the end of its traces on the disk are at most `ERASE_EVERY_S` and the time that a
reader or writer holds the log.

PostgreSQL has no such step: a deleted text leaves its tables with the next vacuum (autovacuum, or VACUUM), and its write-ahead
log and backups by their own retention.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path

from sqlalchemy import Engine

logger = logging.getLogger(__name__)

ERASE_EVERY_S = 5.0
_REPORT_AFTER_S = 60.0
_PATIENCE_MS = 200
"""A checkpoint holds writers up while it waits for readers, so it waits briefly and is tried again."""


class Erasure:
    """Empties the write-ahead log of one database. `step` is one round; one thread calls it."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._held_since: float | None = None

    def step(self) -> None:
        """Empties the log; does nothing where it is empty, or the database is not SQLite."""
        if self._engine.dialect.name != "sqlite" or not self._engine.url.database:
            return
        try:
            if Path(f"{self._engine.url.database}-wal").stat().st_size == 0:
                self._held_since = None
                return
        except FileNotFoundError:
            return
        if self._empty():
            self._held_since = None
            return
        now = time.monotonic()
        self._held_since = self._held_since or now
        if now - self._held_since > _REPORT_AFTER_S:
            logger.error(
                "%s-wal may hold deleted text: a transaction has held it for %.0f s",
                Path(self._engine.url.database),
                now - self._held_since,
            )

    def _empty(self) -> bool:
        """Returns whether the log is empty now; not while another connection reads from it."""
        with self._engine.connect() as pooled:
            connection = pooled.connection.driver_connection
            assert connection is not None
            (patience_ms,) = connection.execute("PRAGMA busy_timeout").fetchone()
            connection.execute(f"PRAGMA busy_timeout = {_PATIENCE_MS}")
            try:
                (busy, _, _) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            finally:
                connection.execute(f"PRAGMA busy_timeout = {patience_ms}")
        return not busy
