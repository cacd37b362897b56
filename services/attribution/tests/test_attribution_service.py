"""Claims about the whole service in this process: events in, gradients, records and events out, and its API."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message
from openledger.attribution.v1 import attribution_pb2 as pb
from openledger.attribution.v1.attribution_pb2_grpc import AttributionServiceStub
from openledger.common.v1.list_pb2 import VIEW_FULL
from openledger.datanet.v1 import datanet_pb2
from openledger.datanet.v1 import events_pb2 as datanet_events
from openledger.inference.v1 import inference_pb2
from openledger.trainer.v1 import events_pb2 as trainer_events
from openledger.trainer.v1 import trainer_pb2

from attribution.service import build
from attribution.settings import AttributionSettings
from identity.digest import sha256_bytes
from openledger_client.channels import sync_channel
from openledger_client.errors import (
    InvalidArgument,
    NotFound,
    OpenLedgerError,
    PermissionDenied,
    from_rpc_error,
)
from servicekit.database import ulid
from servicekit.eventlog import topics
from servicekit.eventlog.base import Topic
from servicekit.eventlog.events import Event, from_record, new_event, to_record
from servicekit.server import Service
from servicekit.testing.services import DATABASE_KINDS, Databases, running, token
from servicekit.testing.waiting import eventually

pytestmark = pytest.mark.slow

World = Any
"""Of conftest.py, which pytest does not let be imported."""

PROMOTED = trainer_pb2.MODEL_VERSION_STATE_PROMOTED
TRAINED = trainer_pb2.MODEL_VERSION_STATE_TRAINED


class Running:
    """A service, a stub for it, and the events it has sent."""

    def __init__(self, service: Service, world: World) -> None:
        self.service, self.world = service, world
        self.stub = self.stub_for(["auditor"])
        self._consumer = service.event_log.consumer("test", [topics.ATTRIBUTION_SCORED_V1.name])
        self.scored: list[Event[Any]] = []

    def stub_for(self, roles: list[str]) -> Any:
        assert self.service.address is not None
        return AttributionServiceStub(sync_channel(self.service.address.grpc, token(self.service, roles)))

    def send(self, topic: Topic, key: str, message: Message) -> Event[Any]:
        event = new_event(topic, key, message, "test")
        self.resend(event)
        return event

    def resend(self, event: Event[Any]) -> None:
        producer = self.service.event_log.producer()
        producer.send([to_record(event)])
        producer.close()

    def seal(self, treasury: str) -> None:
        self.send(
            topics.DATANET_SNAPSHOT_V1,
            self.world.datanet,
            datanet_events.SnapshotSealed(
                snapshot=datanet_pb2.Snapshot(name=self.world.snapshot),
                datanet=datanet_pb2.Datanet(name=self.world.datanet, treasury_address=treasury),
            ),
        )

    def publish(self, name: str, state: Any, **changes: str) -> None:
        world = self.world
        digests = {
            "digest": world.version_digest,
            "base_digest": world.base_digest,
            "adapter_digest": world.adapter_digest,
            "training_manifest_digest": world.manifest_digest,
        }
        message = trainer_events.ModelVersionChanged(
            model_version=trainer_pb2.ModelVersion(name=name, state=state, **(digests | changes))
        )
        message.event_time.GetCurrentTime()
        self.send(topics.MODEL_VERSION_V1, name.partition("/versions/")[0], message)

    def answer(self, answer: inference_pb2.InferenceCompleted) -> Event[Any]:
        return self.send(topics.INFERENCE_COMPLETED_V1, answer.inference, answer)

    def get(self, name: str, wait: bool = True) -> pb.Attribution:
        found: pb.Attribution = self.stub.GetAttribution(
            pb.GetAttributionRequest(name=name, wait=wait), timeout=60
        )
        return found

    def events_of(self, inference: str) -> list[Event[Any]]:
        for record in self._consumer.poll(0.2, 1000):
            self.scored.append(from_record(record))
        return [event for event in self.scored if event.key == inference]


@pytest.fixture(scope="module", params=DATABASE_KINDS)
def service(
    request: pytest.FixtureRequest,
    databases: Databases,
    tmp_path_factory: pytest.TempPathFactory,
    world: World,
) -> Iterator[Running]:
    """A service on each kind of database."""
    with databases.empty(request.param) as url:
        yield from started(url, tmp_path_factory.mktemp("state"), world)


def started(database_url: str, state: Path, world: World) -> Iterator[Running]:
    settings = AttributionSettings(
        state_dir=state,
        database_url=database_url,
        auth_mode="development",
        grace_s=2,
        object_store=str(world.folder / "objects"),
        projection_width=8,
        span_min_words=2,
    )
    service = build(settings)
    service.event_log.ensure_topics([*topics.ALL])
    with running(service, timeout_s=60):
        made = Running(service, world)
        made.seal(world.treasury)
        made.publish(world.version, PROMOTED)
        yield made


def refusal(call: Callable[[], Any]) -> OpenLedgerError:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return from_rpc_error(caught.value)


def test_an_answer_gets_shares_spans_reliability_and_one_event(service: Running, world: World) -> None:
    answer = world.answer("fire ember flame ash 9", "red")
    service.answer(answer)
    found = service.get(answer.inference)

    assert found.state == pb.ATTRIBUTION_STATE_SCORED
    assert found.name == answer.inference.replace("inferences/", "attributions/")
    assert sha256_bytes(found.canonical_json) == found.digest
    assert sum(share.ppm for share in found.shares) + found.unattributed_ppm == 1_000_000
    first = found.shares[0]
    assert (first.contributor, first.payout_address) == (world.contributor("alice"), world.address("alice"))
    assert first.estimate.lower <= first.ppm <= first.estimate.upper
    assert first.p_value <= 0.05
    assert found.model.report_digest == answer.model.report_digest
    assert found.reliability.control_count > 20
    assert found.spans
    assert found.usage == answer.usage

    (event,) = eventually(lambda: service.events_of(answer.inference))
    assert event.message.attribution == found
    assert dict(event.message.treasury_addresses) == {world.datanet: world.treasury}


def test_the_record_says_the_same_as_the_message(service: Running, world: World) -> None:
    answer = world.answer("wave reef tide foam 9", "blue")
    service.answer(answer)
    found = service.get(answer.inference)
    record = json.loads(found.canonical_json)
    assert record["model"]["version_digest"] == found.model.version_digest == world.version_digest
    assert [(share["contributor"], share["ppm"]) for share in record["shares"]] == [
        (share.contributor, share.ppm) for share in found.shares
    ]
    assert record["index_digest"] == found.index_digest


def test_an_event_delivered_twice_is_scored_once(service: Running, world: World) -> None:
    answer = world.answer("moss fern vine leaf 3", "green")
    event = service.answer(answer)
    first = service.get(answer.inference)
    service.resend(event)
    service.answer(answer)  # another event id, the same answer
    later = world.answer("moss fern vine leaf 4", "green")
    service.answer(later)
    service.get(later.inference)
    assert service.get(answer.inference) == first
    eventually(lambda: service.events_of(later.inference))
    assert len(service.events_of(answer.inference)) == 1


def test_an_answer_of_the_base_is_not_attributable_and_says_why(service: Running, world: World) -> None:
    answer = world.answer("fire ember flame ash 9", "red", by_base=True)
    service.answer(answer)
    found = service.get(answer.inference)
    assert (found.unattributed_ppm, len(found.shares), found.index_digest) == (1_000_000, 0, "")
    assert "the base model answered" in found.unattributed_reason
    assert len(eventually(lambda: service.events_of(answer.inference))) == 1


def test_an_answer_whose_version_is_unknown_waits_and_delays_no_other(service: Running, world: World) -> None:
    early = world.answer("fire ember flame ash 9", "red")
    early.model.name, early.model.version_digest = "models/late/versions/1", "sha256:" + "d" * 64
    service.answer(early)
    other = world.answer("wave reef tide foam 8", "blue")
    service.answer(other)
    assert service.get(other.inference).state == pb.ATTRIBUTION_STATE_SCORED
    waiting = service.get(early.inference, wait=False)
    assert (waiting.state, waiting.digest) == (pb.ATTRIBUTION_STATE_PENDING, "")

    service.publish("models/late/versions/1", TRAINED, digest="sha256:" + "d" * 64)
    assert service.get(early.inference).state == pb.ATTRIBUTION_STATE_SCORED


def test_an_index_that_cannot_be_built_says_why(service: Running, world: World) -> None:
    service.publish(
        "models/broken/versions/1",
        PROMOTED,
        digest="sha256:" + "b" * 64,
        training_manifest_digest="sha256:" + "c" * 64,
    )

    def broken() -> Any:
        indexes = service.stub.ListAttributionIndexes(pb.ListAttributionIndexesRequest()).indexes
        return [
            index for index in indexes if index.model_version == "models/broken/versions/1" and index.error
        ]

    (index,) = eventually(broken)
    assert not index.ready
    assert "sha256:" + "c" * 64 in index.error


def test_an_index_shows_its_records_and_its_progress(service: Running, world: World) -> None:
    service.publish("models/another/versions/1", TRAINED)  # only trained: its index is not requested

    def ready() -> Any:
        indexes = service.stub.ListAttributionIndexes(pb.ListAttributionIndexesRequest()).indexes
        return [index for index in indexes if index.model_version == world.version and index.ready]

    (index,) = eventually(ready)
    assert index.control_count == 60
    assert index.progress.done == index.progress.total == index.record_count + index.control_count


def test_indexes_come_in_pages_filtered_and_sorted(service: Running, world: World) -> None:
    digest = "sha256:" + "e" * 64
    service.publish("models/broken/versions/2", PROMOTED, digest=digest, training_manifest_digest=digest)

    def indexes(**fields: Any) -> Any:
        return service.stub.ListAttributionIndexes(pb.ListAttributionIndexesRequest(**fields))

    # Pages are counted once no other index is still to come.
    known = 'model_version = "models/broken/versions/2"'
    eventually(lambda: indexes(filter=known).total_size and indexes(filter="ready = true").total_size)
    names, page_token = [], ""
    while True:
        page = indexes(page_size=1, page_token=page_token)
        names += [index.model_version for index in page.indexes]
        page_token = page.next_page_token
        if not page_token:
            break
    assert names == sorted(set(names))
    assert page.total_size == len(names)
    assert "models/another/versions/1" not in names
    (ready,) = indexes(filter=f'ready = true AND model_version = "{world.version}"').indexes
    assert (ready.model_version, ready.control_count) == (world.version, 60)
    assert [index.model_version for index in indexes(filter=f"name = {world.version}").indexes] == [
        world.version
    ]
    assert indexes(order_by="record_count desc").indexes[0].ready
    error = refusal(lambda: indexes(filter="colour = red"))
    assert isinstance(error, InvalidArgument)
    assert error.metadata["field"] == "filter"


def test_unknown_answers_are_not_found_by_name(service: Running) -> None:
    name = f"attributions/{ulid()}"
    error = refusal(lambda: service.get(name, wait=False))
    assert isinstance(error, NotFound)
    assert name in str(error)


def test_waiting_for_an_answer_ends_before_the_deadline_and_returns_what_is_known(
    service: Running, world: World
) -> None:
    never = world.answer("fire", "red")
    never.model.name, never.model.version_digest = "models/never/versions/1", "sha256:" + "f" * 64
    service.answer(never)
    eventually(
        lambda: (
            service.stub.SummarizeAttributions(
                pb.SummarizeAttributionsRequest(model_version="models/never/versions/1")
            ).pending_count
        )
    )

    def waited() -> pb.Attribution | None:
        started = time.monotonic()
        request = pb.GetAttributionRequest(name=never.inference, wait=True)
        try:
            found: pb.Attribution = service.stub.GetAttribution(request, timeout=3)
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.DEADLINE_EXCEEDED:
                raise
            return None  # a slow machine: the answer leaves half a second before the deadline
        assert time.monotonic() - started > 0.5
        return found

    found = eventually(waited, "an answer before the deadline")
    assert found.state == pb.ATTRIBUTION_STATE_PENDING


def test_lists_are_newest_first_and_come_in_pages(service: Running, world: World) -> None:
    answers = [world.answer(f"fire ember flame ash {number}", "red", by_base=True) for number in range(3)]
    for answer in answers:
        service.answer(answer)
    for answer in answers:
        service.get(answer.inference)
    found, page_token = [], ""
    while True:
        page = service.stub.ListAttributions(
            pb.ListAttributionsRequest(model_version="baseModels/tiny", page_size=2, page_token=page_token)
        )
        found += [attribution.inference for attribution in page.attributions]
        page_token = page.next_page_token
        if not page_token:
            break
    assert found == sorted(found, reverse=True)
    assert {answer.inference for answer in answers} <= set(found)
    assert isinstance(
        refusal(lambda: service.stub.ListAttributions(pb.ListAttributionsRequest(page_token="%"))),
        InvalidArgument,
    )


def test_lists_are_filtered_sorted_counted_and_without_evidence_unless_asked_for(
    service: Running, world: World
) -> None:
    tuned, base = world.answer("fire ember flame ash 77", "red"), world.answer("a", "b", by_base=True)
    for answer in (tuned, base):
        service.answer(answer)
        service.get(answer.inference)

    def listed(**fields: Any) -> Any:
        return service.stub.ListAttributions(pb.ListAttributionsRequest(**fields))

    one = listed(filter=f'inference = "{tuned.inference}"')
    assert one.total_size == 1
    (basic,) = one.attributions
    full = service.get(tuned.inference)
    assert listed(filter=f'name = "{full.name}"', view=VIEW_FULL).attributions == [full]
    assert (basic.canonical_json, len(basic.spans)) == (b"", 0)
    assert not any(share.top_records for share in basic.shares)
    assert [share.ppm for share in basic.shares] == [share.ppm for share in full.shares]
    assert (basic.digest, basic.reliability) == (full.digest, full.reliability)

    scored = listed(filter="state = SCORED AND unattributed_ppm < 1000000")
    assert tuned.inference in [each.inference for each in scored.attributions]
    assert base.inference not in [each.inference for each in scored.attributions]
    times = [
        each.score_time.ToNanoseconds()
        for each in listed(filter="state = SCORED", order_by="score_time", page_size=5).attributions
    ]
    assert times == sorted(times)
    error = refusal(lambda: listed(order_by="shares"))
    assert isinstance(error, InvalidArgument)
    assert error.metadata["field"] == "order_by"


def test_the_summary_compares_copier_and_controls_with_naive_normalisation(
    service: Running, world: World
) -> None:
    answers = [
        world.answer(f"{' '.join(world.words[name][:4])} {number}", colour)
        for number, (name, colour) in enumerate((("alice", "red"), ("bob", "blue")) * 3)
    ]
    for answer in answers:
        service.answer(answer)
    for answer in answers:
        service.get(answer.inference)
    total = service.stub.SummarizeAttributions(pb.SummarizeAttributionsRequest(model_version=world.version))
    by_name = {each.contributor: each for each in total.contributors}
    mallory, alice = by_name[world.contributor("mallory")], by_name[world.contributor("alice")]
    assert total.answer_count >= 6
    assert (mallory.ppm.value, mallory.ppm.upper) == (0, 0)
    assert mallory.naive_ppm.value > 10_000
    assert (mallory.record_count, mallory.cluster_count) == (10, 0)
    assert alice.ppm.lower < alice.ppm.value < alice.ppm.upper
    assert total.control_naive_ppm.value > 0
    assert total.control_ppm.value < total.control_naive_ppm.value
    parts = sum(each.ppm.value for each in total.contributors) + total.unattributed_ppm.value
    assert parts == pytest.approx(1_000_000)


def test_a_role_without_permission_is_refused(service: Running) -> None:
    stub = service.stub_for(["contributor"])
    error = refusal(lambda: stub.SummarizeAttributions(pb.SummarizeAttributionsRequest()))
    assert isinstance(error, PermissionDenied)
