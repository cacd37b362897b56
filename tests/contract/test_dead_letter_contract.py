"""What a consumer refused goes back to it through the operators' desk, on both event logs."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from openledger.trainer.v1 import events_pb2, trainer_pb2
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from openledger_ops.dead_letters import DeadLetters
from servicekit.database import engine, new_metadata
from servicekit.delivery.consumer import ConsumerRunner, Handler
from servicekit.errors import FailedPrecondition
from servicekit.eventlog import EventLog, EventLogUnavailable
from servicekit.eventlog.base import MAX_RECORD_BYTES
from servicekit.eventlog.events import Event, InvalidEvent, new_event, to_record
from servicekit.eventlog.topics import TRAINING_RUN_V1 as TOPIC
from servicekit.testing.waiting import eventually

CHANGED = events_pb2.TrainingRunChanged.DESCRIPTOR.full_name
GROUP = "contract-dead-letters"


@pytest.fixture
def db(tmp_path: Path) -> Engine:
    made = engine(f"sqlite:///{tmp_path}/service.db")
    new_metadata().create_all(made)
    return made


@contextmanager
def consuming(log: EventLog, db: Engine, handler: Handler) -> Iterator[None]:
    """The group, until it has read everything."""
    stop = threading.Event()
    runner = ConsumerRunner(log, db, GROUP, {TOPIC: {CHANGED: handler}}, workers=2)
    thread = threading.Thread(target=runner.run, args=(stop,))
    thread.start()
    try:
        eventually(lambda: _lag(log) == 0, "the group to read all")
        yield
    finally:
        stop.set()
        thread.join()


def _lag(log: EventLog) -> int:
    """What is left to read; 1 while a broker that has just started can't say."""
    try:
        return sum(log.lag(GROUP, TOPIC.name).values())
    except EventLogUnavailable:
        return 1


def changed(name: str) -> Event[events_pb2.TrainingRunChanged]:
    message = events_pb2.TrainingRunChanged(run=trainer_pb2.TrainingRun(name=name))
    return new_event(TOPIC, name[:5], message, "openledger/test")


def test_a_refused_event_takes_effect_once_after_a_redrive_also_one_too_large_to_move(
    log: EventLog, db: Engine
) -> None:
    log.ensure_topics([TOPIC])
    large = (
        900_000 + MAX_RECORD_BYTES - 60 - to_record(changed("x" * 900_000)).size()
    )  # room for the redrive's header
    names = ["small", "x" * large]
    events = [changed(name) for name in names]
    producer = log.producer()
    producer.send([to_record(event) for event in events])
    seen: list[str] = []

    def refuse(session: Session, event: Event[events_pb2.TrainingRunChanged]) -> None:
        raise InvalidEvent("NOT_NOW", "not understood by this release")

    def accept(session: Session, event: Event[events_pb2.TrainingRunChanged]) -> None:
        seen.append(event.message.run.name)

    with consuming(log, db, refuse):
        pass
    desk = DeadLetters(log, TOPIC.name + ".dlq")
    letters = desk.letters()
    assert sorted(letter.event_id for letter in letters) == sorted(event.id for event in events)
    assert {(letter.reason, letter.group, letter.topic) for letter in letters} == {
        ("NOT_NOW", GROUP, TOPIC.name)
    }
    assert sorted(letter.left_out for letter in letters) == [False, True]
    for letter in letters:
        desk.redrive(letter, "ann", again=False)
        desk.redrive(letter, "ann", again=True)
    with pytest.raises(FailedPrecondition, match="by ann"):
        desk.redrive(desk.letter(letters[0].record.offset), "bob", again=False)
    with consuming(log, db, accept):
        pass
    assert sorted(seen) == sorted(names)
