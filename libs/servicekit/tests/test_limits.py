"""One principal cannot make a service unavailable for others: limits on rate, concurrent calls and request bytes."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from hypothesis import given
from hypothesis import strategies as st
from openledger.datanet.v1 import datanet_pb2, datanet_pb2_grpc

from openledger_client import errors as received
from openledger_client.channels import sync_channel
from openledger_client.errors import OpenLedgerError, from_rpc_error
from servicekit.errors import ResourceExhausted
from servicekit.server import Service
from servicekit.server.limiter import Limiter
from servicekit.settings import ServiceSettings
from servicekit.testing.services import running, token
from servicekit.testing.waiting import LONGEST_S, eventually

pytestmark = pytest.mark.slow

NAME = "datanets/here"


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def let_in(limiter: Limiter, principal: str = "ann") -> bool:
    try:
        with limiter.call(principal):
            return True
    except ResourceExhausted:
        return False


def test_after_a_burst_calls_are_let_in_at_the_rate() -> None:
    clock = Clock()
    limiter = Limiter(rate_per_s=10, burst=3, running=100, clock=clock)
    assert [let_in(limiter) for _ in range(5)] == [True] * 3 + [False] * 2
    clock.now_s += 0.1
    assert [let_in(limiter) for _ in range(2)] == [True, False]
    clock.now_s += 1000
    assert sum(let_in(limiter) for _ in range(10)) == 3


def test_a_caller_that_waits_for_the_stated_time_is_accepted() -> None:
    clock = Clock()
    limiter = Limiter(rate_per_s=4, burst=1, running=100, clock=clock)
    assert let_in(limiter)
    with pytest.raises(ResourceExhausted) as refused, limiter.call("ann"):
        pass
    assert refused.value.reason == "RATE_LIMIT"
    assert refused.value.retry_after_s == pytest.approx(0.25)
    clock.now_s += refused.value.retry_after_s or 0
    assert let_in(limiter)


@pytest.mark.parametrize(("rate", "shown"), [(333, "4 ms"), (4, "250 ms"), (0.4, "2.5 s"), (0.3, "3.4 s")])
def test_the_stated_time_is_never_shown_as_zero(rate: float, shown: str) -> None:
    limiter = Limiter(rate_per_s=rate, burst=1, running=100, clock=Clock())
    assert let_in(limiter)
    with pytest.raises(ResourceExhausted, match=f"try again in {shown}"), limiter.call("ann"):
        pass


def test_one_principals_calls_cost_no_other_anything() -> None:
    limiter = Limiter(rate_per_s=1, burst=1, running=100, clock=Clock())
    assert [let_in(limiter, name) for name in ("ann", "ann", "bob")] == [True, False, True]


def test_calls_at_once_are_counted_until_they_end() -> None:
    limiter = Limiter(rate_per_s=100, burst=100, running=2, clock=Clock())
    with limiter.call("ann"):
        with limiter.call("ann"):
            with pytest.raises(ResourceExhausted) as refused, limiter.call("ann"):
                pass
            assert refused.value.reason == "TOO_MANY_CALLS"
            assert refused.value.retry_after_s
        assert let_in(limiter)


def test_a_call_that_fails_gives_its_place_back() -> None:
    limiter = Limiter(rate_per_s=100, burst=100, running=1, clock=Clock())
    with pytest.raises(KeyError), limiter.call("ann"):
        raise KeyError
    assert let_in(limiter)


@given(st.lists(st.floats(0, 3), min_size=1, max_size=200))
def test_never_more_than_burst_and_rate_allow(pauses: list[float]) -> None:
    """The bucket's bound: in any time t no more than burst + rate * t calls."""
    clock = Clock()
    limiter = Limiter(rate_per_s=2, burst=5, running=10, clock=clock)
    allowed = 0
    for pause in pauses:
        clock.now_s += pause
        allowed += let_in(limiter)
    assert allowed <= 5 + 2 * clock.now_s + 1e-6


def test_principals_without_end_do_not_fill_the_memory() -> None:
    limiter = Limiter(rate_per_s=1, burst=1, running=1, clock=Clock())
    with limiter.call("busy"):
        for number in range(10_500):
            let_in(limiter, f"p{number}")
        assert len(limiter._buckets) <= 10_000
        assert not let_in(limiter, "busy")


class Datanets(datanet_pb2_grpc.DatanetServiceServicer):
    """Lists when released, echoes records' sizes."""

    def __init__(self) -> None:
        self.entered = threading.Semaphore(0)
        self.release = threading.Event()

    async def GetDatanet(self, request: Any, context: Any) -> Any:
        return datanet_pb2.Datanet(name=request.name)

    async def DownloadSnapshot(self, request: Any, context: Any) -> AsyncIterator[Any]:
        self.entered.release()
        await asyncio.to_thread(self.release.wait)
        for nothing in ():
            yield nothing

    async def Contribute(self, requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        async for request in requests:
            yield datanet_pb2.ContributeResponse(sequence=len(request.content))


@pytest.fixture
def api() -> Datanets:
    return Datanets()


@pytest.fixture
def service(tmp_path: Path, api: Datanets, request: pytest.FixtureRequest) -> Iterator[Service]:
    limits = getattr(request, "param", {})
    settings = ServiceSettings(state_dir=tmp_path, auth_mode="development", grace_s=1, **limits)
    made = Service("limited", settings, None)
    made.add_servicer(datanet_pb2_grpc.add_DatanetServiceServicer_to_server, api)
    with running(made):
        yield made


def stub(service: Service, principal: str = "ann") -> Any:
    assert service.address is not None
    return datanet_pb2_grpc.DatanetServiceStub(
        sync_channel(service.address.grpc, token(service, ["curator", "contributor"], principal))
    )


def error_of(call: Any) -> OpenLedgerError:
    with pytest.raises(grpc.RpcError) as raised:
        call()
    return from_rpc_error(raised.value)


@pytest.mark.parametrize("service", [{"rate_per_s": 0.001, "rate_burst": 2}], indirect=True)
def test_too_many_calls_are_answered_with_the_time_to_come_back(service: Service) -> None:
    ann, get = stub(service), datanet_pb2.GetDatanetRequest(name=NAME)
    assert [ann.GetDatanet(get, timeout=LONGEST_S).name for _ in range(2)] == [NAME] * 2
    with pytest.raises(grpc.RpcError) as refused:
        ann.GetDatanet(get, timeout=LONGEST_S)
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    trailers = dict(refused.value.trailing_metadata())
    details = status_pb2.Status.FromString(trailers["grpc-status-details-bin"]).details
    kinds = [detail.TypeName() for detail in details]
    assert kinds == ["google.rpc.ErrorInfo", "google.rpc.RetryInfo"]
    retry = error_details_pb2.RetryInfo()
    details[1].Unpack(retry)
    assert 0 < retry.retry_delay.ToTimedelta().total_seconds() <= 1000
    assert stub(service, "bob").GetDatanet(get, timeout=LONGEST_S).name == NAME


@pytest.mark.parametrize("service", [{"rate_per_s": 0.001, "rate_burst": 2}], indirect=True)
def test_calls_that_are_refused_count_as_well(service: Service) -> None:
    """Or a principal without any permission could ask for ever."""
    assert service.address is not None
    with sync_channel(service.address.grpc, token(service, ["user"], "eve")) as over:
        eve = datanet_pb2_grpc.DatanetServiceStub(over)
        get = datanet_pb2.GetDatanetRequest(name=NAME)
        codes = [error_of(lambda: eve.GetDatanet(get, timeout=LONGEST_S)).code for _ in range(3)]
    assert codes == [grpc.StatusCode.PERMISSION_DENIED] * 2 + [grpc.StatusCode.RESOURCE_EXHAUSTED]


@pytest.mark.parametrize("service", [{"max_running_calls": 2}], indirect=True)
def test_a_principal_has_only_so_many_streams_open(service: Service, api: Datanets) -> None:
    download = datanet_pb2.DownloadSnapshotRequest(name=f"{NAME}/snapshots/1", part=1)
    auditor = token(service, ["auditor"], "ann")
    assert service.address is not None
    over = datanet_pb2_grpc.DatanetServiceStub(sync_channel(service.address.grpc, auditor))
    open_ = [over.DownloadSnapshot(download, timeout=LONGEST_S) for _ in range(2)]
    for _ in open_:
        assert api.entered.acquire(timeout=LONGEST_S)
    refused = error_of(lambda: list(over.DownloadSnapshot(download, timeout=LONGEST_S)))
    assert (refused.code, refused.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_CALLS")
    api.release.set()
    assert [list(stream) for stream in open_] == [[], []]

    def let_in_again() -> bool:
        try:
            return list(over.DownloadSnapshot(download, timeout=LONGEST_S)) == []
        except grpc.RpcError as error:  # the server ends a call after its client has the answer
            if from_rpc_error(error).reason != "TOO_MANY_CALLS":
                raise
            return False

    eventually(let_in_again, "the end of the first two")


@pytest.mark.parametrize("service", [{"max_concurrent_streams": 2}], indirect=True)
def test_a_connection_has_only_so_many_calls_open_and_the_next_waits(service: Service, api: Datanets) -> None:
    download = datanet_pb2.DownloadSnapshotRequest(name=f"{NAME}/snapshots/1", part=1)
    assert service.address is not None
    with sync_channel(service.address.grpc, token(service, ["auditor"], "ann")) as channel:
        over = datanet_pb2_grpc.DatanetServiceStub(channel)
        open_ = [over.DownloadSnapshot(download, timeout=LONGEST_S) for _ in range(2)]
        for _ in open_:
            assert api.entered.acquire(timeout=LONGEST_S)
        waiting = error_of(lambda: list(over.DownloadSnapshot(download, timeout=0.5)))
        assert waiting.code is grpc.StatusCode.DEADLINE_EXCEEDED
        assert not api.entered.acquire(blocking=False)  # it never came in
        api.release.set()
        assert [list(stream) for stream in open_] == [[], []]
        assert list(over.DownloadSnapshot(download, timeout=LONGEST_S)) == []


def test_bytes_that_are_no_message_are_an_invalid_argument(service: Service) -> None:
    assert service.address is not None
    with sync_channel(service.address.grpc, token(service, ["curator"])) as over:
        raw = over.unary_unary("/openledger.datanet.v1.DatanetService/GetDatanet")
        for invalid in (b"\xff", b"\x0a\xff", b"\x0a\x02\xff\xfe"):
            refused = error_of(lambda data=invalid: raw(data, timeout=LONGEST_S))
            assert isinstance(refused, received.InvalidArgument)
            assert refused.violations[0].rule.lower() == "malformed"


def test_bytes_are_read_only_once_it_is_known_who_sends_them(service: Service) -> None:
    assert service.address is not None
    with sync_channel(service.address.grpc) as over:
        raw = over.unary_unary("/openledger.datanet.v1.DatanetService/GetDatanet")
        assert isinstance(error_of(lambda: raw(b"\xff", timeout=LONGEST_S)), received.Unauthenticated)


def test_no_byte_of_a_request_is_awaited_before_it_is_known_who_sends_it(service: Service) -> None:
    """gRPC would read the request of a unary method before its handler runs. This client never sends one."""
    assert service.address is not None
    never = threading.Event()

    def nothing() -> Iterator[bytes]:
        never.wait(LONGEST_S)
        yield b""

    with sync_channel(service.address.grpc) as over:
        for name in ("GetDatanet", "CreateDatanet", "DownloadSnapshot"):
            raw = over.stream_unary(f"/openledger.datanet.v1.DatanetService/{name}")
            assert isinstance(
                error_of(lambda raw=raw: raw(nothing(), timeout=LONGEST_S)), received.Unauthenticated
            )
    never.set()


def test_a_call_that_ends_without_a_request_is_an_invalid_argument(service: Service) -> None:
    assert service.address is not None
    with sync_channel(service.address.grpc, token(service, ["curator"])) as over:
        raw = over.stream_unary("/openledger.datanet.v1.DatanetService/GetDatanet")
        assert isinstance(error_of(lambda: raw(iter(()), timeout=LONGEST_S)), received.InvalidArgument)


def test_a_request_above_4_mib_is_refused_by_name_and_a_much_larger_one_by_grpc(service: Service) -> None:
    assert service.address is not None
    with sync_channel(service.address.grpc, token(service, ["curator"])) as over:
        raw = over.unary_unary("/openledger.datanet.v1.DatanetService/GetDatanet")
        large = error_of(lambda: raw(bytes((4 << 20) + 1), timeout=LONGEST_S))
        assert (large.code, large.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "REQUEST_TOO_LARGE")
        assert large.metadata["limit_bytes"] == str(4 << 20)
    with grpc.insecure_channel(service.address.grpc) as plain:  # ours would not send it
        raw = plain.unary_unary("/openledger.datanet.v1.DatanetService/GetDatanet")
        metadata = [("authorization", f"Bearer {token(service, ['curator'])}")]
        too_large = error_of(lambda: raw(bytes(5 << 20), timeout=LONGEST_S, metadata=metadata))
        assert too_large.code is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_a_large_message_does_not_end_a_stream(service: Service) -> None:
    """The handler decides: datanet refuses such a record by its rule, and the stream continues."""
    sizes = [1, 4 << 20, 2]
    requests = (datanet_pb2.ContributeRequest(content=bytes(size)) for size in sizes)
    assert [each.sequence for each in stub(service).Contribute(requests, timeout=LONGEST_S)] == sizes


# The room of one incomplete request for a principal, and of three for all.
@pytest.mark.parametrize("service", [{"max_request_memory_bytes": 16 << 20}], indirect=True)
def test_clients_that_send_no_request_make_room_for_those_that_do(service: Service) -> None:
    assert service.address is not None
    silent = threading.Event()

    def nothing() -> Iterator[bytes]:
        silent.wait(LONGEST_S)
        yield b""

    with ExitStack() as until:
        until.callback(silent.set)
        stalled = []
        for number in range(6):
            over = sync_channel(service.address.grpc, token(service, ["curator"], f"eve{number}"))
            until.enter_context(over)
            raw = over.stream_unary("/openledger.datanet.v1.DatanetService/GetDatanet")
            stalled.append(raw.future(nothing(), timeout=LONGEST_S))
        get = datanet_pb2.GetDatanetRequest(name=NAME)
        for _ in range(6):
            ann = retried(lambda: stub(service, "ann").GetDatanet(get, timeout=LONGEST_S))
        assert ann.name == NAME
        refused = error_of(stalled[0].result)
    assert (refused.code, refused.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "REQUEST_INCOMPLETE")
    assert refused.retry_after_s == 1


def retried(call: Any) -> Any:
    """Repeats a call as its refusals ask, as clients do."""
    while True:
        try:
            return call()
        except grpc.RpcError as error:
            if from_rpc_error(error).reason != "REQUEST_MEMORY":
                raise


@pytest.mark.parametrize("service", [{"max_request_streams": 8}], indirect=True)
def test_one_principal_cannot_open_all_streams_of_requests(service: Service) -> None:
    silent = threading.Event()

    def one_record() -> Iterator[Any]:
        yield datanet_pb2.ContributeRequest()
        silent.wait(LONGEST_S)

    ann = stub(service, "ann")
    opened = [ann.Contribute(one_record()) for _ in range(2)]
    for each in opened:
        next(each)
    refused = error_of(lambda: next(ann.Contribute(one_record())))
    assert (refused.code, refused.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_STREAMS")
    assert next(stub(service, "bob").Contribute(one_record())).sequence == 0
    silent.set()
