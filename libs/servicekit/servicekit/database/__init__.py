"""A service's database: SQLite on one machine, PostgreSQL in production, the same promises on both.

Transactions are serialisable on both, so code that is right on one is right on the other: SQLite takes its one write
lock when a transaction begins, PostgreSQL aborts one of two that conflict. `run_in_transaction` tries those again;
`transaction` raises `Aborted` for its caller to decide.
"""

from servicekit.database.columns import UtcDateTime, ulid, utc_now
from servicekit.database.engine import engine, is_away, is_conflict
from servicekit.database.metadata import new_base, new_metadata
from servicekit.database.migrate import migrate, migrate_back, schema_differences
from servicekit.database.transaction import reading, run_in_transaction, session_factory, transaction

__all__ = [
    "UtcDateTime",
    "engine",
    "is_away",
    "is_conflict",
    "migrate",
    "migrate_back",
    "new_base",
    "new_metadata",
    "reading",
    "run_in_transaction",
    "schema_differences",
    "session_factory",
    "transaction",
    "ulid",
    "utc_now",
]
