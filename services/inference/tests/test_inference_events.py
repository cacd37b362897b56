"""Claims about model versions coming in and answers going out."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from openledger.inference.v1 import inference_pb2 as pb
from openledger.trainer.v1 import events_pb2, trainer_pb2
from sqlalchemy import Engine

from inference import store
from inference.answer import Answer, Finish, Request
from inference.answer_log import AnswerLog
from inference.catalogue import Served
from inference.events import inference_completed, model_version_changed
from inference.read_model import ReadModel
from inference.sampling import Sampling
from servicekit.database import engine, migrate, schema_differences, transaction
from servicekit.errors import DomainError, ResourceExhausted, Unavailable
from servicekit.eventlog.events import Event, InvalidEvent, new_event
from servicekit.eventlog.topics import MODEL_VERSION_V1
from servicekit.testing.waiting import LONGEST_S

BASE = "sha256:" + "b" * 64
NOW = datetime(2026, 1, 1, tzinfo=UTC)
PROMOTED = trainer_pb2.MODEL_VERSION_STATE_PROMOTED
BLOCKED = trainer_pb2.MODEL_VERSION_STATE_BLOCKED
RETIRED = trainer_pb2.MODEL_VERSION_STATE_RETIRED
_NEVER_S = 3600.0


@pytest.fixture
def database(database_url: str) -> Iterator[Engine]:
    one = engine(database_url)
    migrate(one, "inference")
    yield one
    one.dispose()


def changed(name: str, state: Any, minutes: int = 0, **fields: Any) -> Event[events_pb2.ModelVersionChanged]:
    version = trainer_pb2.ModelVersion(
        name=name, state=state, base_digest=BASE, adapter_digest=f"sha256:{name}", owner="owner", digest="v"
    )
    for field, value in fields.items():
        setattr(version, field, value)
    message = events_pb2.ModelVersionChanged(model_version=version)
    message.event_time.FromDatetime(NOW + timedelta(minutes=minutes))
    return new_event(MODEL_VERSION_V1, name, message, "openledger/trainer")


def apply(database: Engine, *events: Event[Any]) -> None:
    for event in events:
        with transaction(database) as session:
            model_version_changed(session, event)


def test_migrations_make_the_declared_tables(database: Engine) -> None:
    assert schema_differences(database, store.Base.metadata) == []


def test_a_promotion_is_served_and_announced_once_and_a_block_ends_it(database: Engine) -> None:
    announced: list[str] = []
    read_model = ReadModel(database, "baseModels/tiny", BASE, lambda served: announced.append(served.name))
    name = "models/m/versions/1"
    apply(database, changed(name, PROMOTED))
    read_model.refresh()
    read_model.refresh()
    assert announced == [name]
    assert read_model.catalogue.resolve("models/m").name == name
    apply(database, changed(name, BLOCKED, 1))
    read_model.refresh()
    with pytest.raises(DomainError) as caught:
        read_model.catalogue.resolve(name)
    assert caught.value.reason == "MODEL_VERSION_BLOCKED"


def test_a_restart_serves_the_same_at_once(database: Engine) -> None:
    apply(
        database,
        changed("models/m/versions/1", PROMOTED),
        changed("models/m/versions/2", PROMOTED, 1),
        changed("models/m/versions/1", RETIRED, 2),
    )
    announced: list[str] = []
    read_model = ReadModel(database, "baseModels/tiny", BASE, lambda served: announced.append(served.name))
    assert [served.name for served in read_model.catalogue.served()] == [
        "baseModels/tiny",
        "models/m/versions/2",
    ]
    assert announced == ["models/m/versions/2"]


def test_a_running_read_model_notices_a_promotion_of_another_process(database: Engine) -> None:
    noticed = threading.Event()
    read_model = ReadModel(database, "baseModels/tiny", BASE, lambda served: noticed.set())
    with looping(read_model):
        apply(database, changed("models/m/versions/1", PROMOTED))
        assert noticed.wait(LONGEST_S)


def test_a_commit_wakes_the_read_model(database: Engine) -> None:
    noticed = threading.Event()
    read_model = ReadModel(database, "baseModels/tiny", BASE, lambda served: noticed.set(), poll_s=_NEVER_S)
    with looping(read_model):
        with transaction(database) as session:
            model_version_changed(session, changed("models/m/versions/1", PROMOTED))
            read_model.refresh_after(session)
        assert noticed.wait(LONGEST_S)


@contextmanager
def looping(read_model: ReadModel) -> Iterator[None]:
    """Runs a read model's loop."""
    stop = threading.Event()
    thread = threading.Thread(target=read_model.loop, args=(stop,))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(LONGEST_S)


def test_an_older_event_that_comes_later_changes_nothing(database: Engine) -> None:
    name = "models/m/versions/1"
    apply(database, changed(name, BLOCKED, 5), changed(name, PROMOTED, 1))
    read_model = ReadModel(database, "baseModels/tiny", BASE, lambda served: None)
    assert [served.name for served in read_model.catalogue.served()] == ["baseModels/tiny"]


@pytest.mark.parametrize(
    "event",
    [
        changed("models/m", PROMOTED),
        changed("models/m/versions/1", trainer_pb2.MODEL_VERSION_STATE_UNSPECIFIED),
        changed("models/m/versions/1", PROMOTED, base_digest=""),
        changed("models/m/versions/1", PROMOTED, adapter_digest=""),
    ],
    ids=["name", "state", "base", "adapter"],
)
def test_an_event_that_names_no_version_is_invalid(database: Engine, event: Event[Any]) -> None:
    with pytest.raises(InvalidEvent):
        apply(database, event)


def answer() -> Answer:
    request = Request(
        inference="inferences/01KCB3Q6Z4S0V6XG1V2C3D4E5F",
        served=Served(
            name="models/m/versions/1",
            base_digest=BASE,
            adapter_digest="sha256:a",
            version_digest="sha256:v",
            report_digest="sha256:r",
            owner="owner",
            is_default=True,
        ),
        prompt="what?",
        prompt_tokens=(1, 2, 3),
        sampling=Sampling(max_output_tokens=16, temperature=0.5, top_p=0.9, seed=7, stop=("\n",)),
        principal="alice",
        request_id="r1",
        received=NOW,
    )
    return Answer(
        request=request,
        output_tokens=(4, 5),
        log_probabilities=(-0.5, -1.5),
        text="that",
        finish=Finish.STOP,
        time_to_first_token_s=0.1,
        duration_s=0.3,
        finished=NOW + timedelta(seconds=1),
    )


def test_an_answers_event_carries_what_attribution_and_the_fee_need() -> None:
    event = inference_completed(answer(), (), "cpu/float32")
    message = event.message
    assert event.id == "01KCB3Q6Z4S0V6XG1V2C3D4E5F"
    assert event.key == message.inference == "inferences/01KCB3Q6Z4S0V6XG1V2C3D4E5F"
    assert message.model.adapter_digest == "sha256:a"
    assert message.model.report_digest == "sha256:r"
    assert list(message.prompt_token_ids) == [1, 2, 3]
    assert list(message.output_token_ids) == [4, 5]
    assert list(message.output_log_probabilities) == [-0.5, -1.5]
    assert (message.usage.input_tokens, message.usage.output_tokens) == (3, 2)
    assert (message.prompt, message.output) == ("what?", "that")
    assert message.sampling.seed == 7
    assert list(message.sampling.stop) == ["\n"]
    assert message.reason == pb.FINISH_REASON_STOP
    assert (message.principal, message.model_owner, message.request_id) == ("alice", "owner", "r1")
    assert message.finish_time.ToDatetime(UTC) == NOW + timedelta(seconds=1)
    assert message.compute == "cpu/float32"
    assert not message.left_out


def test_what_policy_leaves_out_is_absent_and_named() -> None:
    message = inference_completed(answer(), {"prompt", "prompt_token_ids"}, "cpu/float32").message
    assert message.prompt == ""
    assert not message.prompt_token_ids
    assert list(message.left_out) == ["prompt", "prompt_token_ids"]
    assert message.output == "that"
    assert message.usage.input_tokens == 3


class Listening:
    def __init__(self) -> None:
        self.received: list[Any] = []

    def text(self, piece: str) -> None: ...

    def finished(self, answer: Answer) -> None:
        self.received.append(answer)

    def failed(self, error: DomainError) -> None:
        self.received.append(error)


def test_the_end_is_sent_only_after_the_event_is_on_disk() -> None:
    listener, order = Listening(), []

    def append(event: Event[Any]) -> None:
        assert listener.received == []
        order.append(event.id)

    log = AnswerLog(append, (), "cpu/float32")
    log.record(answer(), listener)
    log.close()
    log.run()
    assert order == ["01KCB3Q6Z4S0V6XG1V2C3D4E5F"]
    assert listener.received[0].text == "that"


def test_an_answer_that_cannot_be_recorded_is_no_answer_and_the_next_one_is() -> None:
    outcomes = iter([OSError(28, "No space left on device"), None])

    def append(event: Event[Any]) -> None:
        if (error := next(outcomes)) is not None:
            raise error

    log, full, well = AnswerLog(append, (), "cpu/float32"), Listening(), Listening()
    log.record(answer(), full)
    log.record(answer(), well)
    log.check()
    log.close()
    log.run()
    with pytest.raises(ResourceExhausted):
        log.check()
    assert isinstance(full.received[0], Unavailable)
    assert full.received[0].reason == "ANSWER_NOT_RECORDED"
    assert isinstance(well.received[0], Answer)
