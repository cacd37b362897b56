"""An attribution quotes a prompt and its answer: only the caller that sent the prompt may read them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from openledger.attribution.v1 import attribution_pb2 as pb
from openledger.attribution.v1.attribution_pb2_grpc import AttributionServiceStub

from attribution.service import build
from attribution.settings import AttributionSettings
from openledger_client.channels import sync_channel
from openledger_client.errors import NotFound, PermissionDenied, from_rpc_error
from servicekit.eventlog import topics
from servicekit.eventlog.events import new_event, to_record
from servicekit.server import Service
from servicekit.testing.services import running, token


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, world: Any) -> Iterator[Service]:
    """A service with a base model's answers; they are scored without a model."""
    state: Path = tmp_path_factory.mktemp("state")
    settings = AttributionSettings(
        state_dir=state, auth_mode="development", grace_s=1, object_store=str(world.folder / "objects")
    )
    made = build(settings)
    made.event_log.ensure_topics([*topics.ALL])
    with running(made, timeout_s=60):
        yield made


@pytest.fixture(scope="module")
def asked(service: Service, world: Any) -> dict[str, list[str]]:
    """Inferences by who asked."""
    producer, found = service.event_log.producer(), {}
    for principal in ("ann", "bob"):
        answers = [world.answer("fire ember", "red", by_base=True) for _ in range(2)]
        for answer in answers:
            answer.principal = principal
            answer.model_owner = "owner"
            event = new_event(topics.INFERENCE_COMPLETED_V1, answer.inference, answer, "test")
            producer.send([to_record(event)])
        found[principal] = [answer.inference for answer in answers]
    producer.close()
    auditor = stub(service, "auditor", "carol")
    for inference in (*found["ann"], *found["bob"]):
        auditor.GetAttribution(pb.GetAttributionRequest(name=inference, wait=True), timeout=60)
    return found


def stub(service: Service, role: str, principal: str) -> Any:
    assert service.address is not None
    return AttributionServiceStub(sync_channel(service.address.grpc, token(service, [role], principal)))


def listed(of: Any, **fields: Any) -> set[str]:
    return {each.inference for each in of.ListAttributions(pb.ListAttributionsRequest(**fields)).attributions}


def test_only_the_user_that_sent_the_prompt_reads_the_attribution(
    service: Service, asked: dict[str, list[str]]
) -> None:
    ann = stub(service, "user", "ann")
    assert ann.GetAttribution(pb.GetAttributionRequest(name=asked["ann"][0])).principal == "ann"
    for role, stranger in (("user", "bob"), ("builder", "owner"), ("approver", "eve")):
        for wait in (False, True):
            with pytest.raises(grpc.RpcError) as refused:
                stub(service, role, stranger).GetAttribution(
                    pb.GetAttributionRequest(name=asked["ann"][0], wait=wait), timeout=20
                )
            assert isinstance(from_rpc_error(refused.value), PermissionDenied), (role, stranger)


def test_a_list_contains_only_the_callers_own_answers(service: Service, asked: dict[str, list[str]]) -> None:
    ann, owner = stub(service, "user", "ann"), stub(service, "builder", "owner")
    assert listed(ann) == listed(ann, model_version="baseModels/tiny") == set(asked["ann"])
    assert listed(owner) == set()
    first = ann.ListAttributions(pb.ListAttributionsRequest(page_size=1))
    rest = listed(ann, page_token=first.next_page_token)
    assert {first.attributions[0].inference} | rest == set(asked["ann"])


@pytest.mark.parametrize("role", ["auditor", "operator", "service", "admin"])
def test_roles_that_read_all_read_all(service: Service, asked: dict[str, list[str]], role: str) -> None:
    assert listed(stub(service, role, "carol")) == {*asked["ann"], *asked["bob"]}


def test_every_reader_sees_totals_without_any_text(service: Service, asked: dict[str, list[str]]) -> None:
    summary = stub(service, "builder", "owner").SummarizeAttributions(pb.SummarizeAttributionsRequest())
    assert summary.answer_count == 4


def test_an_answer_that_does_not_exist_is_not_found(service: Service, asked: dict[str, list[str]]) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        stub(service, "user", "ann").GetAttribution(
            pb.GetAttributionRequest(name="inferences/01JDGXG4ZXQ8V5E7YB1T3M9KCN")
        )
    assert isinstance(from_rpc_error(refused.value), NotFound)
