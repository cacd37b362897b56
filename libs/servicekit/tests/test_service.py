"""A complete service in this process: endpoints, tokens, events, and an orderly end."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Literal
from uuid import uuid4

import grpc
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.wrappers_pb2 import StringValue
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from openledger.datanet.v1 import datanet_pb2, datanet_pb2_grpc
from openledger.datanet.v1.events_pb2 import ContributionRecorded
from sqlalchemy import MetaData, func, select
from sqlalchemy.orm import Session
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from openledger_client import errors as received
from openledger_client.channels import channel, sync_channel
from openledger_client.errors import from_rpc_error
from servicekit.address import read_address
from servicekit.auth import current_principal
from servicekit.database import reading, run_in_transaction
from servicekit.database.migrations_env import write_revision
from servicekit.database.request_ids import RequestId, add_request_ids
from servicekit.delivery import outbox
from servicekit.errors import (
    StartupError,
    Unavailable,
)
from servicekit.eventlog import topics
from servicekit.eventlog.events import Event, new_event
from servicekit.server import Service, http_routes, operations, serve
from servicekit.settings import ServiceSettings
from servicekit.testing.http import PlainErrors
from servicekit.testing.services import running, token
from servicekit.testing.waiting import LONGEST_S, eventually

pytestmark = pytest.mark.slow

NAME = "datanets/threat-intel"
ENV = """from servicekit.database.migrations_env import run_migrations
from servicekit.database import new_metadata
run_migrations(new_metadata())
"""


class Datanets(datanet_pb2_grpc.DatanetServiceServicer):
    """Enough of datanet to see a server at work."""

    def __init__(self, service: Service | None = None) -> None:
        self.service = service
        self.entered, self.release = threading.Event(), asyncio.Event()

    async def GetDatanet(self, request: Any, context: Any) -> datanet_pb2.Datanet:
        owner = await asyncio.to_thread(lambda: current_principal().name)
        return datanet_pb2.Datanet(name=request.name, owner=owner)

    async def ListDatanets(self, request: Any, context: Any) -> datanet_pb2.ListDatanetsResponse:
        self.entered.set()
        await self.release.wait()
        return datanet_pb2.ListDatanetsResponse()

    async def Contribute(self, requests: Any, context: Any) -> AsyncIterator[datanet_pb2.ContributeResponse]:
        async for request in requests:
            yield datanet_pb2.ContributeResponse(sequence=request.sequence)

    async def CreateDatanet(self, request: Any, context: Any) -> datanet_pb2.Datanet:
        def create(session: Session) -> None:
            recorded = ContributionRecorded(datanet=f"datanets/{request.datanet_id}")
            outbox.add(session, new_event(topics.DATANET_CONTRIBUTION_V1, recorded.datanet, recorded, "test"))

        assert self.service is not None
        await asyncio.to_thread(run_in_transaction, self.service.engine, create)
        return datanet_pb2.Datanet(name=f"datanets/{request.datanet_id}")


def settings(state: Path, **changes: Any) -> ServiceSettings:
    return ServiceSettings(**{"state_dir": state, "auth_mode": "development", "grace_s": 5, **changes})


def make(state: Path, servicer: Datanets | None = None, **changes: Any) -> Service:
    service = Service("datanet", settings(state, **changes), None)
    service.add_servicer(datanet_pb2_grpc.add_DatanetServiceServicer_to_server, servicer or Datanets())
    return service


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with running(make(tmp_path)) as started:
        yield started


def address(service: Service) -> str:
    assert service.address is not None
    return service.address.grpc


def get(service: Service, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(
            f"http://127.0.0.1:{service.metrics_port}{path}", timeout=LONGEST_S
        ) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_a_caller_is_known_in_the_handler_and_its_threads(service: Service) -> None:
    with sync_channel(address(service), token(service, ["user", "curator"], "ann")) as over:
        datanet = datanet_pb2_grpc.DatanetServiceStub(over).GetDatanet(
            datanet_pb2.GetDatanetRequest(name=NAME)
        )
    assert datanet.owner == "ann"


async def test_a_token_may_be_renewed_while_a_channel_is_open(service: Service) -> None:
    names = iter(["ann", "bob"])
    async with channel(address(service), lambda: token(service, ["curator"], next(names))) as over:
        stub = datanet_pb2_grpc.DatanetServiceStub(over)
        owners = [(await stub.GetDatanet(datanet_pb2.GetDatanetRequest(name=NAME))).owner for _ in range(2)]
    assert owners == ["ann", "bob"]


def test_each_message_of_a_stream_is_validated_and_those_before_are_answered(service: Service) -> None:
    requests = [datanet_pb2.ContributeRequest(sequence=number) for number in (1, 2, -3)]
    answered: list[int] = []
    with sync_channel(address(service), token(service, ["contributor"])) as over:
        answers = datanet_pb2_grpc.DatanetServiceStub(over).Contribute(iter(requests))
        with pytest.raises(grpc.RpcError) as refused:
            answered.extend(answer.sequence for answer in answers)
    error = from_rpc_error(refused.value)
    assert isinstance(error, received.InvalidArgument)
    assert (error.violations[0].field, error.violations[0].rule) == ("sequence", "int64.gte")
    assert answered in ([], [1], [1, 2])  # gRPC may drop what was not read yet once the status came


def test_a_record_that_is_too_large_for_the_rule_still_arrives(service: Service) -> None:
    with sync_channel(address(service), token(service, ["contributor"])) as over:
        stub = datanet_pb2_grpc.DatanetServiceStub(over)
        large = [datanet_pb2.ContributeRequest(sequence=1, content=bytes(2 << 20))]
        assert [answer.sequence for answer in stub.Contribute(iter(large))] == [1]


def test_health_needs_no_token(service: Service) -> None:
    with sync_channel(address(service)) as over:
        health = health_pb2_grpc.HealthStub(over)
        for name in ("", "openledger.datanet.v1.DatanetService"):
            status = health.Check(health_pb2.HealthCheckRequest(service=name)).status
            assert status == health_pb2.HealthCheckResponse.SERVING


def test_reflection_needs_a_token_and_no_role(service: Service) -> None:
    with sync_channel(address(service)) as over, pytest.raises(grpc.RpcError) as refused:
        ProtoReflectionDescriptorDatabase(over).get_services()
    assert from_rpc_error(refused.value).code is grpc.StatusCode.UNAUTHENTICATED
    with sync_channel(address(service), token(service, [])) as over:
        reflected = ProtoReflectionDescriptorDatabase(over)
        assert "openledger.datanet.v1.DatanetService" in reflected.get_services()
        file: FileDescriptorProto = reflected.FindFileContainingSymbol("openledger.datanet.v1.DatanetService")
        assert file.package == "openledger.datanet.v1"


def test_reflection_is_public_only_by_a_setting(tmp_path: Path) -> None:
    with running(make(tmp_path, public_reflection=True)) as service, sync_channel(address(service)) as over:
        assert "grpc.health.v1.Health" in ProtoReflectionDescriptorDatabase(over).get_services()


@pytest.mark.parametrize("method", ["Health/Check", "Health/Watch", "ServerReflection/ServerReflectionInfo"])
def test_methods_that_name_a_service_take_no_large_request(service: Service, method: str) -> None:
    package = "grpc.health.v1." if method.startswith("Health") else "grpc.reflection.v1alpha."
    large = b"\x0a\x81\x20" + b"x" * 4097
    with sync_channel(address(service), token(service, [])) as over, pytest.raises(grpc.RpcError) as refused:
        list(over.stream_stream(f"/{package}{method}")(iter([large]), timeout=LONGEST_S))
    error = from_rpc_error(refused.value)
    assert (error.code, error.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "REQUEST_TOO_LARGE")


def test_a_connection_without_a_call_is_closed_although_it_sends(tmp_path: Path) -> None:
    with running(make(tmp_path, max_connection_idle_s=0.3)) as service:
        host, port = address(service).rsplit(":", 1)
        with socket.create_connection((host, int(port)), timeout=LONGEST_S) as connection:
            settings = bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
            headers = bytes([0, 0, 2, 1, 0, 0, 0, 0, 1, 0x83, 0x86])  # without END_HEADERS
            continuation = bytes([0, 0, 5, 9, 0, 0, 0, 0, 1, 0x40, 1, 97, 1, 98])
            connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + settings + headers)
            wait_for_end_while(connection, continuation)


def test_headers_that_drip_do_not_keep_a_connection_to_the_metrics(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operations, "REQUEST_S", 0.3)
    assert service.address is not None
    host, port = service.address.metrics.rsplit(":", 1)
    with socket.create_connection((host, int(port)), timeout=LONGEST_S) as connection:
        connection.sendall(b"GET /metrics HTTP/1.1\r\n")
        wait_for_end_while(connection, b"X: 1\r\n")


def wait_for_end_while(connection: socket.socket, sending: bytes) -> None:
    """Returns once the peer closes the connection, while this side sends again and again."""
    connection.settimeout(0.05)

    def ended() -> bool:
        try:
            connection.sendall(sending)
            return connection.recv(1000) == b""
        except TimeoutError:
            return False
        except OSError:
            return True

    eventually(ended, "the end of the connection")


def test_operators_see_metrics_health_and_readiness(service: Service) -> None:
    with calling(service) as stub:
        stub.GetDatanet(datanet_pb2.GetDatanetRequest(name=NAME))
    assert get(service, "/metrics")[0] == 200
    line = 'openledger_requests_total{code="OK",method="/openledger.datanet.v1.DatanetService/GetDatanet"}'
    eventually(lambda: line in get(service, "/metrics")[1], "the count of the call")
    assert get(service, "/healthz") == (200, '{"status": "ok"}')
    status, text = get(service, "/readyz")
    ready = json.loads(text)
    assert (status, ready["status"]) == (200, "ok")
    assert {warning["kind"] for warning in ready["warnings"]} == {"development_issuer", "plain_text"}
    assert get(service, "/other")[0] == 404


def test_it_says_where_it_listens_while_it_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert read_address(tmp_path, "datanet") is None
    with running(make(tmp_path)) as service:
        assert read_address(tmp_path, "datanet") == service.address
        assert service.address is not None
        (ready,) = (json.loads(line) for line in capsys.readouterr().out.splitlines() if '"ready"' in line)
        assert ready["event"] == "ready"
        assert ready["service"] == "datanet"
        assert ready["grpc"] == f"127.0.0.1:{service.grpc_port}"
        assert ready["metrics"] == f"127.0.0.1:{service.metrics_port}"
    assert read_address(tmp_path, "datanet") is None


def test_the_address_of_a_killed_process_is_no_address(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    gone = {"service": "datanet", "pid": 2**22 + 1, "grpc": "127.0.0.1:1", "metrics": "127.0.0.1:2"}
    (tmp_path / "run" / "datanet.json").write_text(json.dumps(gone))
    assert read_address(tmp_path, "datanet") is None


@contextmanager
def calling(service: Service) -> Iterator[Any]:
    """A stub of the service, with a token."""
    with sync_channel(address(service), token(service, ["curator"])) as over:
        yield datanet_pb2_grpc.DatanetServiceStub(over)


def test_a_drain_lets_running_calls_end_and_takes_no_new_ones(tmp_path: Path) -> None:
    drained = make(tmp_path, servicer := Datanets(), grace_s=LONGEST_S)
    with running(drained) as service, ThreadPoolExecutor() as pool, calling(service) as stub:
        slow = pool.submit(stub.ListDatanets, datanet_pb2.ListDatanetsRequest())
        assert servicer.entered.wait(LONGEST_S)
        with sync_channel(address(service)) as over:
            watch = health_pb2_grpc.HealthStub(over).Watch(health_pb2.HealthCheckRequest())
            assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
            service.stop()
            assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING
        status, text = get(service, "/readyz")
        assert (status, json.loads(text)["reason"]) == (503, "draining")
        with calling(service) as late, pytest.raises(grpc.RpcError) as refused:
            late.GetDatanet(datanet_pb2.GetDatanetRequest(name=NAME), timeout=LONGEST_S)
        assert isinstance(from_rpc_error(refused.value), received.Unavailable)
        assert service._loop is not None
        service._loop.call_soon_threadsafe(servicer.release.set)
        assert slow.result(LONGEST_S) == datanet_pb2.ListDatanetsResponse()


def test_a_call_that_outlives_the_grace_is_cancelled(tmp_path: Path) -> None:
    started = make(tmp_path, servicer := Datanets(), grace_s=0.1)
    with running(started) as service, ThreadPoolExecutor() as pool, calling(service) as stub:
        slow = pool.submit(stub.ListDatanets, datanet_pb2.ListDatanetsRequest(), timeout=LONGEST_S)
        assert servicer.entered.wait(LONGEST_S)
        service.stop()
        with pytest.raises(grpc.RpcError) as cut:
            slow.result(LONGEST_S)
    error = from_rpc_error(cut.value)
    assert isinstance(error, received.Unavailable | received.Cancelled)


def test_a_health_watcher_does_not_hold_up_the_end(service: Service) -> None:
    with sync_channel(address(service)) as over:
        watch = health_pb2_grpc.HealthStub(over).Watch(health_pb2.HealthCheckRequest())
        next(watch)
        service.stop()
        statuses = [answer.status for answer in watch]
    assert statuses == [health_pb2.HealthCheckResponse.NOT_SERVING]


@pytest.fixture
def empty_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A package whose database has outbox and inbox and nothing else."""
    name = f"shop_{uuid4().hex[:8]}"
    (tmp_path / "site" / name / "migrations").mkdir(parents=True)
    (tmp_path / "site" / name / "__init__.py").write_text("")
    (tmp_path / "site" / name / "migrations" / "env.py").write_text(ENV)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    write_revision(name, "outbox and inbox")
    return name


def test_a_change_and_its_event_reach_a_consumer_of_another_service(
    tmp_path: Path, empty_package: str
) -> None:
    received: list[str] = []
    arrived = threading.Event()

    def on_recorded(session: Session, event: Event[ContributionRecorded]) -> None:
        received.append(event.message.datanet)
        arrived.set()

    writer = Service("datanet", settings(tmp_path), empty_package)
    add = datanet_pb2_grpc.add_DatanetServiceServicer_to_server
    writer.add_servicer(add, Datanets(writer))
    reader = Service(
        "chain_relay", settings(tmp_path, database_url=f"sqlite:///{tmp_path}/r.db"), empty_package
    )
    reader.subscribe(topics.DATANET_CONTRIBUTION_V1, ContributionRecorded, on_recorded, group="relay")
    with running(writer), running(reader):
        with sync_channel(address(writer), token(writer, ["curator"])) as over:
            request = datanet_pb2.CreateDatanetRequest(
                datanet_id="threat-intel", datanet=datanet_pb2.Datanet()
            )
            request.datanet.display_name = "Threat intelligence"
            request.datanet.licence = "CC-BY-4.0"
            datanet_pb2_grpc.DatanetServiceStub(over).CreateDatanet(request)
        assert arrived.wait(LONGEST_S)
        assert get(writer, "/readyz")[0] == 200
    assert received == [NAME]


def test_what_was_written_last_is_published_before_it_stops(tmp_path: Path, empty_package: str) -> None:
    service = Service("datanet", settings(tmp_path), empty_package)
    recorded = ContributionRecorded(datanet=NAME)
    with running(service):
        event = new_event(topics.DATANET_CONTRIBUTION_V1, NAME, recorded, "test")
        run_in_transaction(service.engine, lambda session: outbox.add(session, event))
    reader = Service("reader", settings(tmp_path), None)
    assert sum(reader.event_log.end_offsets(topics.DATANET_CONTRIBUTION_V1.name).values()) == 1
    reader.event_log.close()


def test_many_events_reach_a_batch_handler_of_a_service(tmp_path: Path, empty_package: str) -> None:
    service = Service("datanet", settings(tmp_path), empty_package)
    received: list[str] = []

    def on_recorded(session: Session, events: Sequence[Event[ContributionRecorded]]) -> None:
        received.extend(event.message.datanet for event in events)

    service.subscribe_batch(topics.DATANET_CONTRIBUTION_V1, ContributionRecorded, on_recorded)
    names = [f"datanets/net-{number}" for number in range(50)]
    with running(service):
        events = [
            new_event(topics.DATANET_CONTRIBUTION_V1, name, ContributionRecorded(datanet=name), "test")
            for name in names
        ]
        run_in_transaction(service.engine, lambda session: outbox.add_all(session, events))
        eventually(lambda: sorted(received) == sorted(names))


@pytest.mark.parametrize(
    ("topic", "message", "refusal"),
    [
        ("no.such.topic", ContributionRecorded, "topic 'no.such.topic' is not in proto/topics"),
        (topics.DATANET_CONTRIBUTION_V1, StringValue, "and never google.protobuf.StringValue"),
    ],
)
def test_a_subscription_that_could_never_be_served_is_one_line(
    tmp_path: Path, topic: Any, message: Any, refusal: str
) -> None:
    service = Service("datanet", settings(tmp_path), None)
    with pytest.raises(StartupError, match=refusal):
        service.subscribe(topic, message, lambda session, event: None)


def test_a_message_has_one_handler_in_a_group(tmp_path: Path) -> None:
    service = Service("datanet", settings(tmp_path), None)
    service.subscribe(topics.DATANET_CONTRIBUTION_V1, ContributionRecorded, lambda session, event: None)
    with pytest.raises(StartupError, match="has two handlers"):
        service.subscribe(topics.DATANET_CONTRIBUTION_V1, ContributionRecorded, lambda session, event: None)


def test_request_ids_are_forgotten_when_their_time_is_over(tmp_path: Path, empty_package: str) -> None:
    service = Service("datanet", settings(tmp_path), empty_package)
    metadata = MetaData()
    table = add_request_ids(metadata)
    metadata.create_all(service.engine)
    request = datanet_pb2.SealSnapshotRequest(parent=NAME, request_id="old")
    run_in_transaction(service.engine, lambda session: RequestId.of("ann", request).remember(session, NAME))
    service.add_request_ids(ttl_s=0.01)

    def kept() -> int:
        with reading(service.engine) as session:
            return session.scalar(select(func.count()).select_from(table)) or 0

    with running(service):
        eventually(lambda: kept() == 0)


def test_a_thread_that_fails_ends_the_service_with_code_1(tmp_path: Path) -> None:
    service = make(tmp_path)

    def fail(stop: threading.Event) -> None:
        raise RuntimeError("the chain is gone")

    service.add_thread("relay", fail)
    assert service.run() == 1


def test_a_thread_that_ends_too_early_ends_the_service(tmp_path: Path) -> None:
    service = make(tmp_path)
    service.add_thread("relay", lambda stop: None)
    assert service.run() == 1


def test_threads_are_stopped_and_waited_for(tmp_path: Path) -> None:
    ended = threading.Event()

    def work(stop: threading.Event) -> None:
        stop.wait()
        ended.set()

    service = make(tmp_path)
    service.add_thread("worker", work)
    with running(service):
        assert not ended.is_set()
    assert ended.is_set()


def test_an_http_api_runs_in_the_same_loop_and_ends_with_it(tmp_path: Path) -> None:
    async def same_loop(request: Request) -> Response:
        return PlainTextResponse(str(asyncio.get_running_loop() is service._loop))

    service = make(tmp_path)
    service.add_http([http_routes.get("/", same_loop, public=True)], PlainErrors(), 0)
    with running(service):
        assert service.address is not None
        with urllib.request.urlopen(f"http://{service.address.http}/", timeout=LONGEST_S) as answer:
            assert answer.read() == b"True"
        http = service.address.http
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(f"http://{http}/", timeout=LONGEST_S)


def test_a_service_mints_its_own_token_in_development_only(tmp_path: Path) -> None:
    service = make(tmp_path)
    assert service.token() == service.token()
    oidc = {"auth_mode": "oidc", "auth_issuer": "https://i", "insecure_transport": True}
    (tmp_path / "token").write_text("from the platform\n")
    given = Service("x", settings(tmp_path, **oidc, token_file=tmp_path / "token"), None)
    assert given.token() == "from the platform"
    with pytest.raises(Unavailable, match="OPENLEDGER_TOKEN_FILE"):
        Service("x", settings(tmp_path, **oidc), None).token()


def test_an_old_connection_is_replaced_and_no_call_notices(tmp_path: Path) -> None:
    class Peers(Datanets):
        async def GetDatanet(self, request: Any, context: Any) -> datanet_pb2.Datanet:
            return datanet_pb2.Datanet(owner=context.peer())

    aged = make(tmp_path, Peers(), max_connection_age_s=0.2)
    with running(aged) as service, calling(service) as stub:
        connections = set()

        def replaced_twice() -> bool:
            request = datanet_pb2.GetDatanetRequest(name=NAME)
            connections.add(stub.GetDatanet(request, timeout=LONGEST_S).owner)
            return len(connections) >= 3

        eventually(replaced_twice, "a third connection")


def test_two_services_cannot_have_one_port(service: Service, tmp_path: Path) -> None:
    for port in ("grpc_port", "metrics_port"):
        second = make(tmp_path / "second", **{port: getattr(service, port)})
        with pytest.raises(StartupError, match=f"127.0.0.1:{getattr(service, port)}"):
            second.run()


def test_an_unknown_event_log_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match="neither 'embedded:<path>' nor 'kafka:"):
        make(tmp_path, event_log="rabbit://x")


def test_a_full_disk_at_start_is_one_line_and_a_defect_is_not_hidden(
    capsys: pytest.CaptureFixture[str],
) -> None:
    class Development(ServiceSettings):
        service: ClassVar[str] = "datanet"
        auth_mode: Literal["oidc", "development"] = "development"

    def full(settings: Development) -> Service:
        raise OSError(28, "No space left on device", "/state/events.db")

    def defect(settings: Development) -> Service:
        raise OSError(5, "Input/output error")

    assert serve(Development, full) == 1
    said = [line for line in capsys.readouterr().err.splitlines() if "/state/events.db" in line]
    assert said == ["datanet: /state/events.db: No space left on device"]
    with pytest.raises(OSError, match="Input/output"):
        serve(Development, defect)
