"""PostgreSQL connections on which no statement waits forever."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg import Connection, OperationalError
from sqlalchemy import Connection as DatabaseConnection
from sqlalchemy import text

from servicekit.deadlines import DatabaseDeadlines, milliseconds


class BoundedConnection(Connection[Any]):
    """Ends a statement that has no answer in time, by closing the connection.

    The server's `statement_timeout` does not help when the server is not reached, and TCP's timeouts do not help when something
    between acknowledges what nobody answers.
    """

    answer_within_s = DatabaseDeadlines.statement_s + DatabaseDeadlines.answer_s

    def wait(self, gen: Any, *args: Any, **kwargs: Any) -> Any:
        """See psycopg. Raises OperationalError, without an SQLSTATE, when the time is over."""
        return super().wait(self._bounded(gen), *args, **kwargs)

    def _bounded(self, gen: Generator[Any, Any, Any]) -> Generator[Any, Any, Any]:
        """Passes everything on. psycopg resumes it several times a second, also when nothing has arrived."""
        limit_s = self.answer_within_s
        until = time.monotonic() + limit_s
        try:
            wanted = next(gen)
            while True:
                ready = yield wanted
                if time.monotonic() > until:
                    gen.close()
                    self.pgconn.finish()
                    raise OperationalError(f"no answer within {limit_s:g} s")
                wanted = gen.send(ready)
        except StopIteration as end:
            return end.value

    @contextmanager
    def answering_within(self, seconds: float) -> Iterator[None]:
        """Changes the limit in the block."""
        before, self.answer_within_s = self.answer_within_s, seconds
        try:
            yield
        finally:
            self.answer_within_s = before


def set_session(connection: psycopg.Connection[Any], parameters: dict[str, str]) -> None:
    """Sets parameters of a new session, before its first transaction."""
    names = list(parameters)
    calls = ", ".join("set_config(%s, %s, false)" for _ in names)
    values = [part for name in names for part in (name, parameters[name])]
    connection.execute(f"SELECT {calls}".encode(), values)
    connection.commit()


@contextmanager
def statements_within(connection: DatabaseConnection, seconds: float) -> Iterator[None]:
    """Gives the statements of one transaction more time (PostgreSQL); call it inside the transaction. For migrations."""
    driver = connection.connection.driver_connection
    if not isinstance(driver, BoundedConnection):
        yield
        return
    for name in ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"):
        connection.execute(
            text("SELECT set_config(:name, :value, true)"), {"name": name, "value": milliseconds(seconds)}
        )
    with driver.answering_within(seconds + DatabaseDeadlines.answer_s):
        yield
