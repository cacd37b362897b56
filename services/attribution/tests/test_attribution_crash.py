"""A service killed between taking an answer in and scoring it loses nothing and doubles nothing."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
from openledger.attribution.v1 import attribution_pb2
from openledger.inference.v1 import inference_pb2
from openledger.trainer.v1 import events_pb2, trainer_pb2
from sqlalchemy import Engine, event, func, select, text

from attribution import store
from attribution.events import inference_completed
from attribution.scoring import ScoringParameters
from attribution.worker import ScoringWorker
from servicekit import topics
from servicekit.database import engine, migrate, reading, transaction
from servicekit.eventlog.factory import open_event_log
from servicekit.events import from_record, new_event, to_record

World = Any


def until(condition: Callable[[], Any], timeout_s: float = 120) -> Any:
    end = time.monotonic() + timeout_s
    while not (found := condition()):
        assert time.monotonic() < end, f"condition was not met in {timeout_s} s"
        time.sleep(0.05)
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
    with (
        suppress(sqlite3.OperationalError),  # the database is being made
        closing(sqlite3.connect(f"file:{state}/attribution/attribution.db?mode=ro", uri=True)) as database,
    ):
        (answers,) = database.execute("SELECT count(*) FROM answers WHERE pending = ?", (pending,)).fetchone()
        return int(answers)
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
    producer.send([to_record(each) for each in sent])

    process = start(tmp_path, world)
    try:
        until(lambda: count(tmp_path, pending=True) == len(answers))  # their version is not known yet
        process.send_signal(signal.SIGKILL)
        process.wait(10)
        assert count(tmp_path, pending=False) == 0
        known = new_event(topics.MODEL_VERSION_V1, "models/colours", version, "test")
        # Every answer comes again, as from a sender that saw no acknowledgement.
        producer.send([to_record(each) for each in (*sent, known)])
        process = start(tmp_path, world)
        until(lambda: count(tmp_path, pending=False) == len(answers))
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait(10)

    consumer = log.consumer("test", [topics.ATTRIBUTION_SCORED_V1.name])
    events = [from_record(record) for _ in range(20) for record in consumer.poll(0.1, 100)]
    assert {each.type for each in events} == {attribution_pb2.AttributionScored.DESCRIPTOR.full_name}
    once = {each.id: each for each in events}  # the outbox may send an event again, under the same id
    assert sorted(each.key for each in once.values()) == sorted(answer.inference for answer in answers)
    log.close()


class Dies(RuntimeError):
    """Stands for a process that ends between two writes."""


def test_dying_between_record_and_event_leaves_neither(world: World, database_url: str) -> None:
    database = engine(database_url)
    migrate(database, "attribution")
    answer = world.answer("fire", "red", by_base=True)
    with transaction(database) as session:
        inference_completed(
            session, new_event(topics.INFERENCE_COMPLETED_V1, answer.inference, answer, "test")
        )
    worker = ScoringWorker(database, world.store, NoModels(), ScoringParameters())

    def die(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith("INSERT INTO outbox"):
            event.remove(database, "before_cursor_execute", die)
            raise Dies

    event.listen(database, "before_cursor_execute", die)
    assert worker.step()  # record written, event not: the transaction fails, the answer is postponed
    assert (scored(database), outbox_rows(database)) == (0, 0)
    until(worker.step)  # its turn comes again after a pause of a tenth of a second
    assert (scored(database), outbox_rows(database)) == (1, 1)
    assert not worker.step()
    database.dispose()


class NoModels:
    """An answer of the base model needs no model."""

    def vocabulary(self, base_digest: str) -> int:
        raise AssertionError

    def gradients(self, base_digest: str, adapter_digest: str, examples: Any) -> Any:
        raise AssertionError

    def log_likelihoods(self, base_digest: str, adapter_digest: str, example: Any) -> tuple[float, float]:
        raise AssertionError


def scored(database: Engine) -> int:
    with reading(database) as session:
        return session.scalar(select(func.count()).where(~store.AnswerRow.pending)) or 0


def outbox_rows(database: Engine) -> int:
    with reading(database) as session:
        return int(session.execute(text("SELECT count(*) FROM outbox")).scalar_one())
