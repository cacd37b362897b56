"""A seal is followed to its end over lost connections, and its failure is the caller's typed error."""

from __future__ import annotations

import pytest
from google.rpc import error_details_pb2
from google.rpc.status_pb2 import Status
from openledger.datanet.v1 import datanet_pb2 as pb

from openledger_client import Addresses, AsyncClient, Client
from openledger_client.errors import Cancelled, FailedPrecondition
from openledger_client.resumption import Patience
from openledger_client.sealing import async_seal, seal, wait
from openledger_client.testing import Script

REQUEST = pb.SealSnapshotRequest(parent="datanets/d")
NAME = "datanets/d/sealOperations/01J00000000000000000000000"
QUICKLY = Patience(first_s=0.001)
PENDING, RUNNING = pb.SEAL_OPERATION_STATE_PENDING, pb.SEAL_OPERATION_STATE_RUNNING
SUCCEEDED = pb.SEAL_OPERATION_STATE_SUCCEEDED


@pytest.mark.parametrize("cut_after", [[], [0], [1, 2]])
def test_a_seal_returns_the_snapshot_after_every_update_once(
    client: Client, script: Script, cut_after: list[int]
) -> None:
    script.cut_after = cut_after
    seen: list[pb.SealOperation] = []
    sealed = seal(client.datanet, REQUEST, on_update=seen.append, patience=QUICKLY)
    assert sealed.name == "datanets/d/snapshots/1"
    assert [each.state for each in seen] == [PENDING, RUNNING, SUCCEEDED]
    assert script.requests[0].request_id, "a repeat of the call would seal once"


async def test_asyncio_seals(addresses: Addresses, script: Script) -> None:
    script.cut_after = [1]
    seen: list[pb.SealOperation] = []
    async with AsyncClient(addresses) as client:
        sealed = await async_seal(client.datanet, REQUEST, on_update=seen.append, patience=QUICKLY)
    assert sealed.name == "datanets/d/snapshots/1"
    assert [each.state for each in seen] == [PENDING, RUNNING, SUCCEEDED]


def test_a_failed_operation_raises_its_error(client: Client, script: Script) -> None:
    status = Status(code=9, message="datanets/d has no accepted records")
    status.details.add().Pack(error_details_pb2.ErrorInfo(reason="DATANET_EMPTY", domain="openledger.dev"))
    script.sealing = [pb.SealOperation(state=pb.SEAL_OPERATION_STATE_FAILED, error=status)]
    with pytest.raises(FailedPrecondition) as raised:
        wait(client.datanet, NAME)
    assert (raised.value.reason, str(raised.value)) == ("DATANET_EMPTY", status.message)


def test_a_cancelled_operation_raises(client: Client, script: Script) -> None:
    script.sealing = [pb.SealOperation(state=pb.SEAL_OPERATION_STATE_CANCELLED)]
    with pytest.raises(Cancelled) as raised:
        wait(client.datanet, NAME)
    assert (raised.value.reason, raised.value.metadata["name"]) == ("SEAL_CANCELLED", NAME)
