"""kill -9 of each process of the event path, again and again, mid-stream: nothing is lost, nothing takes effect twice.

Real processes on the embedded log: a maker that commits numbers with their events and publishes its outbox; a logger
that appends to a write-ahead log and sends it; a taker whose handler writes what it sees. Each is killed wherever it
happens to be, and started again.
"""

from __future__ import annotations

import random
import subprocess
import sys
import threading
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import pytest
from google.protobuf.wrappers_pb2 import StringValue
from sqlalchemy import Engine, text

from servicekit.database import engine, new_metadata, transaction
from servicekit.eventlog import Topic
from servicekit.eventlog.embedded import EmbeddedEventLog
from servicekit.eventlog.events import Event, from_record
from servicekit.testing.waiting import eventually

pytestmark = pytest.mark.server

TOPIC = Topic("area.thing.v1", partitions=3)
KEYS = 5
LIMIT_S = 120.0

_COMMON = """
import sys, threading
from pathlib import Path
from google.protobuf.wrappers_pb2 import StringValue
from sqlalchemy import text
from servicekit.delivery import outbox
from servicekit.delivery.consumer import ConsumerRunner
from servicekit.database import engine, transaction
from servicekit.eventlog import Topic, open_event_log
from servicekit.eventlog.events import new_event, to_record
from servicekit.wal import Wal, WalSender, pack

folder = Path(sys.argv[1])
topic = Topic("area.thing.v1", partitions=3)
log = open_event_log(f"embedded:{folder}/events.db")
log.ensure_topics([topic])
stop = threading.Event()

def event(n):
    return new_event(topic, f"key{n % 5}", StringValue(value=str(n)), "openledger/test")

def until_told(run):
    thread = threading.Thread(target=run, args=(stop,))
    thread.start()
    sys.stdin.read()
    stop.set()
    thread.join()
"""

_MAKER = (
    _COMMON
    + """
db = engine(f"sqlite:///{folder}/maker.db")
threading.Thread(target=outbox.OutboxPublisher(db, log).run, args=(stop,), daemon=True).start()
for _ in range(int(sys.argv[2])):
    with transaction(db) as session:
        n = session.execute(text("INSERT INTO numbers DEFAULT VALUES RETURNING n")).scalar_one()
        outbox.add(session, event(n))
    print(n, flush=True)
"""
)

_PUBLISHER = (
    _COMMON
    + """
until_told(outbox.OutboxPublisher(engine(f"sqlite:///{folder}/maker.db"), log).run)
"""
)

_TAKER = (
    _COMMON
    + """
db = engine(f"sqlite:///{folder}/taker.db")
def take(session, event):
    session.execute(text("INSERT INTO taken (value, key) VALUES (:v, :k)"), {"v": int(event.message.value), "k": event.key})
    print(event.message.value, flush=True)
until_told(ConsumerRunner(log, db, "takers", {topic: {"google.protobuf.StringValue": take}}).run)
"""
)

_BATCH_TAKER = (
    _COMMON
    + """
from servicekit.delivery.consumer import BatchHandler
db = engine(f"sqlite:///{folder}/taker.db")
def take(session, events):
    for event in events:
        values = {"v": int(event.message.value), "k": event.key}
        session.execute(text("INSERT INTO taken (value, key) VALUES (:v, :k)"), values)
        print(event.message.value, flush=True)
until_told(ConsumerRunner(log, db, "takers", {topic: {"google.protobuf.StringValue": BatchHandler(take)}}).run)
"""
)

_LOGGER = (
    _COMMON
    + """
wal = Wal(folder / "wal", segment_bytes=20_000, max_bytes=10**8)
threading.Thread(target=WalSender(wal, log).run, args=(stop,), daemon=True).start()
first = int(sys.argv[2])
for n in range(first, first + int(sys.argv[3])):
    wal.append(pack(to_record(event(n))))
    print(n, flush=True)
"""
)

_SENDER = (
    _COMMON
    + """
until_told(WalSender(Wal(folder / "wal"), log).run)
"""
)


class Program:
    """A process that prints a line whenever it has done something."""

    def __init__(self, source: str, folder: Path, *arguments: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", source, folder, *map(str, arguments)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def kill_after(self, lines: int) -> list[int]:
        """kill -9 once it has printed so many lines; returns all that it had printed."""
        assert self._process.stdout is not None
        limit = threading.Timer(
            LIMIT_S, self._process.kill
        )  # a process that does not print so many fails the test
        limit.start()
        said = [self._process.stdout.readline() for _ in range(lines)]
        limit.cancel()
        self._process.kill()
        rest = self._process.stdout.read()
        self._process.wait()
        assert len([line for line in said if line]) == lines, (
            f"it printed less than {lines} lines in {LIMIT_S:.0f} s"
        )
        whole = "".join(said) + rest[: rest.rfind("\n") + 1]
        return [int(line) for line in whole.split()]

    def finish(self) -> None:
        """Asks the process to end by itself."""
        self._process.communicate("", timeout=60)
        assert self._process.returncode == 0


@pytest.fixture
def log(tmp_path: Path) -> EmbeddedEventLog:
    opened = EmbeddedEventLog(tmp_path / "events.db")
    opened.ensure_topics([TOPIC])
    return opened


@pytest.fixture
def maker_db(tmp_path: Path) -> Engine:
    return _database(tmp_path / "maker.db", "CREATE TABLE numbers (n INTEGER PRIMARY KEY AUTOINCREMENT)")


@pytest.fixture
def taker_db(tmp_path: Path) -> Engine:
    return _database(
        tmp_path / "taker.db", "CREATE TABLE taken (at INTEGER PRIMARY KEY, value INTEGER, key TEXT)"
    )


def _database(path: Path, table: str) -> Engine:
    made = engine(f"sqlite:///{path}")
    new_metadata().create_all(made)
    with transaction(made) as session:
        session.execute(text(table))
    return made


def numbers(db: Engine, query: str) -> list[int]:
    with transaction(db) as session:
        return list(session.execute(text(query)).scalars())


def in_log(log: EmbeddedEventLog) -> list[tuple[str, str, int]]:
    """(ce_id, key, number) of everything in the event log, in order within each partition."""
    consumer = log.consumer("reader", [TOPIC.name])
    found: list[tuple[str, str, int]] = []
    while sum(log.end_offsets(TOPIC.name).values()) > len(found):
        for record in consumer.poll(5):
            event: Event[StringValue] = from_record(record)
            found.append((event.id, event.key, int(event.message.value)))
    return found


def first_appearances(found: list[tuple[str, str, int]]) -> dict[str, list[int]]:
    """By key, the numbers in the order in which they are first seen."""
    by_key: dict[str, list[int]] = defaultdict(list)
    seen: set[str] = set()
    for event_id, key, number in found:
        if event_id not in seen:
            seen.add(event_id)
            by_key[key].append(number)
    return by_key


@pytest.fixture
def some() -> Callable[[], int]:
    return lambda: random.randint(5, 120)


def test_killed_maker_loses_no_committed_event_and_keeps_its_id(
    tmp_path: Path, log: EmbeddedEventLog, maker_db: Engine, some: Callable[[], int]
) -> None:
    for _ in range(3):
        Program(_MAKER, tmp_path, 100_000).kill_after(some())
    Program(_PUBLISHER, tmp_path).finish()
    committed = numbers(maker_db, "SELECT n FROM numbers ORDER BY n")
    published = in_log(log)
    assert sorted({number for _, _, number in published}) == committed
    assert len({event_id for event_id, _, _ in published}) == len(committed)
    assert all(seen == sorted(seen) for seen in first_appearances(published).values())


@pytest.mark.parametrize("taker", [_TAKER, _BATCH_TAKER], ids=["one at a time", "in batches"])
def test_killed_taker_takes_each_event_exactly_once_in_order(
    tmp_path: Path,
    log: EmbeddedEventLog,
    maker_db: Engine,
    taker_db: Engine,
    some: Callable[[], int],
    taker: str,
) -> None:
    Program(_MAKER, tmp_path, 100_000).kill_after(600)
    Program(_PUBLISHER, tmp_path).finish()
    committed = numbers(maker_db, "SELECT n FROM numbers ORDER BY n")
    for _ in range(3):
        # It prints what it has not taken yet, and may take all of it before the signal arrives.
        left = len(committed) - len(numbers(taker_db, "SELECT value FROM taken"))
        Program(taker, tmp_path).kill_after(min(some(), left))
    last = Program(taker, tmp_path)
    eventually(lambda: sum(log.lag("takers", TOPIC.name).values()) == 0, "the rest", within_s=LIMIT_S)
    last.finish()
    assert numbers(taker_db, "SELECT value FROM taken ORDER BY value") == committed
    for key in range(KEYS):
        of_key = numbers(taker_db, f"SELECT value FROM taken WHERE key = 'key{key}' ORDER BY at")
        assert of_key == sorted(of_key)


def test_killed_logger_loses_nothing_that_was_appended(
    tmp_path: Path, log: EmbeddedEventLog, some: Callable[[], int]
) -> None:
    appended: list[int] = []
    for _ in range(3):
        first = appended[-1] + 2 if appended else 0  # the one after the last said may be there too
        appended += Program(_LOGGER, tmp_path, first, 100_000).kill_after(3 * some())
    Program(_SENDER, tmp_path).finish()
    sent = in_log(log)
    assert set(appended) <= {number for _, _, number in sent}
    ids: dict[int, set[str]] = defaultdict(set)
    for event_id, _, number in sent:
        ids[number].add(event_id)
    assert all(len(of_number) == 1 for of_number in ids.values())
    assert all(seen == sorted(seen) for seen in first_appearances(sent).values())
