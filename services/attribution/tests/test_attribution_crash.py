"""A service killed between taking an answer in and scoring it loses nothing and doubles nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from openledger.attribution.v1 import attribution_pb2
from openledger.inference.v1 import inference_pb2
from openledger.trainer.v1 import events_pb2, trainer_pb2
from sqlalchemy import func, select
from sqlalchemy.exc import OperationalError

from attribution import store
from servicekit import topics
from servicekit.database import engine, reading
from servicekit.eventlog.factory import open_event_log
from servicekit.events import from_record, new_event, to_record

World = Any


def until(condition: Callable[[], Any], timeout_s: float = 120) -> Any:
    end = time.monotonic() + timeout_s
    while not (found := condition()):
        assert time.monotonic() < end, f"condition was not met in {timeout_s} s"
        time.sleep(0.005)
    return found


def start(state: Path, world: World) -> subprocess.Popen[bytes]:
    environment = os.environ | {
        "OPENLEDGER_STATE_DIR": str(state),
        "OPENLEDGER_AUTH_MODE": "development",
        "OMP_NUM_THREADS": "1",
        "OPENLEDGER_OBJECT_STORE": str(world.folder / "objects"),
        "OPENLEDGER_ATTRIBUTION_BATCH_TOKENS": "64",
    }
    return subprocess.Popen(
        [sys.executable, "-m", "attribution"],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=(state / "log").open("ab"),
    )


def count(state: Path, pending: bool) -> int:
    with suppress(OperationalError):  # the database is being made
        database = engine(f"sqlite:///{state}/attribution/attribution.db")
        try:
            with reading(database) as session:
                return session.scalar(select(func.count()).where(store.AnswerRow.pending == pending)) or 0
        finally:
            database.dispose()
    return 0


@pytest.mark.server
def test_killed_with_answers_pending_it_scores_each_once_when_it_is_back(
    world: World, tmp_path: Path
) -> None:
    log = open_event_log(f"embedded:{tmp_path}/events.db")
    log.ensure_topics([*topics.ALL])
    version = events_pb2.ModelVersionChanged(
        model_version=trainer_pb2.ModelVersion(
            name=world.version,
            state=trainer_pb2.MODEL_VERSION_STATE_PROMOTED,
            digest=world.version_digest,
            base_digest=world.base_digest,
            adapter_digest=world.adapter_digest,
            training_manifest_digest=world.manifest_digest,
        )
    )
    answers: list[inference_pb2.InferenceCompleted] = [
        world.answer(f"fire ember flame ash {number}", "red") for number in range(6)
    ]
    sent = [new_event(topics.INFERENCE_COMPLETED_V1, answer.inference, answer, "test") for answer in answers]
    producer = log.producer()
    producer.send(
        [
            to_record(new_event(topics.MODEL_VERSION_V1, "models/colours", version, "test")),
            *(to_record(event) for event in sent),
        ]
    )

    process = start(tmp_path, world)
    try:
        until(lambda: count(tmp_path, pending=True) == len(answers))  # taken in; the index is not there yet
        process.send_signal(signal.SIGKILL)
        process.wait(10)
        assert count(tmp_path, pending=False) == 0
        producer.send([to_record(event) for event in sent])  # what a sender that saw no answer would do
        process = start(tmp_path, world)
        until(lambda: count(tmp_path, pending=False) >= 2)
        process.send_signal(signal.SIGKILL)  # now between one answer and the next, or within a transaction
        process.wait(10)
        process = start(tmp_path, world)
        until(lambda: count(tmp_path, pending=False) == len(answers))
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait(10)

    consumer = log.consumer("test", [topics.ATTRIBUTION_SCORED_V1.name])
    events = [from_record(record) for _ in range(20) for record in consumer.poll(0.1, 100)]
    assert {event.type for event in events} == {attribution_pb2.AttributionScored.DESCRIPTOR.full_name}
    once = {event.id: event for event in events}  # the outbox may send an event again, under the same id
    assert sorted(event.key for event in once.values()) == sorted(answer.inference for answer in answers)
    log.close()
