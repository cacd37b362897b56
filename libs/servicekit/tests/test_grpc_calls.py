"""What holds for every RPC of each kind: unary and streaming on either side."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, cast

import grpc
import pytest
from openledger.datanet.v1 import datanet_pb2
from prometheus_client import REGISTRY
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from openledger_client import errors as received
from openledger_client.channels import channel
from openledger_client.errors import OpenLedgerError, from_rpc_error
from servicekit.database import engine, reading
from servicekit.errors import (
    Cancelled,
    DeadlineExceeded,
    InvalidArgument,
    NotFound,
)
from servicekit.server import check_cancelled
from servicekit.server.access import Rule
from servicekit.server.grpc_calls import GrpcAdapter, GrpcCall
from servicekit.server.pipeline import Pipeline
from servicekit.server.request_memory import RequestMemory
from servicekit.server.steps.deadline import Deadline
from servicekit.server.steps.errors import errors
from servicekit.server.steps.metrics import metrics
from servicekit.server.steps.trace import trace
from servicekit.server.steps.validation import Validation
from servicekit.settings import ServiceSettings
from servicekit.telemetry import traces as telemetry
from servicekit.testing.waiting import LONGEST_S, eventually_async

KINDS = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")
Behaviour = Callable[[], Any]


class Handlers(grpc.GenericRpcHandler):
    """One method of each kind; each awaits ``behaviour()`` and then answers the bytes ``done``."""

    def __init__(self, behaviour: Behaviour) -> None:
        self._behaviour = behaviour

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        kind = details.method.rsplit("/", 1)[1]
        make = getattr(grpc, f"{kind}_rpc_method_handler", None)
        return None if make is None else make(getattr(self, kind))

    async def unary_unary(self, request: bytes, context: Any) -> bytes:
        await self._behaviour()
        return b"done"

    async def stream_unary(self, requests: AsyncIterator[bytes], context: Any) -> bytes:
        async for _ in requests:
            await self._behaviour()
        return b"done"

    async def unary_stream(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        await self._behaviour()
        yield b"done"

    async def stream_stream(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        async for _ in requests:
            await self._behaviour()
            yield b"done"


class Caller:
    """Calls a method of any kind with one request and reads one answer."""

    def __init__(self, over: grpc.aio.Channel, service: str) -> None:
        self._channel = over
        self._service = service

    def begin(self, kind: str, request: bytes = b"", timeout: float | None = None) -> Any:
        method = getattr(self._channel, kind)(f"/{self._service}/{kind}")
        return method(iter([request]) if kind.startswith("stream") else request, timeout=timeout)

    async def call(self, kind: str, request: bytes = b"", timeout: float | None = None) -> bytes:
        begun = self.begin(kind, request, timeout)
        answer: bytes = await (begun.read() if kind.endswith("stream") else begun)
        return answer

    async def error(self, kind: str, request: bytes = b"", timeout: float | None = None) -> OpenLedgerError:
        with pytest.raises(grpc.RpcError) as failed:
            await self.call(kind, request, timeout)
        return from_rpc_error(failed.value)


@asynccontextmanager
async def serving(
    behaviour: Behaviour, deadline: Deadline | None = None, *, service: str = "test.Test"
) -> AsyncIterator[Caller]:
    rules = {f"/{service}/{kind}": Rule(None) for kind in KINDS}
    pipeline = Pipeline((trace, metrics, errors, deadline or Deadline(30, 300)), RequestMemory(64 << 20, 8))
    adapter = GrpcAdapter(rules, pipeline, Validation())
    server = grpc.aio.server(handlers=[Handlers(behaviour)], interceptors=[adapter])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with channel(f"127.0.0.1:{port}") as over:
            yield Caller(over, service)
    finally:
        await server.stop(0)


def raising(error: BaseException) -> Behaviour:
    async def behaviour() -> None:
        raise error

    return behaviour


async def nothing() -> None:
    pass


@pytest.mark.parametrize("kind", KINDS)
async def test_a_handler_answers(kind: str) -> None:
    async with serving(nothing) as caller:
        assert await caller.call(kind) == b"done"


@pytest.mark.parametrize("kind", KINDS)
async def test_a_domain_error_reaches_the_caller_as_itself(kind: str) -> None:
    async with serving(raising(NotFound("datanet", "datanets/unknown"))) as caller:
        error = await caller.error(kind)
    assert isinstance(error, received.NotFound)
    assert error.metadata["name"] == "datanets/unknown"


@pytest.mark.parametrize("kind", KINDS)
async def test_a_defect_shows_a_trace_id_and_nothing_else_and_is_logged(
    kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    telemetry.configure("test", ServiceSettings(auth_mode="development"))
    async with serving(raising(RuntimeError("the password is 1234"))) as caller:
        error = await caller.error(kind)
    assert isinstance(error, received.Internal)
    assert "1234" not in str(error)
    assert len(error.metadata["trace_id"]) == 32
    assert int(error.metadata["trace_id"], 16) != 0
    logged = await eventually_async(
        lambda: [each for each in caplog.records if each.levelno >= logging.ERROR and each.exc_info],
        "the defect in the log",
    )
    assert any("1234" in str(record.exc_info) for record in logged)


async def test_a_database_outage_is_not_an_internal_error() -> None:
    unreachable = engine("postgresql://user@127.0.0.1:1/nothing?connect_timeout=5")

    async def ask() -> None:
        with reading(unreachable) as session:
            session.execute(text("SELECT 1"))

    async with serving(ask) as caller:
        error = await caller.error("unary_unary")
    assert isinstance(error, received.Unavailable)
    assert error.reason == "DATABASE_UNAVAILABLE"
    assert error.retry_after_s == 1


async def test_a_full_disk_is_said_to_be_one() -> None:
    async with serving(raising(OSError(28, "No space left on device"))) as caller:
        error = await caller.error("unary_unary")
    assert isinstance(error, received.ResourceExhausted)
    assert error.reason == "DISK_FULL"


async def test_a_disk_that_cannot_be_read_is_no_defect() -> None:
    failed = OperationalError("SELECT 1", None, sqlite3.OperationalError("disk I/O error"))
    async with serving(raising(failed)) as caller:
        error = await caller.error("unary_unary")
    assert isinstance(error, received.Unavailable)
    assert error.reason == "DATABASE_UNAVAILABLE"


async def test_a_status_set_by_grpc_itself_passes_unchanged() -> None:
    async with serving(nothing) as caller:
        with pytest.raises(grpc.RpcError) as failed:
            await caller._channel.unary_unary("/test.Test/no_such_method")(b"")
    assert from_rpc_error(failed.value).code is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize("kind", KINDS)
async def test_a_client_that_cancels_cancels_the_handler(kind: str) -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def wait() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with serving(wait) as caller:
        call = caller.begin(kind)
        await begun.wait()
        call.cancel()
        await asyncio.wait_for(ended.wait(), LONGEST_S)


async def test_half_a_stream_is_never_taken_for_a_whole_one() -> None:
    """gRPC ends the requests of a cancelled call as if the client had finished."""
    finished, cancelled = threading.Event(), asyncio.Event()

    class Counting(Handlers):
        async def stream_unary(self, requests: AsyncIterator[bytes], context: Any) -> bytes:
            try:
                async for _ in requests:
                    first.set()
                finished.set()
                return b"done"
            except (asyncio.CancelledError, DeadlineExceeded):
                cancelled.set()
                raise

    rules = {"/test.Test/stream_unary": Rule(None)}
    adapter = GrpcAdapter(rules, Pipeline((errors,), RequestMemory(64 << 20, 8)), Validation())
    server = grpc.aio.server(handlers=[Counting(nothing)], interceptors=[adapter])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    first = asyncio.Event()

    async def send_half(timeout_s: float | None) -> bool:
        """Returns whether the handler had the first half when the call ended; a slow machine may miss a short deadline."""
        first.clear()
        cancelled.clear()
        call: Any = over.stream_unary("/test.Test/stream_unary")(timeout=timeout_s)
        with suppress(grpc.RpcError, asyncio.InvalidStateError):
            await call.write(b"one of two")
        if timeout_s is None:
            await first.wait()
            call.cancel()
        with suppress(grpc.RpcError, asyncio.CancelledError):
            await call
        if first.is_set():
            await asyncio.wait_for(cancelled.wait(), LONGEST_S)
        assert not finished.is_set()
        return first.is_set()

    async with channel(f"127.0.0.1:{port}") as over:
        assert await send_half(None)
        deadline_s = 0.2
        while not await send_half(deadline_s):
            deadline_s *= 2
    await server.stop(0)


async def test_work_in_a_thread_learns_that_its_caller_is_gone() -> None:
    working, ended = threading.Event(), threading.Event()

    def work() -> None:
        working.set()
        try:
            while True:
                check_cancelled()
                ended.wait(0.01)
        except Cancelled:
            ended.set()

    async with serving(lambda: asyncio.to_thread(work)) as caller:
        call = caller.begin("unary_unary")
        assert await asyncio.to_thread(working.wait, LONGEST_S)
        call.cancel()
        assert await asyncio.to_thread(ended.wait, LONGEST_S)


async def test_a_unary_call_without_deadline_gets_one() -> None:
    async with serving(asyncio.Event().wait, Deadline(0.05, 300)) as caller:
        error = await caller.error("unary_unary")
    assert isinstance(error, received.DeadlineExceeded)
    assert error.metadata == {"limit_s": "0.05"}


async def test_no_client_may_wait_longer_than_the_longest_deadline() -> None:
    async with serving(asyncio.Event().wait, Deadline(30, 0.05)) as caller:
        assert isinstance(await caller.error("unary_unary", timeout=600), received.DeadlineExceeded)


async def test_a_stream_has_no_deadline_but_its_clients() -> None:
    release = asyncio.Event()
    async with serving(release.wait, Deadline(0.01, 0.01)) as caller:
        call = asyncio.create_task(caller.call("unary_stream"))
        done, _ = await asyncio.wait([call], timeout=0.1)
        assert not done
        release.set()
        assert await call == b"done"


async def test_a_handlers_own_timeout_is_a_defect_not_the_callers_deadline() -> None:
    async with serving(raising(TimeoutError())) as caller:
        assert isinstance(await caller.error("unary_unary"), received.Internal)


def count(method: str, code: str) -> float:
    return REGISTRY.get_sample_value("openledger_requests_total", {"method": method, "code": code}) or 0.0


async def test_each_call_is_counted_with_its_outcome_and_time() -> None:
    service = "test.Counted"  # its own: what other tests call may be counted late
    method = f"/{service}/unary_unary"
    async with serving(nothing, service=service) as caller:
        await caller.call("unary_unary")
    async with serving(raising(NotFound("x", "y")), service=service) as caller:
        await caller.error("unary_unary")
    await eventually_async(
        lambda: (count(method, "OK"), count(method, "NOT_FOUND")) == (1, 1), "the count of both calls"
    )
    # The server counts a call last of all, so these two are there.
    assert REGISTRY.get_sample_value("openledger_requests_running", {"method": method}) == 0
    assert REGISTRY.get_sample_value("openledger_request_duration_seconds_count", {"method": method}) == 2


@pytest.mark.parametrize("kind", KINDS)
async def test_a_call_continues_its_callers_trace(kind: str) -> None:
    telemetry.configure("test", ServiceSettings(auth_mode="development"))
    seen: list[str] = []

    async def read() -> None:
        seen.append(await asyncio.to_thread(telemetry.current_trace_id))

    async with serving(read) as caller:
        with telemetry.tracer.start_as_current_span("caller"):
            mine = telemetry.current_trace_id()
            await caller.call(kind)
        await caller.call(kind)
    assert seen[0] == mine
    assert seen[1] not in (mine, "0" * 32)


def test_a_broken_rule_is_named_with_field_path_rule_and_value() -> None:
    with pytest.raises(InvalidArgument) as refused:
        Validation().check(datanet_pb2.CreateDatanetRequest(datanet_id="Not Valid"))
    violations = {v.field: v for v in refused.value.violations}
    assert violations["datanet_id"].rule == "string.pattern"
    assert violations["datanet_id"].value == "Not Valid"
    assert violations["datanet_id"].message == (
        "'Not Valid' is not {id}, where {id} is 2 to 63 of a-z, 0-9 and '-', beginning with a letter"
    )
    assert violations["datanet"].rule == "required"


async def test_a_refusal_that_finds_the_caller_gone_ends_the_call_without_a_defect() -> None:
    class Gone:
        async def abort(self, *_: object) -> None:
            raise grpc.aio.InternalError("the connection is closed")

    call = GrpcCall("/a.B/C", Rule(None), cast("Any", Gone()), streaming=False)
    with pytest.raises(asyncio.CancelledError):
        await call.refuse(DeadlineExceeded())
