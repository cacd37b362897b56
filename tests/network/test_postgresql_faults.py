"""PostgreSQL behind a network that fails: callers get an answer in time, and all is well soon after the fault.

The deadlines are shortened to about a second here; `make faults` has the real ones.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from google.protobuf.wrappers_pb2 import StringValue
from prometheus_client import REGISTRY
from sqlalchemy import Engine, make_url, text

from openledger_testing.network_faults import FaultyProxy, Mode
from servicekit.database import engine as open_engine
from servicekit.database import new_metadata, transaction
from servicekit.deadlines import DatabaseDeadlines
from servicekit.delivery import outbox
from servicekit.delivery.outbox import OutboxPublisher
from servicekit.errors import Aborted, Unavailable
from servicekit.eventlog import EventLog, Topic, open_event_log
from servicekit.eventlog.events import new_event
from servicekit.server.probes import PatientProbe, database_problem
from servicekit.testing.services import empty_database, postgresql_url
from servicekit.testing.waiting import LONGEST_S, eventually

pytestmark = pytest.mark.server

TOPIC = Topic("area.thing.v1", partitions=1)
SHORT = DatabaseDeadlines(
    connect_s=2,
    statement_s=1.0,
    answer_s=0.3,
    ping_s=0.5,
    lock_s=0.5,
    idle_in_transaction_s=1.0,
    pool_s=1.0,
)


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with postgresql_url() as url:
        yield url


@pytest.fixture
def proxy(server: str) -> Iterator[FaultyProxy]:
    folder = make_url(server).query["host"]
    with FaultyProxy(f"{folder}/.s.PGSQL.5432", delay_s=0.3) as running:
        yield running


@pytest.fixture
def direct(server: str) -> Iterator[str]:
    with empty_database(server) as url:
        made = open_engine(url)
        new_metadata().create_all(made)
        made.dispose()
        yield url


@pytest.fixture
def database(direct: str, proxy: FaultyProxy) -> Iterator[Engine]:
    """The same database, through the proxy."""
    name = make_url(direct).database
    made = open_engine(f"postgresql://postgres@127.0.0.1:{proxy.port}/{name}", SHORT)
    yield made
    made.dispose()


@pytest.fixture
def event_log(tmp_path: Path) -> Iterator[EventLog]:
    opened = open_event_log(f"embedded:{tmp_path / 'events.db'}")
    opened.ensure_topics([TOPIC])
    yield opened
    opened.close()


def add(engine: Engine, value: str) -> None:
    with transaction(engine) as session:
        outbox.add(session, new_event(TOPIC, "k", StringValue(value=value), "openledger/test"))


def ask(engine: Engine) -> int:
    with transaction(engine) as session:
        return int(session.execute(text("SELECT count(*) FROM outbox")).scalar_one())


def answers(engine: Engine) -> bool:
    try:
        ask(engine)
    except (Unavailable, Aborted):
        return False
    return True


@pytest.mark.parametrize("mode", [Mode.VANISH, Mode.RESET, Mode.DRIP])
def test_a_caller_is_answered_in_time_and_again_after_the_fault(
    database: Engine, proxy: FaultyProxy, mode: Mode
) -> None:
    eventually(lambda: answers(database))
    proxy.drip_every_s = 0.2  # 100 bytes would take 20 s
    proxy.strike(mode)
    with pytest.raises(Unavailable):
        ask(database)
    proxy.heal()
    eventually(lambda: answers(database), "an answer after the fault")


def test_a_slow_network_only_takes_longer(database: Engine, proxy: FaultyProxy) -> None:
    eventually(lambda: answers(database))
    proxy.strike(Mode.DELAY)
    proxy.delay_s = 0.05
    eventually(lambda: answers(database), "an answer through the slow network")


def test_a_server_that_was_replaced_is_found(database: Engine, proxy: FaultyProxy) -> None:
    eventually(lambda: answers(database))
    proxy.replace(proxy.target)
    eventually(lambda: answers(database), "an answer of the server in its place")


@pytest.mark.parametrize("mode", [Mode.VANISH, Mode.HALF_OPEN])
def test_the_outbox_is_published_after_the_fault_and_readiness_names_it_meanwhile(
    direct: str, database: Engine, proxy: FaultyProxy, event_log: EventLog, mode: Mode
) -> None:
    publisher = OutboxPublisher(database, event_log, leader_idle_s=1.0)
    stop = threading.Event()
    thread = threading.Thread(target=publisher.run, args=(stop,))
    thread.start()
    probe = PatientProbe(lambda: database_problem(database), "the database", limit_s=0.5)

    def published() -> int:
        return sum(event_log.end_offsets(TOPIC.name).values())

    other = open_engine(direct)  # another process, which the fault does not concern, acknowledges these
    try:
        add(other, "before")
        eventually(lambda: published() == 1, "the first event")
        proxy.strike(mode)
        for number in range(10):
            add(other, str(number))
        publisher.notify()
        eventually(lambda: probe.problem() is not None, "the probe to name the database")
        eventually(lambda: oldest_s() > 0.5, "the metric to show the oldest event")
        eventually(lambda: failing_s("outbox") > 0, "the outbox to be named")
        proxy.heal()
        eventually(lambda: published() >= 11, "all events")
        eventually(lambda: probe.problem() is None, "the probe to succeed")
        eventually(lambda: failing_s("outbox") == 0, "the outbox to succeed")
    finally:
        proxy.heal()
        stop.set()
        thread.join(LONGEST_S)
        other.dispose()
    assert not thread.is_alive()


def oldest_s() -> float:
    return REGISTRY.get_sample_value("openledger_outbox_oldest_seconds") or 0.0


def failing_s(loop: str) -> float:
    return REGISTRY.get_sample_value("openledger_loop_failing_seconds", {"loop": loop}) or 0.0


def test_what_a_vanished_client_has_locked_is_free_again(
    direct: str, database: Engine, proxy: FaultyProxy
) -> None:
    other = open_engine(direct)
    eventually(lambda: answers(database))
    held = database.connect()
    held.begin()
    held.execute(text("SELECT pg_advisory_xact_lock(1)"))
    proxy.strike(Mode.VANISH)

    def locks() -> bool:
        with other.connect() as connection:
            return bool(connection.execute(text("SELECT pg_try_advisory_xact_lock(1)")).scalar_one())

    eventually(locks, "the lock")
    other.dispose()
    held.invalidate()
    held.close()


def test_migrations_and_other_long_statements_are_told_apart(direct: str) -> None:
    from servicekit.database._bounded import statements_within

    short = open_engine(direct, SHORT)
    with pytest.raises(Unavailable), transaction(short) as session:
        session.execute(text("SELECT pg_sleep(3)"))
    with short.connect() as connection, connection.begin(), statements_within(connection, 30):
        connection.execute(text("SELECT pg_sleep(1.5)"))
    short.dispose()
