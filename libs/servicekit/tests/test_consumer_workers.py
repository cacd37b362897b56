"""Several workers of one member: partitions side by side, each in order, what is slow holds up only itself."""

from __future__ import annotations

import random
import threading
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from google.protobuf.wrappers_pb2 import StringValue
from sqlalchemy import Engine, text
from sqlalchemy.orm import Session

from servicekit.database import engine, new_metadata, transaction
from servicekit.delivery.consumer import ConsumerRunner
from servicekit.delivery.dead_letters import DeadLetterCap
from servicekit.eventlog import EventLog, OutRecord, Topic
from servicekit.eventlog.events import Event, InvalidEvent, new_event, to_record
from servicekit.testing.waiting import LONGEST_S, eventually

pytestmark = pytest.mark.slow

TOPIC = Topic("area.thing.v1", partitions=4)
STRING = "google.protobuf.StringValue"
GROUP = "tests"
KEYS = [f"key{n}" for n in range(12)]
Start = Callable[[Callable[[threading.Event], None]], Callable[[], None]]


@pytest.fixture
def db(tmp_path: Path) -> Engine:
    made = engine(f"sqlite:///{tmp_path}/service.db")
    new_metadata().create_all(made)
    with transaction(made) as session:
        session.execute(text("CREATE TABLE effects (at INTEGER PRIMARY KEY, key TEXT, value TEXT)"))
    return made


@pytest.fixture(autouse=True)
def topics(event_log: EventLog) -> None:
    event_log.ensure_topics([TOPIC, TOPIC.dead_letters()])


def record(key: str, value: str) -> OutRecord:
    return to_record(new_event(TOPIC, key, StringValue(value=value), "openledger/test"))


def send(event_log: EventLog, *records: OutRecord) -> None:
    producer = event_log.producer()
    producer.send(records)
    producer.close()


def keys_of_two_partitions(event_log: EventLog) -> tuple[str, str]:
    """Two keys whose records are in different partitions: found by looking where one record of each went."""
    where: dict[str, int] = {}
    for key in KEYS:
        before = event_log.end_offsets(TOPIC.name)
        send(event_log, record(key, "first"))
        after = event_log.end_offsets(TOPIC.name)
        (where[key],) = (number for number in after if after[number] != before[number])
    other = next(key for key in KEYS if where[key] != where[KEYS[0]])
    return KEYS[0], other


def record_effect(session: Session, event: Event[StringValue]) -> None:
    session.execute(
        text("INSERT INTO effects (key, value) VALUES (:k, :v)"), {"k": event.key, "v": event.message.value}
    )


def effects(db: Engine) -> list[tuple[str, str]]:
    with transaction(db) as session:
        return [
            (row.key, row.value)
            for row in session.execute(text("SELECT key, value FROM effects ORDER BY at"))
        ]


def lag(event_log: EventLog) -> int:
    return sum(event_log.lag(GROUP, TOPIC.name).values())


def test_partitions_are_handled_side_by_side_but_each_by_one_worker(
    event_log: EventLog, start: Start
) -> None:
    at_once = threading.Barrier(4)
    entered: dict[str, int] = defaultdict(int)
    crowded: list[str] = []
    met: list[str] = []

    def meet(session: Session, event: Event[StringValue]) -> None:
        entered[event.key] += 1
        if entered[event.key] > 1:
            crowded.append(event.key)
        if event.key not in met:
            met.append(event.key)
            at_once.wait(LONGEST_S)  # passes only when four handlers are inside at the same time
        entered[event.key] -= 1

    keys = list(_key_of_each_partition(event_log))
    for number in range(20):
        send(event_log, *(record(key, str(number)) for key in keys))
    start(ConsumerRunner(event_log, None, GROUP, {TOPIC: {STRING: meet}}, workers=4).run)
    eventually(lambda: lag(event_log) == 0)
    assert sorted(met) == sorted(keys)
    assert crowded == []


def _key_of_each_partition(event_log: EventLog) -> list[str]:
    found: dict[int, str] = {}
    counted = event_log.end_offsets(TOPIC.name)
    for number in range(1000):
        key = f"some{number}"
        send(event_log, replace(record(key, "x"), headers=(("ce_type", b"nobody.Handles"),)))
        now = event_log.end_offsets(TOPIC.name)
        (partition,) = (p for p in now if now[p] != counted[p])
        found.setdefault(partition, key)
        counted = now
        if len(found) == TOPIC.partitions:
            break
    return list(found.values())


def test_a_slow_record_holds_up_its_own_partition_only(db: Engine, event_log: EventLog, start: Start) -> None:
    slow, quick = keys_of_two_partitions(event_log)
    free = threading.Event()
    inside = threading.Event()

    def wait_first(session: Session, event: Event[StringValue]) -> None:
        if event.message.value == "slow":
            inside.set()
            assert free.wait(LONGEST_S)
        else:
            seen.append((event.key, event.message.value))

    seen: list[tuple[str, str]] = []
    start(ConsumerRunner(event_log, None, GROUP, {TOPIC: {STRING: wait_first}}, workers=2).run)
    send(event_log, record(slow, "slow"), record(slow, "behind it"))
    assert inside.wait(LONGEST_S)
    for number in range(300):
        send(event_log, record(quick, str(number)))
    eventually(lambda: (quick, "299") in seen)
    eventually(lambda: sorted(event_log.lag(GROUP, TOPIC.name).values()) == [0, 0, 0, 2])
    assert (slow, "behind it") not in seen
    free.set()
    eventually(lambda: lag(event_log) == 0)
    assert [value for key, value in seen if key == quick and value != "first"] == list(map(str, range(300)))
    assert (slow, "behind it") in seen


def test_while_every_worker_is_at_a_record_no_more_is_taken(event_log: EventLog, start: Start) -> None:
    free = threading.Event()
    begun: list[str] = []

    def wait(session: Session, event: Event[StringValue]) -> None:
        begun.append(event.message.value)
        assert free.wait(LONGEST_S)

    keys = _key_of_each_partition(event_log)
    send(event_log, *(record(key, f"{key} {number}") for number in range(50) for key in keys))
    stop = start(ConsumerRunner(event_log, None, GROUP, {TOPIC: {STRING: wait}}, workers=2).run)
    eventually(lambda: len(begun) == 2)
    other = event_log.consumer(GROUP, [TOPIC.name])  # the member still takes part: it hands partitions over
    eventually(lambda: other.poll(0.1) is not None and len(other.assignment()) == 2)
    assert len(begun) == 2
    other.close()
    free.set()
    eventually(lambda: lag(event_log) == 0)
    stop()
    assert set(begun) == {f"{key} {number}" for number in range(50) for key in keys}


def test_a_record_that_fails_after_its_round_is_tried_again_before_those_behind_it(
    db: Engine, event_log: EventLog, start: Start
) -> None:
    free = threading.Event()
    failures = iter([ConnectionError("away"), ConnectionError("away")])

    def slow_then_failing(session: Session, event: Event[StringValue]) -> None:
        record_effect(session, event)
        if event.message.value == "1":
            assert free.wait(LONGEST_S)
            if error := next(failures, None):
                raise error

    send(event_log, *(record("k", str(number)) for number in range(5)))
    start(ConsumerRunner(event_log, db, GROUP, {TOPIC: {STRING: slow_then_failing}}, workers=2).run)
    eventually(lambda: event_log.committed(GROUP, TOPIC.name) != {})  # "0" is settled while "1" is at work
    free.set()
    eventually(lambda: lag(event_log) == 0)
    assert effects(db) == [("k", str(number)) for number in range(5)]


def test_stopping_waits_for_records_at_work_and_commits_them(event_log: EventLog, start: Start) -> None:
    inside = threading.Semaphore(0)
    free = threading.Event()

    def wait(session: Session, event: Event[StringValue]) -> None:
        inside.release()
        assert free.wait(LONGEST_S)

    keys = _key_of_each_partition(event_log)
    send(event_log, *(record(key, "x") for key in keys for _ in range(3)))
    stop = start(ConsumerRunner(event_log, None, GROUP, {TOPIC: {STRING: wait}}, workers=4).run)
    for _ in keys:
        assert inside.acquire(timeout=LONGEST_S)
    stopping = threading.Thread(target=stop)
    stopping.start()
    free.set()
    stopping.join()
    assert lag(event_log) <= 2 * len(keys)
    assert sum(event_log.committed(GROUP, TOPIC.name).values()) + lag(event_log) == sum(
        event_log.end_offsets(TOPIC.name).values()
    )


def test_a_member_whose_handler_does_not_return_leaves_its_partitions_to_others_until_it_does(
    db: Engine, event_log: EventLog, start: Start
) -> None:
    free = threading.Event()
    inside = threading.Event()

    def hang(session: Session, event: Event[StringValue]) -> None:
        inside.set()
        assert free.wait(LONGEST_S)

    send(event_log, record("k", "1"), record("k", "2"))
    start(ConsumerRunner(event_log, None, GROUP, {TOPIC: {STRING: hang}}, handler_limit_s=0.5).run)
    assert inside.wait(LONGEST_S)
    start(ConsumerRunner(event_log, db, GROUP, {TOPIC: {STRING: record_effect}}).run)
    eventually(lambda: effects(db) == [("k", "1"), ("k", "2")])
    free.set()
    eventually(lambda: lag(event_log) == 0)


def test_workers_together_move_no_more_aside_than_the_cap(event_log: EventLog, start: Start) -> None:
    keys = _key_of_each_partition(event_log)

    def refuse(session: Session, event: Event[StringValue]) -> None:
        raise InvalidEvent("BAD", "all of them")

    send(event_log, *(record(key, "x") for key in keys for _ in range(10)))
    runner = ConsumerRunner(
        event_log, None, GROUP, {TOPIC: {STRING: refuse}}, cap=DeadLetterCap(consecutive=3), workers=4
    )
    start(runner.run)
    eventually(lambda: runner.halted)
    assert event_log.end_offsets(TOPIC.name + ".dlq") == {0: 3}


@pytest.mark.parametrize("seed", range(6))
def test_whatever_fails_repeats_or_moves_each_effect_happens_once_and_in_order_by_key(
    db: Engine, event_log: EventLog, start: Start, seed: int
) -> None:
    chance = random.Random(seed)
    numbers: dict[str, int] = defaultdict(int)
    sent: list[OutRecord] = []
    refused: set[tuple[str, str]] = set()

    def publish(count: int) -> None:
        """New events, and now and then some that were sent before, as an outbox repeats them: in order by key."""
        batch: list[OutRecord] = []
        for _ in range(count):
            key = chance.choice(KEYS)
            numbers[key] += 1
            value = f"{numbers[key]}{'!' if chance.random() < 0.02 else ''}"
            if value.endswith("!"):
                refused.add((key, value))
            batch.append(record(key, value))
        again = sent[-chance.randint(1, 30) :] if sent and chance.random() < 0.5 else []
        sent.extend(batch)
        send(event_log, *again, *batch)

    unlucky = random.Random(seed + 1000)
    lock = threading.Lock()

    def handle(session: Session, event: Event[StringValue]) -> None:
        record_effect(session, event)
        if event.message.value.endswith("!"):
            raise InvalidEvent("REFUSED", "it says so")
        with lock:
            fails = unlucky.random() < 0.03
        if fails:
            raise ConnectionError("away for a moment")

    def member() -> Callable[[], None]:
        cap = DeadLetterCap(consecutive=1000, ratio=1.0)
        workers = chance.choice([1, 2, 4])
        runner = ConsumerRunner(event_log, db, GROUP, {TOPIC: {STRING: handle}}, cap=cap, workers=workers)
        return start(runner.run)

    members = [member()]
    for _ in range(5):
        publish(40)
        if len(members) > 1 and chance.random() < 0.5:
            members.pop(chance.randrange(len(members)))()
        else:
            members.append(member())
    eventually(lambda: lag(event_log) == 0)
    by_key: dict[str, list[str]] = defaultdict(list)
    for key, value in effects(db):
        by_key[key].append(value)
    for key, last in numbers.items():
        expected = [str(n) for n in range(1, last + 1) if (key, f"{n}!") not in refused]
        assert by_key[key] == expected
