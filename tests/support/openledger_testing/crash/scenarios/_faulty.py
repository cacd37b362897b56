"""Not a service: a program with the fault that the outbox exists to avoid. It publishes first and remembers afterwards."""

from __future__ import annotations

from pathlib import Path

from google.protobuf.wrappers_pb2 import StringValue

from openledger_testing.crash.stored_state import events
from servicekit.eventlog import Topic, open_event_log
from servicekit.eventlog.events import new_event, to_record
from servicekit.files import write_whole

TOPIC = Topic("area.published.v1")


def prepare(folder: Path) -> None:
    """Nothing is there at first."""


def live(folder: Path) -> None:
    log = open_event_log(f"embedded:{folder / 'events.db'}")
    log.ensure_topics([TOPIC])
    if not (folder / "published").exists():
        log.producer().send([to_record(new_event(TOPIC, "key", StringValue(value="it happened"), "test"))])
        write_whole(folder / "published", "")
    log.close()


def check(folder: Path) -> None:
    assert len(events(folder, TOPIC.name)) == 1, "it is published once"
