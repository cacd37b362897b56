"""Sealing a snapshot: an operation of the service, which continues whether anyone follows it or not."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from openledger.datanet.v1 import datanet_pb2 as pb

from openledger_client.errors import Cancelled, OpenLedgerError, from_status
from openledger_client.watches import async_watch, watch

if TYPE_CHECKING:
    from openledger.datanet.v1.datanet_pb2_grpc import DatanetServiceAsyncStub, DatanetServiceStub

    from openledger_client.resumption import Patience

OnUpdate = Callable[[pb.SealOperation], object]


def seal(
    stub: DatanetServiceStub,
    request: pb.SealSnapshotRequest,
    *,
    on_update: OnUpdate | None = None,
    patience: Patience | None = None,
) -> pb.Snapshot:
    """Seals the accepted records of a Datanet into its next snapshot, and returns the snapshot.

    When this raises or is interrupted, the operation continues: the same request (with its `request_id`) follows it again.

    Args:
        stub: `client.datanet`.
        request: what to seal.
        on_update: called with the operation at once and after each change of it.
        patience: how long the service may stay unreachable.

    Raises:
        OpenLedgerError: the service refuses the request, the operation fails or is cancelled, or the service stays
            unreachable for longer than `patience` allows.
    """
    return wait(stub, stub.SealSnapshot(request).name, on_update=on_update, patience=patience)


def wait(
    stub: DatanetServiceStub,
    name: str,
    *,
    on_update: OnUpdate | None = None,
    patience: Patience | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> pb.Snapshot:
    """Follows `datanets/{datanet}/sealOperations/{ulid}` to its end, and returns its snapshot. Raises as `seal`."""
    last = pb.SealOperation()
    request = pb.WatchSealOperationRequest(name=name)
    for last in watch(stub.WatchSealOperation, request, patience=patience, sleep=sleep):
        if on_update is not None:
            on_update(last)
    return stub.GetSnapshot(pb.GetSnapshotRequest(name=snapshot_of(last)))


async def async_seal(
    stub: DatanetServiceAsyncStub,
    request: pb.SealSnapshotRequest,
    *,
    on_update: OnUpdate | None = None,
    patience: Patience | None = None,
) -> pb.Snapshot:
    """`seal` for asyncio."""
    last = await stub.SealSnapshot(request)
    call: Any = stub.WatchSealOperation
    updates = async_watch(call, pb.WatchSealOperationRequest(name=last.name), patience=patience)
    async for update in updates:
        last = update
        if on_update is not None:
            on_update(last)
    return await stub.GetSnapshot(pb.GetSnapshotRequest(name=snapshot_of(last)))


def snapshot_of(operation: pb.SealOperation) -> str:
    """Returns the snapshot of an operation that has ended. Raises the error that it failed with, or Cancelled."""
    if error := error_of(operation):
        raise error
    return operation.snapshot


def error_of(operation: pb.SealOperation) -> OpenLedgerError | None:
    """Returns why an operation has ended without a snapshot; None if it has not."""
    if operation.state == pb.SEAL_OPERATION_STATE_CANCELLED:
        message = f"{operation.name} was cancelled"
        return Cancelled(message, reason="SEAL_CANCELLED", metadata={"name": operation.name})
    if operation.state == pb.SEAL_OPERATION_STATE_FAILED:
        return from_status(operation.error)
    return None
