"""Operators see what consumers refused, and redrive it once the cause is fixed."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from openledger.datanet.v1 import datanet_pb2, events_pb2
from sqlalchemy import Engine, text
from sqlalchemy.orm import Session
from typer.testing import CliRunner, Result

from openledger_cli.__main__ import app
from openledger_client.errors import InvalidArgument as BadOption
from openledger_client.errors import OpenLedgerError
from openledger_ops.dead_letters import waiting_letters
from servicekit.database import engine, new_metadata, transaction
from servicekit.delivery.consumer import ConsumerRunner, Handler
from servicekit.errors import DomainError, FailedPrecondition, InvalidArgument, NotFound, StartupError
from servicekit.eventlog import EventLog, InRecord, OutRecord, Topic, open_event_log
from servicekit.eventlog.events import Event, InvalidEvent, from_record, new_event, to_record
from servicekit.eventlog.topics import DATANET_SNAPSHOT_V1 as TOPIC
from servicekit.testing.waiting import eventually

pytestmark = pytest.mark.slow

SEALED = events_pb2.SnapshotSealed.DESCRIPTOR.full_name
DEAD = TOPIC.name + ".dlq"


def sealed(name: str) -> Event[events_pb2.SnapshotSealed]:
    message = events_pb2.SnapshotSealed(snapshot=datanet_pb2.Snapshot(name=name))
    return new_event(TOPIC, "datanets/d", message, "openledger/test")


@dataclass
class Platform:
    """A platform's folder with its event log and the database of one group."""

    folder: Path
    log: EventLog
    db: Engine

    def send(self, *records: OutRecord) -> None:
        producer = self.log.producer()
        producer.send(records)
        producer.close()

    @contextmanager
    def consuming(self, handler: Handler, group: str = "trainer") -> Iterator[None]:
        """Run a group until it has read everything."""
        stop = threading.Event()
        runner = ConsumerRunner(self.log, self.db, group, {TOPIC: {SEALED: handler}})
        thread = threading.Thread(target=runner.run, args=(stop,))
        thread.start()
        try:
            eventually(lambda: sum(self.log.lag(group, TOPIC.name).values()) == 0, f"{group} to read all")
            yield
        finally:
            stop.set()
            thread.join()

    def effects(self) -> list[str]:
        with transaction(self.db) as session:
            return list(session.execute(text("SELECT name FROM effects ORDER BY at")).scalars())

    def run(self, *arguments: str) -> Result:
        """`openledger ARGUMENTS`."""
        return CliRunner().invoke(app, ["--state-dir", str(self.folder), *arguments], catch_exceptions=True)

    def json(self, *arguments: str) -> Any:
        result = self.run("--json", *arguments)
        assert result.exit_code == 0, f"{result.output} {result.exception}"
        return json.loads(result.output)

    def refused(self, *arguments: str) -> DomainError | OpenLedgerError | StartupError:
        error = self.run(*arguments).exception
        assert isinstance(error, DomainError | OpenLedgerError | StartupError), error
        return error


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Platform]:
    log = open_event_log(f"embedded:{tmp_path / 'events.db'}")
    log.ensure_topics([TOPIC])
    db = engine(f"sqlite:///{tmp_path}/service.db")
    new_metadata().create_all(db)
    with transaction(db) as session:
        session.execute(text("CREATE TABLE effects (at INTEGER PRIMARY KEY, name TEXT)"))
    yield Platform(tmp_path, log, db)
    log.close()
    db.dispose()


def accept(session: Session, event: Event[events_pb2.SnapshotSealed]) -> None:
    session.execute(text("INSERT INTO effects (name) VALUES (:n)"), {"n": event.message.snapshot.name})


def refuse(session: Session, event: Event[events_pb2.SnapshotSealed]) -> None:
    raise InvalidEvent("TEMPLATE", f"{event.message.snapshot.name} has no template")


@pytest.fixture
def refused(platform: Platform) -> Platform:
    """Three events that the group `trainer` has refused."""
    platform.send(*(to_record(sealed(f"datanets/d/snapshots/{n}")) for n in range(3)))
    with platform.consuming(refuse):
        pass
    return platform


def test_the_list_says_why_who_and_where(refused: Platform) -> None:
    found = refused.json("dlq", "list")
    assert [one["dlq_offset"] for one in found] == [0, 1, 2]
    first = found[0]
    assert (first["reason"], first["detail"]) == ("TEMPLATE", "datanets/d/snapshots/0 has no template")
    assert (first["group"], first["topic"], first["offset"]) == ("trainer", TOPIC.name, 0)
    assert first["redrives"] == []
    shown = refused.run("dlq", "list", TOPIC.name).output
    assert "TEMPLATE" in shown
    assert "trainer" in shown


def test_the_list_has_pages(refused: Platform) -> None:
    result = refused.run("dlq", "list", DEAD, "--limit", "2")
    assert "2 of 3; --from 2 or --limit shows more" in result.output
    rest = refused.json("dlq", "list", DEAD, *("--limit", "2"), *("--from", "2"))
    assert [one["dlq_offset"] for one in rest] == [2]


def test_the_list_is_filtered_and_sorted_as_every_other(refused: Platform) -> None:
    listed = refused.json("dlq", "list", "--filter", 'detail = "*snapshots/1*" OR dlq_offset = 2')
    assert [one["dlq_offset"] for one in listed] == [1, 2]
    assert refused.json("dlq", "list", "--filter", "redriven = true") == []
    latest = refused.json("dlq", "list", "--order-by", "dlq_offset desc", "--limit", "1")
    assert [one["dlq_offset"] for one in latest] == [2]
    wrong = CliRunner().invoke(
        app, ["--state-dir", str(refused.folder), "dlq", "list", "--filter", "size = 3"]
    )
    assert "dlq_offset" in str(wrong.exception)


def test_a_letter_is_shown_with_its_event_decoded(refused: Platform) -> None:
    shown = refused.json("dlq", "show", TOPIC.name, "1")
    assert shown["event"]["snapshot"]["name"] == "datanets/d/snapshots/1"
    assert shown["headers"]["ce_type"] == SEALED
    assert "dlq_reason" not in shown["headers"]


def test_what_is_no_event_is_shown_as_bytes_with_the_reason(platform: Platform) -> None:
    platform.send(replace(to_record(sealed("x")), value=b"\xff\xff"))
    with platform.consuming(accept):
        pass
    shown = platform.json("dlq", "show", TOPIC.name, "0")
    assert shown["value_base64"] == "//8="
    assert "2 bytes are no" in shown["undecoded"]


def test_a_redriven_event_takes_effect_in_the_group_that_refused_it_and_once(refused: Platform) -> None:
    refused.json("dlq", "redrive", TOPIC.name, "1")
    refused.json("dlq", "redrive", TOPIC.name, "1", "--again")
    with refused.consuming(accept):
        pass
    assert refused.effects() == ["datanets/d/snapshots/1"]


def test_a_redrive_keeps_the_events_headers_and_id(refused: Platform) -> None:
    refused.json("dlq", "redrive", TOPIC.name, "0")
    originals = [record for record in in_topic(refused.log) if record.offset == 0]
    again = [record for record in in_topic(refused.log) if record.offset > 2]
    assert from_record(again[0]) == from_record(originals[0])
    assert again[0].headers == (*originals[0].headers, ("dlq_redrive_for", b"trainer"))


def test_redrives_and_notes_of_the_first_release_are_still_understood(refused: Platform) -> None:
    refused.log.ensure_topics([Topic(f"{TOPIC.name}.dlq.replays")])  # old name
    old_note = (
        ("dlq_note_of", b"0"),
        ("dlq_note_time", b"2026-01-01T00:00:00+00:00"),
        ("dlq_note_by", b"ann"),
    )
    refused.send(OutRecord(f"{TOPIC.name}.dlq.replays", b"k", b"", old_note))  # old name
    assert "by ann" in str(refused.refused("dlq", "redrive", TOPIC.name, "0"))
    event = to_record(sealed("datanets/d/snapshots/9"))
    refused.send(replace(event, headers=(*event.headers, ("dlq_replay_for", b"relay"))))  # old name
    with refused.consuming(accept):
        pass
    assert refused.effects() == []


def test_a_redrive_has_no_effect_in_a_group_that_had_not_refused_it(refused: Platform) -> None:
    with refused.consuming(accept, group="relay"):
        pass
    with transaction(refused.db) as session:  # long ago: its inbox has forgotten
        session.execute(text("DELETE FROM inbox WHERE consumer = 'relay'"))
    refused.json("dlq", "redrive", TOPIC.name, "--all")
    with refused.consuming(accept, group="relay"):
        pass
    assert refused.effects() == [f"datanets/d/snapshots/{n}" for n in range(3)]


def test_a_second_redrive_is_refused_and_says_who_did_the_first(refused: Platform) -> None:
    refused.json("dlq", "redrive", TOPIC.name, "0", *("--by", "ann"))
    error = refused.refused("dlq", "redrive", TOPIC.name, "0")
    assert isinstance(error, FailedPrecondition)
    assert "by ann" in str(error)
    assert "--again" in str(error)


def test_all_means_what_was_not_redriven_yet(refused: Platform) -> None:
    refused.json("dlq", "redrive", TOPIC.name, "0")
    assert [one["dlq_offset"] for one in refused.json("dlq", "redrive", TOPIC.name, "--all")] == [1, 2]
    assert refused.json("dlq", "list", "--waiting") == []
    assert len(refused.json("dlq", "list")) == 3
    assert refused.json("dlq", "redrive", TOPIC.name, "--all") == []


def test_the_doctor_counts_what_still_waits(refused: Platform, tmp_path: Path) -> None:
    assert waiting_letters(refused.folder, DEAD, 3) == 3
    refused.json("dlq", "redrive", TOPIC.name, "0")
    refused.json("dlq", "redrive", TOPIC.name, "0", "--again")
    assert waiting_letters(refused.folder, DEAD, 3) == 2
    refused.json("dlq", "redrive", TOPIC.name, "--all")
    assert waiting_letters(refused.folder, DEAD, 3) == 0
    assert waiting_letters(tmp_path / "elsewhere", DEAD, 3) is None


def test_the_log_of_another_platform_does_not_make_all_well(platform: Platform) -> None:
    assert waiting_letters(platform.folder, DEAD, 3) is None


def test_what_is_refused_again_after_a_redrive_is_a_letter_again(refused: Platform) -> None:
    refused.json("dlq", "redrive", TOPIC.name, "2")
    with refused.consuming(refuse):
        pass
    found = refused.json("dlq", "list", "--waiting")
    assert [one["dlq_offset"] for one in found] == [0, 1, 3]
    refused.json("dlq", "redrive", TOPIC.name, "3")
    with refused.consuming(accept):
        pass
    assert refused.effects() == ["datanets/d/snapshots/2"]


def test_a_value_too_large_to_come_along_is_fetched_from_where_it_stood(platform: Platform) -> None:
    platform.send(to_record(sealed("small")), to_record(sealed("x" * 999_600)))
    with platform.consuming(refuse):
        pass
    assert (
        platform.json("dlq", "show", TOPIC.name, "1")["undecoded"]
        == "the value was too large for the dead letter"
    )
    platform.json("dlq", "redrive", TOPIC.name, "1")
    *_, again = in_topic(platform.log)
    assert len(from_record(again).message.snapshot.name) == 999_600


def test_one_at_the_very_limit_is_refused_with_the_reason(platform: Platform) -> None:
    empty = to_record(sealed("x" * 900_000))
    platform.send(to_record(sealed("x" * (900_000 + 1_000_000 - empty.size()))))
    with platform.consuming(refuse):
        pass
    assert "the log allows 1000000" in str(platform.refused("dlq", "redrive", TOPIC.name, "0"))


@pytest.mark.parametrize(
    ("arguments", "kind", "said"),
    [
        (["show", "no.such.v1", "0"], InvalidArgument, "datanet.snapshot.v1"),
        (["show", TOPIC.name, "7"], NotFound, "offset 7"),
        (["redrive", TOPIC.name], BadOption, "--all"),
        (["redrive", TOPIC.name, "1", "--all"], BadOption, "--all"),
        (["list", "--from", "3"], BadOption, "topic"),
    ],
)
def test_a_wrong_command_is_answered_with_what_would_be_right(
    refused: Platform, arguments: list[str], kind: type[Exception], said: str
) -> None:
    error = refused.refused("dlq", *arguments)
    assert isinstance(error, kind)
    assert said in str(error)


def test_looking_does_not_make_a_log_where_there_is_none(tmp_path: Path) -> None:
    error = CliRunner().invoke(app, ["--state-dir", str(tmp_path), "dlq", "list"]).exception
    assert isinstance(error, StartupError)
    assert "no event log at" in str(error)
    assert not (tmp_path / "events.db").exists()


def in_topic(log: EventLog) -> list[InRecord]:
    consumer = log.consumer("test-reader", [TOPIC.name])
    found: list[InRecord] = []
    count = sum(log.end_offsets(TOPIC.name).values())
    while len(found) < count:
        found += consumer.poll(5)
    consumer.close()
    return found
