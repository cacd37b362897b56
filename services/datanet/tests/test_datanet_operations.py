"""Seal operations over the API: started, read, listed, watched, cancelled, by those who may."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from openledger.datanet.v1 import datanet_pb2 as pb

from openledger_client.errors import InvalidArgument, NotFound, OpenLedgerError, PermissionDenied

Encode = Callable[..., bytes]
Refusal = Callable[..., OpenLedgerError]
SUCCEEDED = pb.SEAL_OPERATION_STATE_SUCCEEDED
UNKNOWN = "01J00000000000000000000000"


@pytest.fixture
def started(net: Any, encode: Encode) -> pb.SealOperation:
    """An operation that has just begun to wait."""
    net.contribute(net.alice, [encode(f"The group lists the processes of host {n}.") for n in range(3)])
    request = pb.SealSnapshotRequest(parent=net.name, held_out_fraction=0.3, split_salt="salt")
    operation: pb.SealOperation = net.owner.SealSnapshot(request)
    return operation


def watched(net: Any, name: str) -> list[pb.SealOperation]:
    return list(net.owner.WatchSealOperation(pb.WatchSealOperationRequest(name=name), timeout=60))


def test_a_watch_ends_with_the_snapshot(net: Any, started: pb.SealOperation) -> None:
    assert started.state in (pb.SEAL_OPERATION_STATE_PENDING, pb.SEAL_OPERATION_STATE_RUNNING)
    assert not started.snapshot
    updates = watched(net, started.name)
    states = [each.state for each in updates]
    assert states == sorted(states), "pending, running, succeeded"
    last = updates[-1]
    assert (last.state, last.snapshot) == (SUCCEEDED, f"{net.name}/snapshots/1")
    assert (last.principal, last.attempt_count) == (f"{net.id}-owner", 1)
    assert (last.held_out_fraction, last.control_fraction, last.split_salt) == (0.3, 0.1, "salt")
    assert last.create_time.ToDatetime() <= last.start_time.ToDatetime() <= last.end_time.ToDatetime()
    assert net.owner.GetSealOperation(pb.GetSealOperationRequest(name=started.name)) == last
    assert net.owner.GetSnapshot(pb.GetSnapshotRequest(name=last.snapshot)).record_count == 3
    assert watched(net, started.name) == [last], "a later watch has the end at once"


def test_operations_are_listed_newest_first_and_filtered(net: Any, started: pb.SealOperation) -> None:
    watched(net, started.name)
    second = net.seal()
    request = pb.ListSealOperationsRequest(parent=net.name, page_size=1)
    page = net.owner.ListSealOperations(request)
    assert (page.seal_operations[0].snapshot, page.total_size) == (second.name, 2)
    request.page_token = page.next_page_token
    rest = net.owner.ListSealOperations(request)
    assert ([each.name for each in rest.seal_operations], rest.next_page_token) == ([started.name], "")
    for condition, expected in (
        (f'snapshot = "{second.name}"', 1),
        ("state = SUCCEEDED AND attempt_count = 1", 2),
        ("state = FAILED", 0),
        (f'name = "{started.name}"', 1),
        (f'principal = "{net.id}-owner"', 2),
    ):
        asked = pb.ListSealOperationsRequest(parent=net.name, filter=condition, order_by="end_time")
        assert net.owner.ListSealOperations(asked).total_size == expected, condition


def test_an_operation_that_has_ended_cannot_be_cancelled(net: Any, started: pb.SealOperation) -> None:
    (*_, ended) = watched(net, started.name)
    assert net.owner.CancelSealOperation(pb.CancelSealOperationRequest(name=started.name)) == ended


def test_a_cancelled_operation_ends_its_watches_and_makes_no_snapshot(
    net: Any, started: pb.SealOperation
) -> None:
    cancelled = net.owner.CancelSealOperation(pb.CancelSealOperationRequest(name=started.name))
    assert watched(net, started.name) == [cancelled]
    made = 0 if cancelled.state == pb.SEAL_OPERATION_STATE_CANCELLED else 1  # it may have been faster
    assert net.owner.ListSnapshots(pb.ListSnapshotsRequest(parent=net.name)).total_size == made


def test_operations_are_for_the_owner_and_the_roles_that_read_all(
    net: Any, started: pb.SealOperation, refusal: Refusal
) -> None:
    get = pb.GetSealOperationRequest(name=started.name)
    listed = pb.ListSealOperationsRequest(parent=net.name)
    watch = pb.WatchSealOperationRequest(name=started.name)
    cancel = pb.CancelSealOperationRequest(name=started.name)
    for stranger in (net.world.client("someone", "curator"), net.client("alice")):
        for call, request in (
            (stranger.GetSealOperation, get),
            (stranger.ListSealOperations, listed),
            (stranger.WatchSealOperation, watch),
            (stranger.CancelSealOperation, cancel),
        ):
            assert isinstance(refusal(call, request), PermissionDenied)
    auditor = net.world.client("carol", "auditor")
    assert auditor.GetSealOperation(get).name == started.name
    assert isinstance(refusal(auditor.CancelSealOperation, cancel), PermissionDenied)
    admin = net.world.client("root", "admin")
    assert admin.CancelSealOperation(cancel).name == started.name


@pytest.mark.parametrize("of", ["GetSealOperation", "WatchSealOperation", "CancelSealOperation"])
def test_an_unknown_operation_is_named(net: Any, refusal: Refusal, of: str) -> None:
    name = f"{net.name}/sealOperations/{UNKNOWN}"
    request = getattr(pb, f"{of}Request")(name=name)
    refused = refusal(getattr(net.owner, of), request)
    assert isinstance(refused, NotFound)
    assert (refused.reason, refused.metadata["name"]) == ("SEAL_OPERATION_NOT_FOUND", name)
    request.name = f"{net.name}/sealOperations/1"
    assert isinstance(refusal(getattr(net.owner, of), request), InvalidArgument)


def test_an_operation_of_another_datanet_is_not_found_under_this_one(
    net: Any, started: pb.SealOperation, make_net: Callable[..., Any], refusal: Refusal
) -> None:
    other = make_net(pb.QualityPolicy())
    name = started.name.replace(net.name, other.name)
    assert isinstance(refusal(other.owner.GetSealOperation, pb.GetSealOperationRequest(name=name)), NotFound)
