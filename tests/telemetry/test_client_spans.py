"""Each call that a client makes is a span that ends with the call, in all of gRPC's forms."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from openledger.datanet.v1 import datanet_pb2, datanet_pb2_grpc
from openledger.datanet.v1.datanet_pb2_grpc import DatanetServiceStub
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanKind

from openledger_client.channels import channel, sync_channel
from openledger_testing.recorded_spans import named, recording, trace_id, trace_of, traceparent
from servicekit.errors import NotFound
from servicekit.server import Service
from servicekit.settings import ServiceSettings
from servicekit.telemetry import traces as telemetry
from servicekit.testing.services import running, token
from servicekit.testing.waiting import eventually, eventually_async

GET, CONTRIBUTE = (
    "openledger.datanet.v1.DatanetService/GetDatanet",
    "openledger.datanet.v1.DatanetService/Contribute",
)
NAME = datanet_pb2.GetDatanetRequest(name="datanets/here")


class Api(datanet_pb2_grpc.DatanetServiceServicer):
    async def GetDatanet(self, request: Any, context: Any) -> datanet_pb2.Datanet:
        if request.name != NAME.name:
            raise NotFound("datanet", request.name)
        return datanet_pb2.Datanet(name=request.name)

    async def Contribute(self, requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        async for request in requests:
            yield datanet_pb2.ContributeResponse(sequence=request.sequence)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    state: Path = tmp_path_factory.mktemp("state")
    made = Service("datanet", ServiceSettings(state_dir=state, auth_mode="development", grace_s=1), None)
    made.add_servicer(datanet_pb2_grpc.add_DatanetServiceServicer_to_server, Api())
    with running(made):
        yield made


def requests(count: int) -> list[datanet_pb2.ContributeRequest]:
    contributor = "datanets/here/contributors/one"
    return [
        datanet_pb2.ContributeRequest(contributor=contributor, sequence=n, content=b"{}")
        for n in range(count)
    ]


def client_span(spans: Any, name: str) -> ReadableSpan:
    """Waits for it: gRPC ends the span of a call in a thread of its own."""
    (found,) = eventually(
        lambda: [span for span in named(spans, name) if span.kind is SpanKind.CLIENT], f"the span of {name}"
    )
    return found


def check(span: ReadableSpan, asked: str, code: str) -> None:
    assert trace_id(span) == trace_of(asked)
    assert span.attributes is not None
    assert span.attributes["rpc.response.status_code"] == code
    assert span.attributes["server.address"] == "127.0.0.1"
    assert ("error.type" in span.attributes) == (code != "OK")


def test_of_a_plain_call_and_of_one_that_fails(service: Service) -> None:
    asked = traceparent()
    with sync_channel(f"127.0.0.1:{service.grpc_port}", token(service, ["admin"])) as opened:
        stub = DatanetServiceStub(opened)
        with recording() as spans, telemetry.within(asked):
            stub.GetDatanet(NAME)
            check(client_span(spans, GET), asked, "OK")
        with recording() as spans, telemetry.within(asked):
            with pytest.raises(grpc.RpcError):
                stub.GetDatanet(datanet_pb2.GetDatanetRequest(name="datanets/there"))
            check(client_span(spans, GET), asked, "NOT_FOUND")


def test_of_a_stream_it_ends_with_the_stream(service: Service) -> None:
    asked = traceparent()
    opened = sync_channel(f"127.0.0.1:{service.grpc_port}", token(service, ["admin"]))
    with opened, recording() as spans, telemetry.within(asked):
        call = DatanetServiceStub(opened).Contribute(iter(requests(3)))
        assert next(call).sequence == 0
        assert [span for span in named(spans, CONTRIBUTE) if span.kind is SpanKind.CLIENT] == []
        assert [answer.sequence for answer in call] == [1, 2]
        check(client_span(spans, CONTRIBUTE), asked, "OK")


async def test_in_asyncio_too(service: Service) -> None:
    asked = traceparent()
    async with channel(f"127.0.0.1:{service.grpc_port}", token(service, ["admin"])) as opened:
        stub = DatanetServiceStub(opened)
        with recording() as spans, telemetry.within(asked):
            await stub.GetDatanet(NAME)  # type: ignore[misc]
            with pytest.raises(grpc.RpcError):
                await stub.GetDatanet(datanet_pb2.GetDatanetRequest(name="datanets/there"))  # type: ignore[misc]
            answers = [answer.sequence async for answer in stub.Contribute(iter(requests(2)))]  # type: ignore[attr-defined]
            assert answers == [0, 1]

            def ended() -> list[ReadableSpan]:
                return [span for span in spans.get_finished_spans() if span.kind is SpanKind.CLIENT]

            # A span ends in a callback of the loop.
            await eventually_async(lambda: len(ended()) >= 3, "the spans of three calls")
            codes = sorted(str((span.attributes or {})["rpc.response.status_code"]) for span in ended())
            assert codes == ["NOT_FOUND", "OK", "OK"]
            assert {trace_id(span) for span in ended()} == {trace_of(asked)}


def test_a_program_without_an_endpoint_records_nothing_and_still_has_trace_ids(service: Service) -> None:
    with recording() as spans, telemetry.tracer.start_as_current_span("begins here"):
        assert int(telemetry.current_trace_id(), 16) != 0
        with sync_channel(f"127.0.0.1:{service.grpc_port}", token(service, ["admin"])) as opened:
            DatanetServiceStub(opened).GetDatanet(NAME)
    assert spans.get_finished_spans() == ()
