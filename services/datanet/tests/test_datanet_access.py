"""What a curator of one Datanet, a contributor of another and a reader may do in this one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from openledger.datanet.v1 import datanet_pb2 as pb

from openledger_client.errors import AlreadyExists, InvalidArgument, OpenLedgerError, PermissionDenied

Encode = Callable[..., bytes]
Refusal = Callable[..., OpenLedgerError]

TEXT = "The group lists the processes of this host and waits."
ABOUT_TEXT = pb.DECISION_SUBJECT_TEXT


@pytest.fixture
def sealed(net: Any, encode: Encode) -> pb.Snapshot:
    """A snapshot of one record."""
    net.contribute(net.alice, [encode(TEXT)])
    snapshot: pb.Snapshot = net.seal(request_id="seal")
    return snapshot


@pytest.mark.parametrize("part", [pb.SNAPSHOT_PART_RECORDS, pb.SNAPSHOT_PART_MANIFEST])
def test_an_export_is_for_the_owner_and_the_roles_that_read_all(
    net: Any, sealed: pb.Snapshot, refusal: Refusal, part: int
) -> None:
    """Records are not public, nor is the manifest: it says who is paid where."""
    request = pb.DownloadSnapshotRequest(name=sealed.name, part=part)
    for principal, role in (("someone", "curator"), (f"{net.id}-owner", "contributor")):
        assert isinstance(
            refusal(net.world.client(principal, role).DownloadSnapshot, request), PermissionDenied
        )
    for principal, role in ((f"{net.id}-owner", "curator"), ("carol", "auditor"), ("a", "service")):
        assert list(net.world.client(principal, role).DownloadSnapshot(request))


def test_a_snapshot_and_a_datanet_are_visible_to_every_role_with_permission(
    net: Any, sealed: pb.Snapshot
) -> None:
    for role in ("contributor", "builder", "approver", "auditor"):
        stranger = net.world.client("stranger", role)
        assert stranger.GetSnapshot(pb.GetSnapshotRequest(name=sealed.name)).root == sealed.root
        assert stranger.GetDatanet(pb.GetDatanetRequest(name=net.name)).owner == f"{net.id}-owner"


def test_a_contributor_withdraws_its_own_record_and_no_others(
    net: Any, sealed: pb.Snapshot, refusal: Refusal
) -> None:
    record = net.owner.ListRecords(pb.ListRecordsRequest(parent=net.name)).records[0].name
    request = pb.WithdrawRecordRequest(name=record)
    assert isinstance(refusal(net.client("bob").WithdrawRecord, request), PermissionDenied)
    withdrawn = net.client("alice").WithdrawRecord(request)
    assert withdrawn.state == pb.RECORD_STATE_WITHDRAWN


def test_a_request_id_is_its_principals_and_of_one_content(
    net: Any, sealed: pb.Snapshot, refusal: Refusal
) -> None:
    assert net.seal(request_id="seal") == sealed
    other = pb.SealSnapshotRequest(parent=net.name, request_id="seal", held_out_fraction=0.5)
    assert isinstance(refusal(net.owner.SealSnapshot, other), AlreadyExists)
    admin = net.world.client("root", "admin")
    request = pb.SealSnapshotRequest(parent=net.name, request_id="seal")
    assert admin.SealSnapshot(request).name != net.owner.SealSnapshot(request).name


def test_a_late_repeat_of_a_review_does_not_undo_a_newer_one(
    make_net: Any, encode: Encode, refusal: Refusal
) -> None:
    net = make_net(pb.QualityPolicy(review_mode=pb.REVIEW_MODE_MANUAL))
    net.contribute(net.alice, [encode(TEXT)])
    record = net.owner.ListRecords(pb.ListRecordsRequest(parent=net.name)).records[0].name
    accept = pb.ReviewRecordRequest(name=record, decision=pb.RECORD_STATE_ACCEPTED, request_id="accept")
    assert net.owner.ReviewRecord(accept).state == pb.RECORD_STATE_ACCEPTED
    reject = pb.ReviewRecordRequest(
        name=record, decision=pb.RECORD_STATE_REJECTED, reason="not ours", subject=ABOUT_TEXT
    )
    assert net.owner.ReviewRecord(reject).state == pb.RECORD_STATE_REJECTED
    assert net.owner.ReviewRecord(accept).state == pb.RECORD_STATE_REJECTED
    reused = pb.ReviewRecordRequest(
        name=record, decision=pb.RECORD_STATE_REJECTED, reason="x", request_id="accept", subject=ABOUT_TEXT
    )
    assert isinstance(refusal(net.owner.ReviewRecord, reused), AlreadyExists)


def test_a_state_that_does_not_exist_is_refused_without_a_query(net: Any, refusal: Refusal) -> None:
    """Found by `make fuzz`, seed 4711: it was an internal error."""
    for state in (99, 2**31 - 1, -1):
        request = pb.ListRecordsRequest(parent=net.name, state=state, contributor=net.alice)  # type: ignore[arg-type]
        refused = refusal(net.owner.ListRecords, request)
        assert isinstance(refused, InvalidArgument)
        assert refused.metadata["field"] == "state"
    policy = pb.QualityPolicy(review_mode=99)  # type: ignore[arg-type]
    content = pb.Datanet(licence="CC0-1.0", schema=net.made.schema, policy=policy)
    asked = pb.CreateDatanetRequest(datanet_id=f"{net.id}-x", datanet=content)
    assert isinstance(refusal(net.owner.CreateDatanet, asked), InvalidArgument)
