"""How fast an outbox on a real PostgreSQL catches up after an outage of the event log: committed events to durable in the log.

    python bench/outbox_bench.py [--quick] [--events 30000] [--rounds 6] [--bytes 500] [--json FILE]

The backlog is written first, in transactions of 100 events; then one publisher drains it into each event log, and the time is
from its start to the last event being durable there and gone from the outbox. PostgreSQL, the broker, the publisher and its
drain share this machine's cores. The peer is what the database alone allows: the same reads and deletes, sent nowhere. In each
round each is measured on a new database, another one first each time; shown are medians and the interval of the rounds' ratios.

Then, on an empty outbox, events are committed one at a time, and the time is from each one's commit to the end of its
handler's transaction in a consumer of another database: outbox, publisher, log, runner, inbox, effect.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from google.protobuf.wrappers_pb2 import BytesValue
from sqlalchemy import Engine, func, select, table
from sqlalchemy import event as sql_event
from sqlalchemy.orm import Session

from blocks import ratio
from openledger_testing.kafka_broker import KafkaBroker, fetch_jars
from servicekit.database import engine, new_metadata, transaction
from servicekit.delivery import outbox
from servicekit.delivery.consumer import ConsumerRunner
from servicekit.eventlog import EventLog, OutRecord, Topic, open_event_log
from servicekit.eventlog.base import Producer
from servicekit.eventlog.events import Event, new_event
from servicekit.testing.services import empty_database, postgresql

TOPIC = Topic("bench.outbox.v1", partitions=6)
SINGLE = Topic("bench.single.v1", partitions=6)
_NOWHERE = "nowhere"
_WRITE = 100
_KEYS = 97
_WARM = 20


class Nowhere:
    """A log that takes everything at once: what is left is the database's part."""

    def __init__(self, log: EventLog) -> None:
        self._log = log
        self.system = log.system

    def __getattr__(self, name: str) -> object:
        return getattr(self._log, name)

    def producer(self) -> Producer:
        return _NoProducer()


class _NoProducer:
    def send(self, records: Sequence[OutRecord]) -> None:
        """Take them."""

    def close(self) -> None:
        """Nothing is open."""


def fill(db: Engine, events: int, size: int) -> None:
    """Commit the backlog."""
    for first in range(0, events, _WRITE):
        made = [
            new_event(TOPIC, f"key{n % _KEYS}", BytesValue(value=os.urandom(size)), "openledger/bench")
            for n in range(first, min(first + _WRITE, events))
        ]
        with transaction(db) as session:
            outbox.add_all(session, made)


def drain(db: Engine, log: EventLog) -> float:
    """Seconds until the outbox is empty."""
    publisher = outbox.OutboxPublisher(db, log)
    stop = threading.Event()
    thread = threading.Thread(target=publisher.run, args=(stop,))
    pause = threading.Event()
    started = time.perf_counter()
    thread.start()
    while left(db):
        pause.wait(0.02)
    took_s = time.perf_counter() - started
    stop.set()
    thread.join()
    return took_s


def commit_to_effect(db: Engine, other: Engine, log: EventLog, count: int) -> tuple[float, float]:
    """Median and 99th percentile, in milliseconds, of the way from a commit to the effect in another database."""
    log.ensure_topics([SINGLE])
    arrived = threading.Event()

    def handle(session: Session, event: Event[BytesValue]) -> None:
        sql_event.listen(session, "after_commit", lambda _: arrived.set(), once=True)

    handlers = {SINGLE: {BytesValue.DESCRIPTOR.full_name: handle}}
    runner = ConsumerRunner(log, other, "bench", handlers)
    stop = threading.Event()
    threads = [
        threading.Thread(target=run, args=(stop,))
        for run in (outbox.OutboxPublisher(db, log).run, runner.run)
    ]
    for thread in threads:
        thread.start()
    times: list[float] = []
    for number in range(-_WARM, count):
        made = new_event(
            SINGLE, f"key{number % _KEYS}", BytesValue(value=os.urandom(500)), "openledger/bench"
        )
        arrived.clear()
        with transaction(db) as session:
            outbox.add(session, made)
        started = time.perf_counter()
        arrived.wait(60)
        if number >= 0:
            times.append((time.perf_counter() - started) * 1000)
    stop.set()
    for thread in threads:
        thread.join()
    cuts = statistics.quantiles(times, n=100)
    return statistics.median(times), cuts[98]


def left(db: Engine) -> int:
    """Rows of the outbox."""
    with db.connect() as connection:
        return int(connection.execute(select(func.count()).select_from(table("outbox"))).scalar_one())


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--quick", action="store_true", help="a quick check, not a measurement: 1,000 events, 1 round"
    )
    parser.add_argument("--events", type=int, default=30_000, help="of a backlog")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--bytes", type=int, default=500, help="of an event's value")
    parser.add_argument("--singles", type=int, default=300, help="events sent one at a time")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.events, arguments.rounds, arguments.singles = 1_000, 1, 20
    fetch_jars()
    with (
        tempfile.TemporaryDirectory() as folder,
        KafkaBroker(Path(folder) / "kafka") as broker,
        postgresql() as server,
    ):
        logs = {
            "Kafka": open_event_log(f"kafka://{broker.address}"),
            "the embedded log": open_event_log(f"embedded:{folder}/events.db"),
        }
        found = measure(server, logs, arguments)
        for log in logs.values():
            log.close()
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2) + "\n")
    return 0


def measure(server: Any, logs: dict[str, EventLog], arguments: argparse.Namespace) -> dict[str, Any]:
    """Backlogs round by round, another one first each time; then the delays."""
    ways: dict[str, Any] = {**logs, _NOWHERE: Nowhere(logs["the embedded log"])}
    rates: dict[str, list[float]] = {way: [] for way in ways}
    for round_ in range(arguments.rounds):
        for way in list(ways)[round_ % len(ways) :] + list(ways)[: round_ % len(ways)]:
            with empty_database(server.url) as url:
                rates[way].append(backlog(url, ways[way], arguments.events, arguments.bytes))
    found: dict[str, Any] = {
        "events": arguments.events,
        "singles": arguments.singles,
        "nowhere_events_per_s": statistics.median(rates[_NOWHERE]),
        "logs": {},
    }
    for name, log in logs.items():
        against = ratio(rates[name], rates[_NOWHERE])
        rate = statistics.median(rates[name])
        with empty_database(server.url) as url, empty_database(server.url) as other_url:
            p50, p99 = delays(url, other_url, log, arguments.singles)
        found["logs"][name] = {
            "events_per_s": rate,
            "slowest_events_per_s": min(rates[name]),
            "ratio": vars(against),
            "commit_to_effect_p50_ms": p50,
            "commit_to_effect_p99_ms": p99,
        }
        print(
            f"PostgreSQL outbox to {name}: {rate:,.0f} events/s (slowest {min(rates[name]):,.0f}), {against} of sent nowhere; "
            f"commit to effect p50 {p50:.1f} ms, p99 {p99:.1f} ms",
            flush=True,
        )
    return found


def backlog(url: str, log: Any, events: int, size: int) -> float:
    """Events a second out of a new database's outbox."""
    log.ensure_topics([TOPIC])
    db = engine(url)
    new_metadata().create_all(db)
    fill(db, events, size)
    rate = events / drain(db, log)
    db.dispose()
    return rate


def delays(url: str, other_url: str, log: EventLog, singles: int) -> tuple[float, float]:
    """p50 and p99, ms, from a commit in one new database to the effect in another."""
    dbs = engine(url), engine(other_url)
    for db in dbs:
        new_metadata().create_all(db)
    found = commit_to_effect(*dbs, log, singles)
    for db in dbs:
        db.dispose()
    return found


if __name__ == "__main__":
    sys.exit(main())
