"""Pages of facts, read from a database snapshot one at a time, by any thread."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from datetime import datetime

from openledger.audit.v1.audit_pb2 import Fact, FactsPage
from sqlalchemy import Engine

from servicekit.audit.declared import Declared
from servicekit.audit.shared import of_database, stamp
from servicekit.database import reading, utc_now
from servicekit.errors import Aborted, ResourceExhausted

PAGE_BYTES = 256 << 10
"""Largest size of a page. A page with a single fact may be larger, up to `LARGEST_FACT_BYTES`."""
LARGEST_FACT_BYTES = 3 << 20
"""Holds an event of the largest allowed size. A page with one such fact stays below gRPC's limit of 4 MiB."""


def pages(engine: Engine, declared: Declared) -> Iterator[FactsPage]:
    """Yields all facts of a service. The snapshot is held until the iterator ends or is closed.

    Raises:
        ResourceExhausted: a fact is too large to be sent.
        Unavailable: the database does not answer.
    """
    # A snapshot is all that is needed. On PostgreSQL a serialisable reader would make the service's writers fail.
    postgresql = engine.dialect.name == "postgresql"
    snapshot = engine.execution_options(isolation_level="REPEATABLE READ") if postgresql else engine
    before = [*(Fact(consumer=each) for each in declared.consumers()), *declared.files()]
    time = utc_now()  # before the first statement, which takes the snapshot
    with reading(snapshot) as session:
        yield from _paged(_all(before, of_database(session, declared)), declared.service, time)


def _all(*several: Iterable[Fact]) -> Iterator[Fact]:
    for each in several:
        yield from each


def _paged(facts: Iterator[Fact], service: str, time: datetime) -> Iterator[FactsPage]:
    state_time = stamp(time)
    held: list[Fact] = []
    held_bytes = 0
    for fact in facts:
        size = fact.ByteSize()
        if size > LARGEST_FACT_BYTES:
            kind = fact.WhichOneof("kind")
            raise ResourceExhausted(
                "FACT_TOO_LARGE", f"a {kind} fact has {size} bytes; at most {LARGEST_FACT_BYTES} can be sent"
            )
        if held and held_bytes + size > PAGE_BYTES:
            yield FactsPage(state_time=state_time, service=service, facts=held)
            held, held_bytes = [], 0
        held.append(fact)
        held_bytes += size
    yield FactsPage(state_time=state_time, service=service, facts=held)


class Pages:
    """Pages for an asynchronous caller. Each call may come from a different thread; closing waits for a call that is running."""

    def __init__(self, made: Iterator[FactsPage]) -> None:
        self._pages = made
        self._lock = threading.Lock()
        self._expired = False

    def next(self) -> FactsPage | None:
        """Returns the next page; None after the last.

        Raises:
            Aborted: the pages were closed by `expire`.
        """
        with self._lock:
            if self._expired:
                raise Aborted("AUDIT_TOO_SLOW", "the facts were not read fast enough; read them again")
            return next(self._pages, None)

    def expire(self) -> None:
        """Releases the snapshot although its reader has not finished."""
        with self._lock:
            self._expired = True
        self.close()

    def close(self) -> None:
        """Releases the snapshot."""
        with self._lock:
            close = getattr(self._pages, "close", None)
            if close is not None:
                close()
