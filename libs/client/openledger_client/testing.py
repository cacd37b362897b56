"""For tests: a gRPC server in this process whose behaviour the test scripts."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2
from openledger.common.v1.estimate_pb2 import Progress
from openledger.common.v1.object_pb2 import ObjectChunk
from openledger.datanet.v1 import datanet_pb2 as pb
from openledger.datanet.v1 import datanet_pb2_grpc
from openledger.settlement.v1 import settlement_pb2, settlement_pb2_grpc

from openledger_client.errors import DETAILS_KEY

OBJECT = b"snapshot " * 100
_ULID = "01J00000000000000000000000"
_PENDING, _RUNNING = pb.SEAL_OPERATION_STATE_PENDING, pb.SEAL_OPERATION_STATE_RUNNING
_SUCCEEDED = pb.SEAL_OPERATION_STATE_SUCCEEDED
DIGEST = "sha256:" + hashlib.sha256(OBJECT).hexdigest()


def refuse(
    context: grpc.ServicerContext, code: grpc.StatusCode, message: str, retry_s: float | None = None
) -> None:
    """Ends the call with a `google.rpc.Status`."""
    status = status_pb2.Status(code=code.value[0], message=message)
    status.details.add().Pack(error_details_pb2.ErrorInfo(reason="SCRIPTED", domain="openledger.dev"))
    if retry_s is not None:
        delay = Duration()
        delay.FromNanoseconds(round(retry_s * 1e9))
        status.details.add().Pack(error_details_pb2.RetryInfo(retry_delay=delay))
    context.set_trailing_metadata(((DETAILS_KEY, status.SerializeToString()),))
    context.abort(code, message)


@dataclass(kw_only=True)
class Script:
    """The behaviour of the server, and the requests that it received."""

    failures: list[Callable[[grpc.ServicerContext], None]] = field(default_factory=list)
    """Each ends one call; then calls succeed."""
    requests: list[Any] = field(default_factory=list)
    remaining_s: list[float] = field(default_factory=list)
    metadata: list[dict[str, Any]] = field(default_factory=list)
    cut_after: list[int] = field(default_factory=list)
    """After how many responses each stream is cut; then streams are whole."""
    stored: list[bytes] = field(default_factory=list)
    """Records, in the order in which they were stored."""
    datanet: pb.Datanet = field(default_factory=pb.Datanet)
    """What GetDatanet answers; the name is filled in."""
    judge: Callable[[bytes], str] = lambda content: ""
    """Returns the rule that rejects a record, or "". A rejected record is stored too, as in the service."""
    sent: bytes = OBJECT
    """The bytes of every download."""
    sealing: list[pb.SealOperation] = field(default_factory=list)
    """The updates of every watch of a seal operation, whose names are filled in; by default it waits, runs and succeeds."""
    hold: threading.Event | None = None
    """What the last update of a seal operation waits for."""

    def arrived(self, request: Any, context: grpc.ServicerContext) -> None:
        """Records a call, and ends it with the next scripted failure, if any."""
        self.requests.append(request)
        self.remaining_s.append(context.time_remaining())
        self.metadata.append(dict(context.invocation_metadata()))
        if self.failures:
            self.failures.pop(0)(context)

    def cut(self) -> int:
        """Returns after how many responses the new stream is cut; -1 for never."""
        return self.cut_after.pop(0) if self.cut_after else -1


def unavailable(context: grpc.ServicerContext) -> None:
    """Ends a call like a lost connection."""
    context.abort(grpc.StatusCode.UNAVAILABLE, "scripted")


class Datanets(datanet_pb2_grpc.DatanetServiceServicer):
    """Five Datanets, one object, and a store of records."""

    def __init__(self, script: Script) -> None:
        self._script = script

    def GetDatanet(self, request: Any, context: Any) -> pb.Datanet:
        self._script.arrived(request, context)
        found = pb.Datanet(name=request.name)
        found.MergeFrom(self._script.datanet)
        return found

    def CreateDatanet(self, request: Any, context: Any) -> pb.Datanet:
        self._script.arrived(request, context)
        return pb.Datanet(name=f"datanets/{request.datanet_id}")

    def WithdrawRecord(self, request: Any, context: Any) -> pb.Record:
        self._script.arrived(request, context)
        return pb.Record(name=request.name)

    def ListDatanets(self, request: Any, context: Any) -> pb.ListDatanetsResponse:
        self._script.arrived(request, context)
        start, size = int(request.page_token or 0), request.page_size or 2
        names = [f"datanets/d{n}" for n in range(5)][start : start + size]
        return pb.ListDatanetsResponse(
            datanets=[pb.Datanet(name=name) for name in names],
            next_page_token=str(start + size) if start + size < 5 else "",
        )

    def ListRecords(self, request: Any, context: Any) -> pb.ListRecordsResponse:
        """Three pending records, on two pages."""
        self._script.arrived(request, context)
        names = [f"{request.parent}/records/{digit * 64}" for digit in "012"]
        start = int(request.page_token or 0)
        return pb.ListRecordsResponse(
            records=[pb.Record(name=name) for name in names[start : start + 2]],
            next_page_token="" if start else "2",
        )

    def ReviewRecord(self, request: Any, context: Any) -> pb.Record:
        self._script.arrived(request, context)
        return pb.Record(name=request.name, state=request.decision)

    def SealSnapshot(self, request: Any, context: Any) -> pb.SealOperation:
        self._script.arrived(request, context)
        return pb.SealOperation(name=f"{request.parent}/sealOperations/{_ULID}", state=_PENDING)

    def WatchSealOperation(self, request: Any, context: Any) -> Iterator[pb.SealOperation]:
        """The current state and what follows, as the service does for a new watch."""
        self._script.arrived(request, context)
        snapshot = f"{request.name.partition('/sealOperations/')[0]}/snapshots/1"
        updates = self._script.sealing or [
            pb.SealOperation(state=_PENDING, queue_position=1),
            pb.SealOperation(state=_RUNNING, progress=Progress(stage="copy", done=1, total=2)),
            pb.SealOperation(state=_SUCCEEDED, snapshot=snapshot),
        ]
        cut = self._script.cut()
        for number, update in enumerate(updates):
            if number == cut:
                unavailable(context)
            if self._script.hold is not None and number == len(updates) - 1:
                self._script.hold.wait(timeout=300)
            update.name = request.name
            yield update

    def GetSnapshot(self, request: Any, context: Any) -> pb.Snapshot:
        self._script.arrived(request, context)
        return pb.Snapshot(name=request.name)

    def DownloadSnapshot(self, request: Any, context: Any) -> Iterator[ObjectChunk]:
        self._script.arrived(request, context)
        cut, size = self._script.cut(), 64
        for number, offset in enumerate(range(0, len(self._script.sent), size)):
            if number == cut:
                unavailable(context)
            data = self._script.sent[offset : offset + size]
            yield ObjectChunk(digest=DIGEST, size=len(self._script.sent), offset=offset, data=data)

    def Contribute(self, requests: Any, context: Any) -> Iterator[pb.ContributeResponse]:
        """Stores before it acknowledges; a cut stream stores one record whose acknowledgement is lost."""
        cut = self._script.cut()
        for number, request in enumerate(requests):
            rule = self._script.judge(request.content)
            known = request.content in self._script.stored
            if not known:
                self._script.stored.append(request.content)
            if number == cut:
                unavailable(context)
            yield answer(request, rule, already_present=known)


def answer(request: pb.ContributeRequest, rule: str, *, already_present: bool) -> pb.ContributeResponse:
    """Returns the result of a record, as the service forms it; `rule` rejects the record unless it is ""."""
    response = pb.ContributeResponse(
        sequence=request.sequence, already_present=already_present, rule=rule, state=pb.RECORD_STATE_ACCEPTED
    )
    if rule:
        response.state = pb.RECORD_STATE_REJECTED
        response.status.code, response.status.message = 3, f"the record breaks {rule}"
    return response


class Batches(settlement_pb2_grpc.SettlementServiceServicer):
    """Batches that pass through every state."""

    def __init__(self, script: Script) -> None:
        self._script = script

    def WatchBatch(self, request: Any, context: Any) -> Iterator[settlement_pb2.Batch]:
        """Every state from the first on, as the service does for a new watch."""
        self._script.arrived(request, context)
        cut = self._script.cut()
        for number, state in enumerate(range(1, 6)):
            if number == cut:
                unavailable(context)
            yield settlement_pb2.Batch(name=request.name, state=state)  # type: ignore[arg-type]


@contextmanager
def scripted_server(script: Script) -> Iterator[str]:
    """Runs a server that follows `script` until the block ends, and yields its address."""
    with ThreadPoolExecutor(8) as pool:
        server = grpc.server(pool)
        datanet_pb2_grpc.add_DatanetServiceServicer_to_server(
            Datanets(script),  # type: ignore[abstract]  # other methods stay unimplemented
            server,
        )
        settlement_pb2_grpc.add_SettlementServiceServicer_to_server(
            Batches(script),  # type: ignore[abstract]
            server,
        )
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        yield f"127.0.0.1:{port}"
        server.stop(0).wait()
