"""Column types and values that mean the same on SQLite and PostgreSQL."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import DateTime, Dialect
from sqlalchemy.types import TypeDecorator
from ulid import ULID


class UtcDateTime(TypeDecorator[datetime]):
    """A time, stored in UTC with microseconds. Values that are read are always aware.

    SQLite has no time zones, and PostgreSQL returns times in the zone of the session, so both directions are converted here.
    """

    impl = DateTime(timezone=True)
    cache_ok = True

    @property
    def python_type(self) -> type[datetime]:
        """The type of its values; page tokens are checked against it."""
        return datetime

    def process_bind_param(self, value: Any, dialect: Dialect) -> datetime | None:
        """Refuses a naive time, because it is ambiguous.

        Raises:
            ValueError: the time has no zone.
        """
        if value is None:
            return None
        if not isinstance(value, datetime) or value.tzinfo is None:
            raise ValueError(f"a time needs its zone, got {value!r}; use servicekit.database.utc_now()")
        return value.astimezone(UTC)

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        """Returns the time, aware, in UTC."""
        if not isinstance(value, datetime):
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def utc_now() -> datetime:
    """Returns the current time, aware, in UTC."""
    return datetime.now(UTC)


def ulid() -> str:
    """Returns a new id of 26 characters. Ids sort by their time of creation (to the millisecond)."""
    return str(ULID())
