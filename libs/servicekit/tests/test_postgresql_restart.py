"""A PostgreSQL that dies under a service: what was committed is there, what was not is refused or done again."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial

import pytest
from sqlalchemy import Engine, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from servicekit.database import engine, new_metadata, reading, run_in_transaction, transaction
from servicekit.errors import Unavailable
from servicekit.testing.services import PostgreSql, postgresql
from servicekit.testing.waiting import LONGEST_S, eventually

pytestmark = pytest.mark.server


class Base(DeclarativeBase):
    metadata = new_metadata()


class Entry(Base):
    __tablename__ = "entries"
    number: Mapped[int] = mapped_column(primary_key=True)


@pytest.fixture
def server() -> Iterator[PostgreSql]:
    """One of its own: it is killed."""
    with postgresql() as running:
        yield running


@pytest.fixture
def database(server: PostgreSql) -> Iterator[Engine]:
    made = engine(server.url)
    Base.metadata.create_all(made)
    yield made
    made.dispose()


def entries(database: Engine) -> list[int]:
    with reading(database) as session:
        return list(session.scalars(select(Entry.number).order_by(Entry.number)))


def test_what_was_committed_survives_what_was_not_is_refused_and_connections_recover(
    server: PostgreSql, database: Engine
) -> None:
    with transaction(database) as session:
        session.add(Entry(number=1))

    def cut() -> None:
        with transaction(database) as session:
            session.add(Entry(number=2))
            session.flush()
            server.kill()

    with pytest.raises(Unavailable) as refused:
        cut()
    assert refused.value.reason == "DATABASE_UNAVAILABLE"
    assert refused.value.retry_after_s is not None
    with pytest.raises(Unavailable):
        entries(database)
    server.start()
    assert entries(database) == [1]  # by a pooled connection that has died meanwhile
    with transaction(database) as session:
        session.add(Entry(number=3))
    assert entries(database) == [1, 3]


def test_a_writer_that_repeats_what_was_refused_loses_and_doubles_nothing(
    server: PostgreSql, database: Engine
) -> None:
    """The way of consumers and clients: again, until it is known to be there. A cut commit may have been done or not."""
    half, done = threading.Event(), threading.Event()

    def write() -> None:
        for number in range(200):
            eventually(partial(_tried, database, number), f"the commit of {number}")
            if number == 50:
                half.set()
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    assert half.wait(LONGEST_S)
    server.kill()
    server.start()
    assert done.wait(2 * LONGEST_S)
    writer.join()
    assert entries(database) == list(range(200))


def _tried(database: Engine, number: int) -> bool:
    def add(session: Session) -> None:
        if session.get(Entry, number) is None:
            session.add(Entry(number=number))

    try:
        run_in_transaction(database, add)
    except Unavailable:
        return False
    return True


def test_a_primary_that_comes_back_as_a_standby_is_unavailable_until_it_is_promoted(
    server: PostgreSql, database: Engine
) -> None:
    with transaction(database) as session:
        session.add(Entry(number=1))
    server.kill()
    server.demote()
    server.start()
    for _ in range(2):  # also with a connection that was opened to the standby
        with pytest.raises(Unavailable) as refused, transaction(database) as session:
            session.add(Entry(number=2))
        assert refused.value.reason == "DATABASE_UNAVAILABLE"
        with pytest.raises(Unavailable):
            entries(database)
    server.kill()
    server.promote()
    server.start()
    assert entries(database) == [1]
