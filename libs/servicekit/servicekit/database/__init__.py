"""A service's database: SQLite on one machine, PostgreSQL in production, with the same guarantees on both.

Transactions are serialisable on both, so code that is correct on one is correct on the other. SQLite takes its only write
lock when a transaction begins; PostgreSQL aborts one of two conflicting transactions. `run_in_transaction` runs an aborted
transaction again; `transaction` raises `Aborted` and leaves the decision to its caller.
"""

from servicekit.database.columns import UtcDateTime, ulid, utc_now
from servicekit.database.engine import engine, is_conflict, is_damaged, is_outage
from servicekit.database.metadata import new_base, new_metadata
from servicekit.database.migrate import migrate, migrate_back, schema_differences
from servicekit.database.transaction import reading, run_in_transaction, session_factory, transaction

__all__ = [
    "UtcDateTime",
    "engine",
    "is_conflict",
    "is_damaged",
    "is_outage",
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
