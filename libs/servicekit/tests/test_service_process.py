"""A service as an operator meets it: a process with standard output, signals and an exit code."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from openledger.datanet.v1 import datanet_pb2, datanet_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

from openledger_client.channels import sync_channel
from openledger_client.errors import Unavailable, from_rpc_error
from servicekit.address import read_address
from servicekit.auth import DevelopmentIssuer
from servicekit.testing.ports import claimed_port
from servicekit.testing.services import recorded_trace
from servicekit.testing.waiting import LONGEST_S, eventually

pytestmark = pytest.mark.server

PROGRAM = """
import asyncio, sys, time
from typing import ClassVar
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from openledger.datanet.v1 import datanet_pb2, datanet_pb2_grpc
from servicekit.server import Service, serve
from servicekit.settings import ServiceSettings

class DatanetSettings(ServiceSettings):
    service: ClassVar[str] = "datanet"

class Api(datanet_pb2_grpc.DatanetServiceServicer):
    async def GetDatanet(self, request, context):
        return datanet_pb2.Datanet(name=request.name)
    async def ListDatanets(self, request, context):
        await context.send_initial_metadata(())  # its caller knows that it has begun
        await asyncio.to_thread(time.sleep, 3600)

def build(settings):
    service = Service("datanet", settings, None)
    service.add_servicer(datanet_pb2_grpc.add_DatanetServiceServicer_to_server, Api())
    return service

sys.exit(serve(DatanetSettings, build))
"""


class Process:
    """The program above, started with settings."""

    def __init__(self, state: Path, **variables: str) -> None:
        settings = {"OPENLEDGER_STATE_DIR": str(state), "OPENLEDGER_AUTH_MODE": "development", **variables}
        kept = {name: value for name, value in os.environ.items() if not name.startswith("OPENLEDGER_")}
        self.popen = subprocess.Popen(
            [sys.executable, "-c", PROGRAM],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**kept, **settings},
        )

    def ready(self) -> dict[str, Any]:
        """The readiness line."""
        assert self.popen.stdout is not None
        line: dict[str, Any] = json.loads(self.popen.stdout.readline())
        return line

    def end(self, number: signal.Signals | None = None) -> tuple[int, str, str]:
        """Exit code, output and errors, after a signal or of itself."""
        if number is not None:
            self.popen.send_signal(number)
        out, err = self.popen.communicate(timeout=LONGEST_S)
        return self.popen.returncode, out, err


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Any]:
    started: list[Process] = []

    def begin(**variables: str) -> Process:
        started.append(Process(tmp_path / "state", **variables))
        return started[-1]

    yield begin
    for process in started:
        if process.popen.poll() is None:
            process.popen.kill()
            process.popen.communicate()


def test_it_says_when_it_is_ready_and_stops_on_a_signal(start: Any, tmp_path: Path) -> None:
    process = start()
    ready = process.ready()
    assert ready["event"] == "ready"
    assert read_address(tmp_path / "state", "datanet") is not None
    code, out, err = process.end(signal.SIGTERM)
    assert (code, out) == (0, "")
    logs = [json.loads(line) for line in err.splitlines()]
    assert logs[0]["level"] == "WARNING"
    assert "DEVELOPMENT tokens" in logs[0]["message"]
    assert logs[-1]["message"] == "stopped"
    assert not (tmp_path / "state" / "run" / "datanet.json").exists()


def test_a_port_in_use_is_one_line_and_code_1(start: Any) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, out, err = start(OPENLEDGER_GRPC_PORT=str(port)).end()
    assert (code, out) == (1, "")
    *logs, last = err.splitlines()
    assert last == f"datanet: cannot listen for gRPC on 127.0.0.1:{port}: Address already in use"
    assert {json.loads(line)["level"] for line in logs} <= {"WARNING", "INFO"}


def test_bad_settings_are_one_line_and_code_1(start: Any) -> None:
    code, out, err = start(OPENLEDGER_DATANET_GRPC_PORT="many").end()
    assert (code, out) == (1, "")
    assert err.count("\n") == 1
    assert "OPENLEDGER_DATANET_GRPC_PORT='many'" in err


def test_what_should_not_run_by_accident_is_said_at_start(start: Any) -> None:
    process = start(
        OPENLEDGER_DATANET_GRCP_PORT="1",
        OPENLEDGER_LOG_FORMAT="text",
    )
    process.ready()
    err = process.end(signal.SIGTERM)[2]
    assert "DEVELOPMENT tokens" in err
    assert "INSECURE transport: plain text, so only for this machine (127.0.0.1)" in err
    assert "OPENLEDGER_DATANET_GRCP_PORT names no setting" in err


def test_plain_text_for_other_machines_does_not_start(start: Any) -> None:
    code, out, err = start(OPENLEDGER_GRPC_HOST="0.0.0.0", OPENLEDGER_INSECURE_TRANSPORT="1").end()
    assert (code, out) == (1, "")
    assert err.startswith("datanet: bad settings: grpc_host=0.0.0.0 is reachable by other machines")


def test_an_rpc_that_does_not_say_who_may_call_it_does_not_start(tmp_path: Path) -> None:
    """A real process: its service is described by a proto of its own, without the option."""
    program = PROGRAM.replace(
        "def build(settings):\n",
        "def undeclared(api, server):\n"
        "    from google.protobuf import descriptor_pb2, descriptor_pool\n"
        "    file = descriptor_pb2.FileDescriptorProto(name='open_door.proto', package='open', syntax='proto3')\n"
        "    file.message_type.add(name='Nothing')\n"
        "    file.service.add(name='Gate').method.add(name='Enter', input_type='.open.Nothing',"
        " output_type='.open.Nothing')\n"
        "    descriptor_pool.Default().Add(file)\n"
        "    import grpc\n"
        "    enter = grpc.unary_unary_rpc_method_handler(lambda request, context: b'')\n"
        "    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler('open.Gate', {'Enter': enter}),))\n"
        "def build(settings):\n",
    ).replace("    return service\n", "    service.add_servicer(undeclared, None)\n    return service\n")
    environment = {
        **os.environ,
        "OPENLEDGER_STATE_DIR": str(tmp_path),
        "OPENLEDGER_AUTH_MODE": "development",
    }
    ended = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=LONGEST_S,
        env=environment,
        check=False,
    )
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.splitlines()[-1] == (
        "datanet: open.Gate/Enter must declare either a permission or public in openledger.options.v1.access"
    )


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """An OTLP collector that keeps what it gets."""

    def __init__(self) -> None:
        self.spans: list[tuple[str, str]] = []

    def Export(self, request: Any, context: Any) -> trace_service_pb2.ExportTraceServiceResponse:
        for resource in request.resource_spans:
            (name,) = [a.value.string_value for a in resource.resource.attributes if a.key == "service.name"]
            self.spans += [(name, span.name) for scope in resource.scope_spans for span in scope.spans]
        return trace_service_pb2.ExportTraceServiceResponse()


def test_its_spans_reach_the_collector_before_it_ends(start: Any, tmp_path: Path) -> None:
    collector = Collector()
    server = grpc.server(ThreadPoolExecutor(1))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(collector, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()

    def its_span_came() -> bool:
        process = start(OPENLEDGER_OTLP_ENDPOINT=f"http://127.0.0.1:{port}")
        token = DevelopmentIssuer(tmp_path / "state").mint("ann", ["curator"])
        with sync_channel(process.ready()["grpc"], token) as over, recorded_trace():
            request = datanet_pb2.GetDatanetRequest(name="datanets/here")
            datanet_pb2_grpc.DatanetServiceStub(over).GetDatanet(request, timeout=LONGEST_S)
        process.end(signal.SIGTERM)
        return ("openledger-datanet", "openledger.datanet.v1.DatanetService/GetDatanet") in collector.spans

    # A process gives the collector a second when it ends, which is too short for a very busy machine.
    eventually(its_span_came, "the span of the call")
    server.stop(0)


def test_a_handler_thread_that_hangs_does_not_keep_the_process(start: Any, tmp_path: Path) -> None:
    process = start(OPENLEDGER_GRACE_S="0.2")
    address = process.ready()["grpc"]
    with sync_channel(address, DevelopmentIssuer(tmp_path / "state").mint("ann", ["curator"])) as over:
        stub = datanet_pb2_grpc.DatanetServiceStub(over)
        hanging = stub.ListDatanets.future(datanet_pb2.ListDatanetsRequest(), timeout=LONGEST_S)
        hanging.initial_metadata()
        code, _, err = process.end(signal.SIGINT)
        with pytest.raises(grpc.RpcError):
            hanging.result(LONGEST_S)
    assert code == 0
    assert "leaving handler threads behind" in err


def test_a_killed_service_starts_again_and_its_clients_find_it(start: Any, tmp_path: Path) -> None:
    port = str(claimed_port())
    first = start(OPENLEDGER_GRPC_PORT=port)
    address = first.ready()["grpc"]
    first.end(signal.SIGKILL)
    assert read_address(tmp_path / "state", "datanet") is None
    token = DevelopmentIssuer(tmp_path / "state").mint("ann", ["curator"])
    request = datanet_pb2.GetDatanetRequest(name="datanets/here")
    with sync_channel(address, token) as over:
        stub = datanet_pb2_grpc.DatanetServiceStub(over)
        with pytest.raises(grpc.RpcError) as refused:
            stub.GetDatanet(request, timeout=LONGEST_S)
        assert isinstance(from_rpc_error(refused.value), Unavailable)
        second = start(OPENLEDGER_GRPC_PORT=port)
        second.ready()
        assert stub.GetDatanet(request, timeout=LONGEST_S, wait_for_ready=True).name == "datanets/here"
        assert second.end(signal.SIGTERM)[0] == 0
