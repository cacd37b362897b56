"""What releases wrote, as bytes in the log, is still read: by the decoder, and by every service that consumes it.

`tools/record_events.py` says what a recording is and makes those of a new release. A recording is never changed.
"""

from __future__ import annotations

import importlib
import json
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from google.protobuf import json_format, unknown_fields
from prometheus_client import REGISTRY
from sqlalchemy import Engine

from attribution import events as attribution_events
from chain_relay import events as relay_events
from chain_relay.answers import Terms
from chain_relay.fee import Rates
from chain_relay.split import Accounts, SplitBps
from inference import events as inference_events
from servicekit.database import engine, migrate
from servicekit.delivery.consumer import BatchHandler, ConsumerRunner, Handler
from servicekit.eventlog import EventLog, InRecord, OutRecord, Topic, open_event_log, topics
from servicekit.eventlog.events import Event, from_record, to_record
from servicekit.testing.waiting import eventually
from servicekit.wal import unpack
from trainer import events as trainer_events

_RECORDED = Path(__file__).parent / "recorded"
_FILES = sorted(_RECORDED.glob("*/*.bin"))
_REGISTRY = Path(__file__).resolve().parents[2] / "proto" / "topics"
_GENERATED = Path(__file__).resolve().parents[2] / "proto" / "python"
_ACCOUNT = "0x5FbDB2315678afecb367f032d93F642f64180aa3"
_TERMS = Terms(
    Rates(rate_in=10_000, rate_out=20_000, platform_fee=500),
    SplitBps(platform=1000, model_owner=2500, stakers=500, contributors=6000),
    Accounts(_ACCOUNT, _ACCOUNT, {}),
)
_SNAPSHOT, _VERSION = "openledger.datanet.v1.SnapshotSealed", "openledger.trainer.v1.ModelVersionChanged"
_ANSWER = "openledger.inference.v1.InferenceCompleted"
_SCORED = "openledger.attribution.v1.AttributionScored"


@dataclass(frozen=True)
class Listener:
    """What a service does with events, as it declares to its `Service`."""

    package: str
    handlers: Mapping[str | Topic, Mapping[str, Handler | BatchHandler]]


_LISTENERS = {
    "attribution": Listener(
        "attribution",
        {
            topics.DATANET_SNAPSHOT_V1: {_SNAPSHOT: attribution_events.snapshot_sealed},
            topics.MODEL_VERSION_V1: {_VERSION: attribution_events.model_version_changed},
            topics.INFERENCE_COMPLETED_V1: {_ANSWER: BatchHandler(attribution_events.inferences_completed)},
        },
    ),
    "chain-relay": Listener(
        "chain_relay",
        {
            topics.DATANET_SNAPSHOT_V1: {_SNAPSHOT: relay_events.snapshot_sealed},
            topics.MODEL_VERSION_V1: {_VERSION: relay_events.model_version_changed},
            topics.ATTRIBUTION_SCORED_V1: {
                _SCORED: partial(relay_events.attribution_scored, terms=_TERMS),
            },
        },
    ),
    "inference": Listener(
        "inference", {topics.MODEL_VERSION_V1: {_VERSION: inference_events.model_version_changed}}
    ),
    "trainer": Listener("trainer", {topics.DATANET_SNAPSHOT_V1: {_SNAPSHOT: trainer_events.snapshot_sealed}}),
}


@pytest.fixture(scope="module", autouse=True)
def all_types_known() -> None:
    for path in sorted((_GENERATED / "openledger").rglob("*_pb2.py")):
        importlib.import_module(".".join(path.relative_to(_GENERATED).with_suffix("").parts))


@pytest.fixture
def log(tmp_path: Path) -> Iterator[EventLog]:
    opened = open_event_log(f"embedded:{tmp_path / 'events.db'}")
    yield opened
    opened.close()


def as_read(record: OutRecord) -> InRecord:
    """Returns a record as a consumer reads it."""
    return InRecord(
        topic=record.topic,
        partition=0,
        offset=0,
        timestamp_ms=0,
        key=record.key,
        value=record.value,
        headers=record.headers,
    )


def recorded(path: Path) -> InRecord:
    record = unpack(path.read_bytes())
    return as_read(record)


def unknown_in(message: Any) -> list[str]:
    """Messages, at any depth, that hold a field this program does not know."""
    found = [message.DESCRIPTOR.full_name] if len(unknown_fields.UnknownFieldSet(message)) else []
    for field, value in message.ListFields():
        if field.message_type is None or field.message_type.GetOptions().map_entry:
            continue
        for part in value if field.is_repeated else [value]:
            found += unknown_in(part)
    return found


def test_every_message_of_every_topic_is_recorded() -> None:
    needed = {
        name for path in _REGISTRY.glob("*.yaml") for name in yaml.safe_load(path.read_text())["messages"]
    }
    for kind in ("sent", "whole"):
        have = {path.name.removesuffix(f".{kind}.bin") for path in _RECORDED.glob(f"*/*.{kind}.bin")}
        assert needed <= have, f"no {kind} recording: make one with tools/record_events.py"


@pytest.mark.parametrize("path", _FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_recording_reads_as_it_did_when_it_was_written(path: Path) -> None:
    event = from_record(recorded(path))
    assert event.type == path.stem.rpartition(".")[0]
    assert event.type in topics.BY_NAME[event.topic].messages
    assert unknown_in(event.message) == []
    now = json_format.MessageToDict(event.message, preserving_proto_field_name=True)
    assert now == json.loads(path.with_suffix(".json").read_text())


@pytest.mark.parametrize("path", _FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_recording_written_again_says_the_same(path: Path) -> None:
    event: Event[Any] = from_record(recorded(path))
    again = to_record(event)
    assert from_record(as_read(again)) == event
    assert sorted(again.headers) == sorted(recorded(path).headers)


def test_consumers_are_those_of_the_registry() -> None:
    by_topic: dict[str, set[str]] = {}
    for name, listener in _LISTENERS.items():
        for topic in listener.handlers:
            by_topic.setdefault(topic.name if isinstance(topic, Topic) else topic, set()).add(name)
    for path in _REGISTRY.glob("*.yaml"):
        entry = yaml.safe_load(path.read_text())
        assert by_topic.get(entry["topic"], set()) == set(entry["consumers"]), entry["topic"]


def _sent(version: str) -> list[Path]:
    """Returns what a version sent. A folder that is not of a release has one changed event; the rest is of the first release."""
    own = sorted((_RECORDED / version).glob("*.sent.bin"))
    return own if version.startswith("v") else [*sorted((_RECORDED / "v0.1.0").glob("*.sent.bin")), *own]


@pytest.mark.parametrize("service", _LISTENERS)
@pytest.mark.parametrize("version", sorted(path.name for path in _RECORDED.iterdir() if path.is_dir()))
def test_a_service_takes_in_every_recording_it_listens_to(
    service: str, version: str, log: EventLog, tmp_path: Path
) -> None:
    listener = _LISTENERS[service]
    database = _migrated(tmp_path, listener.package)
    needed = {name for types in listener.handlers.values() for name in types}
    by_type = {_type_of(path): path for path in _sent(version)}
    assert needed <= set(by_type)
    files = [by_type[name] for name in sorted(needed)]
    runner = ConsumerRunner(log, database, f"{service} {version}", listener.handlers)
    log.ensure_topics(topics.ALL)
    producer = log.producer()
    producer.send([unpack(path.read_bytes()) for path in files])
    _run_until_read(runner, log, f"{service} {version}", listener)
    assert sum(log.end_offsets(topic.name + ".dlq")[0] for topic in _topics_of(listener)) == 0
    handled = sum(_handled(f"{service} {version}", topic.name) for topic in _topics_of(listener))
    assert handled == len(files)


def _type_of(path: Path) -> str:
    return path.stem.rpartition(".")[0]


def _migrated(folder: Path, package: str) -> Engine:
    made = engine(f"sqlite:///{folder}/service.db")
    migrate(made, package)
    return made


def _topics_of(listener: Listener) -> list[Topic]:
    return [topic if isinstance(topic, Topic) else topics.BY_NAME[topic] for topic in listener.handlers]


def _run_until_read(runner: ConsumerRunner, log: EventLog, group: str, listener: Listener) -> None:
    stop = threading.Event()
    thread = threading.Thread(target=runner.run, args=(stop,))
    thread.start()

    def left() -> int:
        return sum(sum(log.lag(group, topic.name).values()) for topic in _topics_of(listener))

    try:
        eventually(lambda: left() == 0, f"{group} to read all")
    finally:
        stop.set()
        thread.join()


def _handled(group: str, topic: str) -> float:
    labels = {"group": group, "topic": topic, "outcome": "handled"}
    return REGISTRY.get_sample_value("openledger_consumer_records_total", labels) or 0.0
