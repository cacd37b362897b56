"""Column types and values that mean the same on SQLite and PostgreSQL."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import DateTime, Dialect
from sqlalchemy.types import TypeDecorator
from ulid import ULID


class UtcDateTime(TypeDecorator[datetime]):
    """A moment, kept in UTC with microseconds; what comes out is always aware.

    SQLite has no time zones and PostgreSQL answers in the session's, so both ends are converted here.
    """

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> datetime | None:
        """Refuses a naive time: nobody could say which moment it means.

        Raises:
            ValueError: the time has no zone.
        """
        if value is None:
            return None
        if not isinstance(value, datetime) or value.tzinfo is None:
            raise ValueError(f"a time needs its zone, got {value!r}; use servicekit.database.utc_now()")
        return value.astimezone(UTC)

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        """The moment, aware, in UTC."""
        if not isinstance(value, datetime):
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def utc_now() -> datetime:
    """The present moment, aware."""
    return datetime.now(UTC)


def ulid() -> str:
    """A new id of 26 characters that sorts by its time of birth (millisecond)."""
    return str(ULID())
