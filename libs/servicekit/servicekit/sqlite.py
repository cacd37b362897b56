"""What every SQLite file of the platform has in common; `servicekit.database` and the embedded event log open such files."""

from __future__ import annotations

WAL_BYTES = 64 << 20
"""A write-ahead log that grew beyond this, because a reader held it, is cut to this size once it is used again."""

PRAGMAS = (
    # What is deleted is overwritten with zeros: its text must not stay in free pages.
    "PRAGMA secure_delete = ON",
    f"PRAGMA journal_size_limit = {WAL_BYTES}",
)
"""For every connection."""
