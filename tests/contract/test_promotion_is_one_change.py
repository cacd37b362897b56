"""A promotion and the retirement that comes with it are one change to readers: a model always has a promoted version."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from openledger.trainer.v1 import events_pb2, trainer_pb2
from sqlalchemy import Engine, delete, select

from identity.names import ModelVersionName
from inference import store
from inference.catalogue import VersionState as ServedState
from inference.events import model_version_changed
from inference.read_model import ReadModel
from openledger_testing.concurrent_writers import add_trained_version
from servicekit.auth import Principal
from servicekit.database import engine, migrate, transaction
from servicekit.database.request_ids import RequestId
from servicekit.errors import DomainError
from servicekit.eventlog.base import InRecord
from servicekit.eventlog.events import Event, from_record, new_event
from servicekit.eventlog.topics import MODEL_VERSION_V1
from servicekit.objects import ObjectStore
from trainer.entities import VersionState
from trainer.gate_policies import GatePolicies
from trainer.gate_policy import shipped_default
from trainer.promotion import Promotions
from trainer.store import policies, versions
from trainer.store.tables import Base

PROMOTIONS = 200
READERS = 8
DIGEST = "sha256:" + "0" * 64
ALICE = Principal("alice")
MODEL = "models/m"


def migrated(folder: Path, service: str) -> Engine:
    database = engine(f"sqlite:///{folder / service}.db")
    migrate(database, service)
    return database


def evaluated(database: Engine, number: int) -> None:
    """Adds the next version of the model, whose report passed the gate."""
    name = ModelVersionName("m", number)
    with transaction(database) as session:
        add_trained_version(session, RequestId.of("alice", trainer_pb2.CreateTrainingRunRequest()))
        versions.set_report(session, name, DIGEST, "pass", policies.put(session, shipped_default()))
        versions.move(session, name, VersionState.EVALUATED, "trainer", "its report passed")


def published(database: Engine) -> list[Event[events_pb2.ModelVersionChanged]]:
    """Takes what the trainer has to publish out of its outbox, in order."""
    outbox = Base.metadata.tables["outbox"]
    with transaction(database) as session:
        rows = session.execute(select(outbox).order_by(outbox.c.seq)).all()
        session.execute(delete(outbox))
    return [
        from_record(
            InRecord(
                topic=row.topic,
                partition=0,
                offset=0,
                timestamp_ms=0,
                key=row.key,
                value=row.value,
                headers=tuple((name, value.encode()) for name, value in json.loads(row.headers)),
            )
        )
        for row in rows
    ]


@contextmanager
def reading_all_the_time(read_model: ReadModel, failures: list[DomainError]) -> Iterator[None]:
    """Resolves the model's name in 8 threads until the block ends."""
    stop = threading.Event()

    def read() -> None:
        while not stop.wait(0.001):
            try:
                read_model.catalogue.resolve(MODEL)
            except DomainError as error:
                failures.append(error)

    threads = [threading.Thread(target=read) for _ in range(READERS)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_no_request_fails_in_200_promotions_under_8_streams(tmp_path: Path) -> None:
    trainer, inference = migrated(tmp_path, "trainer"), migrated(tmp_path, "inference")
    objects = ObjectStore(tmp_path / "objects")
    GatePolicies(trainer, objects).add_default()
    promotion = Promotions(trainer, objects)
    read_model = ReadModel(inference, "baseModels/tiny", DIGEST, lambda served: None)

    def promote(number: int) -> None:
        once = RequestId.of("alice", trainer_pb2.PromoteModelVersionRequest())
        promotion.promote(ALICE, ModelVersionName("m", number), None, once)
        for event in published(trainer):
            with transaction(inference) as session:
                model_version_changed(session, event)
            read_model.refresh()
            # Whatever event was read last, the model has a promoted version.
            seen.append(read_model.catalogue.resolve(MODEL).name)

    seen: list[str] = []
    for number in (1, 2):
        evaluated(trainer, number)
    promote(1)
    failures: list[DomainError] = []
    with reading_all_the_time(read_model, failures):
        for round_ in range(PROMOTIONS):
            promote(2 - round_ % 2)
            assert seen[-1] == f"{MODEL}/versions/{2 - round_ % 2}"
            served = read_model.catalogue.served()
            assert [each.name for each in served] == ["baseModels/tiny", seen[-1]]
    assert failures == []


def test_a_late_retirement_of_a_version_promoted_again_changes_nothing(tmp_path: Path) -> None:
    trainer, inference = migrated(tmp_path, "trainer"), migrated(tmp_path, "inference")
    objects = ObjectStore(tmp_path / "objects")
    GatePolicies(trainer, objects).add_default()
    promotion = Promotions(trainer, objects)
    for number in (1, 2):
        evaluated(trainer, number)
    for number in (1, 2, 1):
        once = RequestId.of("alice", trainer_pb2.PromoteModelVersionRequest())
        promotion.promote(ALICE, ModelVersionName("m", number), None, once)
    events = published(trainer)
    alone = [
        each for each in events if each.message.model_version.state == trainer_pb2.MODEL_VERSION_STATE_RETIRED
    ]
    read_model = ReadModel(inference, "baseModels/tiny", DIGEST, lambda served: None)
    for event in [*events, *alone]:
        with transaction(inference) as session:
            model_version_changed(session, event)
    read_model.refresh()
    assert read_model.catalogue.resolve(MODEL).name == "models/m/versions/1"


def test_events_of_the_old_form_still_move_a_model(tmp_path: Path) -> None:
    inference = migrated(tmp_path, "inference")
    for minute, (number, state) in enumerate([(1, "PROMOTED"), (1, "RETIRED"), (2, "PROMOTED")]):
        version = trainer_pb2.ModelVersion(
            name=f"{MODEL}/versions/{number}",
            state=getattr(trainer_pb2, f"MODEL_VERSION_STATE_{state}"),
            digest=DIGEST,
            base_digest=DIGEST,
            adapter_digest=DIGEST,
            owner="alice",
        )
        message = events_pb2.ModelVersionChanged(model_version=version)
        message.event_time.FromSeconds(1_000_000 + 60 * minute)
        with transaction(inference) as session:
            model_version_changed(session, new_event(MODEL_VERSION_V1, MODEL, message, "openledger/trainer"))
    read_model = ReadModel(inference, "baseModels/tiny", DIGEST, lambda served: None)
    assert read_model.catalogue.resolve(MODEL).name == f"{MODEL}/versions/2"
    with transaction(inference) as session:
        states = {each.name: each.state for each in store.versions(session)}
    assert states[f"{MODEL}/versions/1"] is ServedState.RETIRED
