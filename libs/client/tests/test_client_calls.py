"""Calls have deadlines, are repeated only where that is safe, carry token and trace, and fail with typed errors."""

from __future__ import annotations

from functools import partial
from typing import Any

import grpc
import pytest
from openledger.audit.v1 import audit_pb2
from openledger.datanet.v1 import datanet_pb2 as pb
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, use_span

from openledger_client import Addresses, AsyncClient, Client
from openledger_client.calls import Policy
from openledger_client.errors import (
    FailedPrecondition,
    ResourceExhausted,
    Unavailable,
    Unimplemented,
)
from openledger_client.retries import Retries
from openledger_client.services import ALL, DATANET
from openledger_client.testing import Script, refuse, unavailable

GET = pb.GetDatanetRequest(name="datanets/d")
busy = partial(refuse, code=grpc.StatusCode.RESOURCE_EXHAUSTED, message="busy")


def test_a_read_is_repeated_when_the_server_says(client: Client, script: Script, waits: list[float]) -> None:
    script.failures = [partial(busy, retry_s=2.0), partial(busy, retry_s=3.0)]
    assert client.datanet.GetDatanet(GET).name == "datanets/d"
    assert len(script.requests) == 3
    assert 2.0 <= waits[0] <= 2.1
    assert 3.0 <= waits[1] <= 3.2


def test_callers_that_get_the_same_time_return_at_different_ones(
    client: Client, script: Script, waits: list[float]
) -> None:
    script.failures = [partial(busy, retry_s=0.003)] * 8
    client.datanet.GetDatanet(GET)
    assert len(waits) == 8
    assert min(waits) >= 0.003
    assert max(waits) > 0.1  # the server's 3 ms say nothing of the others that wait


def test_a_busy_service_is_called_again_until_it_answers(
    client: Client, script: Script, waits: list[float]
) -> None:
    script.failures = [partial(busy, retry_s=1.0)] * 9
    assert client.datanet.GetDatanet(GET).name == "datanets/d"
    assert sum(waits) > 9


def test_an_unreachable_service_is_tried_again_with_growing_waits(
    client: Client, script: Script, waits: list[float]
) -> None:
    script.failures = [unavailable] * 4
    client.datanet.GetDatanet(GET)
    assert len(waits) == 4
    assert all(wait <= 0.1 * 2**n for n, wait in enumerate(waits))


@pytest.mark.parametrize("failure", [unavailable, partial(busy, retry_s=0.5)])
def test_a_service_that_does_not_return_is_given_up_after_half_a_minute(
    client: Client, script: Script, waits: list[float], failure: Any
) -> None:
    script.failures = [failure] * 1000
    with pytest.raises((Unavailable, ResourceExhausted)):
        client.datanet.GetDatanet(GET)
    assert 30.0 - Retries().most_s - 0.5 <= sum(waits) < 30.0


def test_the_deadline_ends_the_attempts_earlier(client: Client, script: Script, waits: list[float]) -> None:
    script.failures = [unavailable] * 1000
    with pytest.raises(Unavailable):
        client.datanet.GetDatanet(GET, timeout=8)
    assert sum(waits) < 8


@pytest.mark.parametrize("attempts", [1, 3])
def test_attempts_can_be_limited(addresses: Addresses, script: Script, attempts: int) -> None:
    script.failures = [unavailable] * 10
    policy = Policy(sleep=lambda _: None, retries=Retries(attempts=attempts))
    with Client(addresses, policy=policy) as client, pytest.raises(Unavailable):
        client.datanet.GetDatanet(GET)
    assert len(script.requests) == attempts


def test_no_number_of_attempts_overflows_the_backoff() -> None:
    assert Retries(most_s=5).wait_s(Unavailable(""), 100_000, left_s=60) is not None


def test_a_change_without_request_id_is_sent_once(client: Client, script: Script) -> None:
    script.failures = [partial(busy, retry_s=0.1)]
    with pytest.raises(ResourceExhausted) as raised:
        client.datanet.WithdrawRecord(pb.WithdrawRecordRequest(name="datanets/d/records/1"))
    assert len(script.requests) == 1
    assert raised.value.reason == "SCRIPTED"
    assert raised.value.retry_after_s == pytest.approx(0.1)


def test_a_change_with_request_id_is_repeated_with_the_same_id(client: Client, script: Script) -> None:
    script.failures = [unavailable, unavailable]
    given = pb.CreateDatanetRequest(datanet_id="d")
    client.datanet.CreateDatanet(given)
    ids = {request.request_id for request in script.requests}
    assert len(script.requests) == 3
    assert len(ids) == 1
    assert len(ids.pop()) == 36
    assert given.request_id == ""


def test_the_callers_request_id_stands(client: Client, script: Script) -> None:
    client.datanet.CreateDatanet(pb.CreateDatanetRequest(datanet_id="d", request_id="mine"))
    assert script.requests[0].request_id == "mine"


def test_an_error_that_a_repeat_cannot_change_is_final(client: Client, script: Script) -> None:
    script.failures = [partial(refuse, code=grpc.StatusCode.FAILED_PRECONDITION, message="blocked")]
    with pytest.raises(FailedPrecondition, match="blocked"):
        client.datanet.GetDatanet(GET)
    assert len(script.requests) == 1


def test_a_wait_past_the_deadline_is_not_begun(client: Client, script: Script, waits: list[float]) -> None:
    script.failures = [partial(busy, retry_s=3000.0)]
    with pytest.raises(ResourceExhausted):
        client.datanet.GetDatanet(GET, timeout=500)
    assert waits == []


def test_every_call_has_a_deadline(addresses: Addresses, script: Script) -> None:
    with Client(addresses, policy=Policy(deadline_s=7000, stream_deadline_s=9000)) as client:
        client.datanet.GetDatanet(GET)
        client.datanet.GetDatanet(GET, timeout=3000)
        list(client.datanet.DownloadSnapshot(pb.DownloadSnapshotRequest()))
    assert [round(left, -3) for left in script.remaining_s] == [7000, 3000, 9000]


def test_a_token_function_is_asked_for_each_call(addresses: Addresses, script: Script) -> None:
    tokens = iter(["first", "second"])
    with Client(addresses, token=lambda: next(tokens)) as client:
        client.datanet.GetDatanet(GET)
        client.datanet.GetDatanet(GET)
    assert [each["authorization"] for each in script.metadata] == ["Bearer first", "Bearer second"]


def test_a_call_continues_the_trace_of_the_program(client: Client, script: Script) -> None:
    beginner = SpanContext(0xABC, 0xDEF, is_remote=True, trace_flags=TraceFlags(TraceFlags.SAMPLED))
    with use_span(NonRecordingSpan(beginner)):
        client.datanet.GetDatanet(GET)
    assert f"{0xABC:032x}" in script.metadata[0]["traceparent"]


def test_a_method_that_the_server_lacks_is_named_as_such(client: Client) -> None:
    with pytest.raises(Unimplemented):
        client.datanet.CancelSealOperation(pb.CancelSealOperationRequest())


def test_a_stream_raises_typed_errors(client: Client, script: Script) -> None:
    script.cut_after = [1]
    chunks = client.datanet.DownloadSnapshot(pb.DownloadSnapshotRequest())
    assert next(chunks).size == 900
    with pytest.raises(Unavailable):
        next(chunks)


async def test_asyncio_calls_are_repeated_too(addresses: Addresses, script: Script) -> None:
    script.failures = [unavailable]
    async with AsyncClient(addresses, token="secret") as client:
        assert (await client.datanet.GetDatanet(GET)).name == "datanets/d"
        found: Any = [c.offset async for c in client.datanet.DownloadSnapshot(pb.DownloadSnapshotRequest())]
    assert len(script.requests) == 3
    assert found[:2] == [0, 64]


def test_every_service_has_its_stub(client: Client) -> None:
    for service in ALL:
        assert type(service.stub(client.channel(service))).__name__ == service.api.rpartition(".")[2] + "Stub"


def test_a_server_without_health_service_is_not_serving(client: Client) -> None:
    assert not client.is_serving(DATANET)
    assert not client.is_serving("attribution")


def test_a_service_is_given_by_its_constant_or_its_name(client: Client) -> None:
    assert client.channel("datanet") is client.channel(DATANET)
    with pytest.raises(Unimplemented):
        next(client.audit("datanet").ReadFacts(audit_pb2.ReadFactsRequest()))
    for wrong in ("datanets", 5):
        with pytest.raises(TypeError, match="datanet, trainer, inference, attribution, chain_relay"):
            client.audit(wrong)  # type: ignore[arg-type]


def test_a_service_of_the_registry_is_an_attribute_without_more(client: Client) -> None:
    by_name: Any = client
    assert type(by_name.chain_relay).__name__ == "SettlementServiceStub"
    with pytest.raises(AttributeError, match="'no_such' is not a service; the services are datanet"):
        _ = by_name.no_such


def test_a_service_that_nobody_is_at_the_address_of_is_named_with_its_variable() -> None:
    nobody = Addresses(given={"datanet": "127.0.0.1:1"})
    for call in (
        lambda client: client.datanet.GetDatanet(GET),
        lambda client: list(client.datanet.DownloadSnapshot(pb.DownloadSnapshotRequest(name="datanets/d"))),
    ):
        policy = Policy(retries=Retries(attempts=1))
        with Client(nobody, policy=policy) as client, pytest.raises(Unavailable) as raised:
            call(client)
        assert raised.value.metadata == {
            "service": "datanet",
            "address": "127.0.0.1:1",
            "variable": "OPENLEDGER_DATANET_ADDRESS",
        }


def test_another_service_at_the_address_is_named_and_a_reason_of_the_service_stays(
    client: Client, script: Script
) -> None:
    with pytest.raises(Unimplemented) as wrong:
        next(client.audit("datanet").ReadFacts(audit_pb2.ReadFactsRequest()))
    assert wrong.value.metadata["variable"] == "OPENLEDGER_DATANET_ADDRESS"
    script.failures = [partial(refuse, code=grpc.StatusCode.UNAVAILABLE, message="no disk")] * 500
    with pytest.raises(Unavailable) as own:
        client.datanet.CreateDatanet(pb.CreateDatanetRequest(datanet_id="d"))
    assert own.value.metadata == {}
