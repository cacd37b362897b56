"""Rows of the services' tables, by plain SQL: their code is not imported, their tables are what they are judged by."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Row, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session
from sqlalchemy.types import TypeEngine

from openledger_cli.reconcile.book import Away
from servicekit.database import engine, reading


class Rows:
    """One consistent state of one database."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def all(self, sql: str, types: Mapping[str, TypeEngine[Any]] | None = None) -> list[Row[Any]]:
        """The rows of a query; `types` are those of columns that a database keeps in another form."""
        return list(self._session.execute(text(sql).columns(**(types or {})) if types else text(sql)).all())


@contextmanager
def rows_of(service: str, url: str) -> Iterator[Rows]:
    """A service's database, as of one moment.

    Raises:
        Away: it does not answer, or does not have this release's tables.
    """
    opened = engine(url)
    if opened.dialect.name == "postgresql":
        # A snapshot is all that is needed: a serialisable reader would make the services' writers fail, and itself.
        opened = opened.execution_options(isolation_level="REPEATABLE READ")
    try:
        with reading(opened) as session:
            yield Rows(session)
    except SQLAlchemyError as error:
        line = " ".join(str(getattr(error, "orig", error)).split())
        raise Away(f"the database of {service} cannot be read: {line}") from error
    finally:
        opened.dispose()
