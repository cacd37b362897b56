"""A whole service in this process: doors, tokens, events, and an orderly end."""

from __future__ import annotations

import asyncio
import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Literal
from uuid import uuid4

import grpc
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from openledger.datanet.v1 import datanet_pb2, datanet_pb2_grpc
from openledger.datanet.v1.events_pb2 import ContributionRecorded
from sqlalchemy.orm import Session

from servicekit import outbox, topics
from servicekit.address import read_address
from servicekit.auth import current_principal
from servicekit.client import channel, sync_channel
from servicekit.database import run_in_transaction
from servicekit.errors import (
    Cancelled,
    DeadlineExceeded,
    InvalidArgument,
    StartupError,
    Unavailable,
    from_rpc_error,
)
from servicekit.events import Event, new_event
from servicekit.migrations_env import write_revision
from servicekit.server import Service, serve
from servicekit.settings import ServiceSettings
from servicekit.testing import running, token

pytestmark = pytest.mark.slow

NAME = "datanets/threat-intel"
ENV = """from servicekit.migrations_env import run_migrations
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
        with urllib.request.urlopen(f"http://127.0.0.1:{service.metrics_port}{path}", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_a_caller_is_known_in_the_handler_and_its_threads(service: Service) -> None:
    with sync_channel(address(service), token(service, ["user", "curator"], "ann")) as over:
        datanet = datanet_pb2_grpc.DatanetServiceStub(over).GetDatanet(
            datanet_pb2.GetDatanetRequest(name=NAME)
        )
    assert datanet.owner == "ann"


async def test_a_token_may_be_renewed_while_a_channel_lives(service: Service) -> None:
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
    assert isinstance(error, InvalidArgument)
    assert (error.violations[0].field, error.violations[0].rule) == ("sequence", "int64.gte")
    assert answered in ([], [1], [1, 2])  # gRPC may drop what was not read yet once the status came


def test_a_record_that_is_too_large_for_the_rule_still_arrives(service: Service) -> None:
    with sync_channel(address(service), token(service, ["contributor"])) as over:
        stub = datanet_pb2_grpc.DatanetServiceStub(over)
        large = [datanet_pb2.ContributeRequest(sequence=1, content=bytes(2 << 20))]
        assert [answer.sequence for answer in stub.Contribute(iter(large))] == [1]


def test_health_and_reflection_need_no_token(service: Service) -> None:
    with sync_channel(address(service)) as over:
        health = health_pb2_grpc.HealthStub(over)
        for name in ("", "openledger.datanet.v1.DatanetService"):
            status = health.Check(health_pb2.HealthCheckRequest(service=name)).status
            assert status == health_pb2.HealthCheckResponse.SERVING
        reflected = ProtoReflectionDescriptorDatabase(over)
        assert "openledger.datanet.v1.DatanetService" in reflected.get_services()
        file: FileDescriptorProto = reflected.FindFileContainingSymbol("openledger.datanet.v1.DatanetService")
        assert file.package == "openledger.datanet.v1"


def test_operators_see_metrics_health_and_readiness(service: Service) -> None:
    with calling(service) as stub:
        stub.GetDatanet(datanet_pb2.GetDatanetRequest(name=NAME))
    status, text = get(service, "/metrics")
    assert status == 200
    line = 'openledger_rpcs_total{code="OK",method="/openledger.datanet.v1.DatanetService/GetDatanet"}'
    assert line in text
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
        ready = json.loads(capsys.readouterr().out.splitlines()[-1])
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
    servicer = Datanets()
    with running(make(tmp_path, servicer)) as service, ThreadPoolExecutor() as pool, calling(service) as stub:
        slow = pool.submit(stub.ListDatanets, datanet_pb2.ListDatanetsRequest())
        assert servicer.entered.wait(5)
        with sync_channel(address(service)) as over:
            watch = health_pb2_grpc.HealthStub(over).Watch(health_pb2.HealthCheckRequest())
            assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
            service.stop()
            assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING
        status, text = get(service, "/readyz")
        assert (status, json.loads(text)["reason"]) == (503, "draining")
        with calling(service) as late, pytest.raises(grpc.RpcError) as refused:
            late.GetDatanet(datanet_pb2.GetDatanetRequest(name=NAME), timeout=5)
        assert isinstance(from_rpc_error(refused.value), Unavailable)
        assert service._loop is not None
        service._loop.call_soon_threadsafe(servicer.release.set)
        assert slow.result(5) == datanet_pb2.ListDatanetsResponse()


def test_a_call_that_outlives_the_grace_is_cancelled(tmp_path: Path) -> None:
    started = make(tmp_path, servicer := Datanets(), grace_s=0.1)
    with running(started) as service, ThreadPoolExecutor() as pool, calling(service) as stub:
        slow = pool.submit(stub.ListDatanets, datanet_pb2.ListDatanetsRequest(), timeout=20)
        assert servicer.entered.wait(5)
        service.stop()
        with pytest.raises(grpc.RpcError) as cut:
            slow.result(10)
    error = from_rpc_error(cut.value)
    assert isinstance(error, Unavailable | Cancelled)
    assert not isinstance(error, DeadlineExceeded)


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

    def on_recorded(session: Session, event: Event[Any]) -> None:
        received.append(event.message.datanet)
        arrived.set()

    writer = Service("datanet", settings(tmp_path), empty_package)
    add = datanet_pb2_grpc.add_DatanetServiceServicer_to_server
    writer.add_servicer(add, Datanets(writer))
    reader = Service(
        "chain_relay", settings(tmp_path, database_url=f"sqlite:///{tmp_path}/r.db"), empty_package
    )
    reader.add_consumer(
        "relay", {topics.DATANET_CONTRIBUTION_V1: {ContributionRecorded.DESCRIPTOR.full_name: on_recorded}}
    )
    with running(writer), running(reader):
        with sync_channel(address(writer), token(writer, ["curator"])) as over:
            request = datanet_pb2.CreateDatanetRequest(
                datanet_id="threat-intel", datanet=datanet_pb2.Datanet()
            )
            request.datanet.display_name = "Threat intelligence"
            request.datanet.licence = "CC-BY-4.0"
            datanet_pb2_grpc.DatanetServiceStub(over).CreateDatanet(request)
        assert arrived.wait(15)
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


def test_threads_are_told_to_stop_and_waited_for(tmp_path: Path) -> None:
    ended = threading.Event()

    def work(stop: threading.Event) -> None:
        stop.wait()
        ended.set()

    service = make(tmp_path)
    service.add_thread("worker", work)
    with running(service):
        assert not ended.is_set()
    assert ended.is_set()


def test_an_http_door_runs_in_the_same_loop_and_ends_with_it(tmp_path: Path) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        loop = asyncio.get_running_loop()
        body = str(loop is service._loop).encode()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})

    service = make(tmp_path)
    service.add_http(app, 0)
    with running(service):
        assert service.address is not None
        with urllib.request.urlopen(f"http://{service.address.http}/", timeout=5) as answer:
            assert answer.read() == b"True"
        http = service.address.http
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(f"http://{http}/", timeout=5)


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
        connections, until = set(), time.monotonic() + 20
        while len(connections) < 3 and time.monotonic() < until:
            connections.add(stub.GetDatanet(datanet_pb2.GetDatanetRequest(name=NAME), timeout=5).owner)
    assert len(connections) == 3


def test_two_services_cannot_have_one_port(service: Service, tmp_path: Path) -> None:
    for door in ("grpc_port", "metrics_port"):
        second = make(tmp_path / "second", **{door: getattr(service, door)})
        with pytest.raises(StartupError, match=f"127.0.0.1:{getattr(service, door)}"):
            second.run()


def test_an_unknown_event_log_or_topic_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match="neither 'embedded:<path>' nor 'kafka:"):
        make(tmp_path, event_log="rabbit://x")
    with pytest.raises(StartupError, match="consumer c"):
        make(tmp_path).add_consumer("c", {"no.such.topic": {}})


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
    assert capsys.readouterr().err == "datanet: /state/events.db: No space left on device\n"
    with pytest.raises(OSError, match="Input/output"):
        serve(Development, defect)
