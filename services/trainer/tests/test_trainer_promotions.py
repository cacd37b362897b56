"""What a model serves has a history that cannot be changed unseen, and one command goes back in it; overrides can be
listed, read and refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc
import pytest
from openledger.trainer.v1 import trainer_pb2 as pb

from identity.digest import sha256_bytes
from openledger_client.errors import FailedPrecondition, OpenLedgerError, PermissionDenied, from_rpc_error
from openledger_ops.promotions import broken

pytestmark = pytest.mark.slow

REASON = "Four points on ARC-Easy are acceptable for triage."


def refused(call: Callable[[], Any]) -> OpenLedgerError:
    """Returns the error of a call; fails the test where it passes."""
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return from_rpc_error(caught.value)


def promote(trainer: Any, version: pb.ModelVersion, override: str = "") -> pb.ModelVersion:
    request = pb.PromoteModelVersionRequest(name=version.name, override=override)
    return trainer.stub().PromoteModelVersion(request)


def passed(trainer: Any) -> pb.ModelVersion:
    return trainer.evaluated(trainer.trained(), domain=0.3, arc_easy=0.0)


def rollback(trainer: Any, **fields: Any) -> pb.Promotion:
    request = pb.RollbackModelRequest(name="models/threat-intel", reason="answers became worse", **fields)
    return trainer.stub().RollbackModel(request)


def history(trainer: Any) -> list[pb.Promotion]:
    request = pb.ListPromotionsRequest(parent="models/threat-intel")
    return list(reversed(trainer.stub().ListPromotions(request).promotions))


def served(trainer: Any) -> str:
    request = pb.ListModelVersionsRequest(parent="models/threat-intel", filter="state = PROMOTED")
    (version,) = trainer.stub().ListModelVersions(request).model_versions
    return version.name


def test_a_rollback_serves_what_was_served_before_and_a_second_one_goes_further_back(trainer: Any) -> None:
    trainer.seal()
    versions = [promote(trainer, passed(trainer)).name for _ in range(3)]
    back = rollback(trainer)
    assert (back.model_version, back.retired_version) == (versions[1], versions[2])
    assert (back.kind, back.back_to) == (
        pb.PROMOTION_KIND_ROLLED_BACK,
        "models/threat-intel/promotions/2",
    )
    assert served(trainer) == versions[1]
    assert rollback(trainer).model_version == versions[0]
    error = refused(lambda: rollback(trainer))
    assert error.reason == "NOTHING_TO_ROLL_BACK_TO"
    assert served(trainer) == versions[0]


def test_a_repeated_rollback_request_goes_back_once(trainer: Any) -> None:
    trainer.seal()
    versions = [promote(trainer, passed(trainer)).name for _ in range(3)]
    assert rollback(trainer, request_id="r") == rollback(trainer, request_id="r")
    assert served(trainer) == versions[1]


def test_a_rollback_needs_no_override_and_is_the_owners_or_an_approvers(trainer: Any) -> None:
    trainer.seal()
    first = trainer.evaluated(trainer.trained(), domain=0.4, arc_easy=-0.05)
    override = trainer.stub().CreatePromotionOverride(
        pb.CreatePromotionOverrideRequest(model_version=first.name, reason=REASON)
    )
    trainer.stub("bob", "approver").ApprovePromotionOverride(
        pb.ApprovePromotionOverrideRequest(name=override.name)
    )
    promote(trainer, first, override.name)
    promote(trainer, passed(trainer))
    eve = trainer.stub("eve", "builder")
    request = pb.RollbackModelRequest(name="models/threat-intel", reason="mine")
    assert isinstance(refused(lambda: eve.RollbackModel(request)), PermissionDenied)
    assert trainer.stub("bob", "approver").RollbackModel(request).model_version == first.name
    one, two, three = history(trainer)
    assert (one.kind, one.override, list(one.people)) == (
        pb.PROMOTION_KIND_OVERRIDDEN,
        override.name,
        ["alice", "bob"],
    )
    assert two.kind == pb.PROMOTION_KIND_PASSED
    assert (three.override, three.back_to, three.principal) == ("", one.name, "bob")


def test_the_history_is_a_chain_that_shows_every_change(trainer: Any) -> None:
    trainer.seal()
    for _ in range(2):
        promote(trainer, passed(trainer))
    rollback(trainer)
    entries, now = history(trainer), served(trainer)
    assert [entry.hash for entry in entries] == [sha256_bytes(entry.canonical_json) for entry in entries]
    assert [entry.previous_hash for entry in entries] == ["", entries[0].hash, entries[1].hash]
    assert broken(entries, now) == ""
    assert broken(entries, now, known_hash=entries[1].hash) == ""
    assert "no entry has the hash" in broken(entries, now, known_hash="sha256:" + "0" * 64)
    assert "promotions/2" in broken([entries[0], entries[2]], now) + broken(entries[1:], now)
    assert "the model serves" in broken(entries[:2], now)
    changed = [pb.Promotion.FromString(entry.SerializeToString()) for entry in entries]
    changed[1].canonical_json = changed[1].canonical_json.replace(b"passed", b"passes")
    assert "promotions/2: its content has the hash" in broken(changed, now)
    changed[1].hash = sha256_bytes(changed[1].canonical_json)
    assert "promotions/3: follows" in broken(changed, now)


def test_overrides_are_listed_and_read(trainer: Any) -> None:
    trainer.seal()
    version = trainer.evaluated(trainer.trained(), domain=0.4, arc_easy=-0.2)
    alice, bob = trainer.stub(), trainer.stub("bob", "approver")
    made = [
        alice.CreatePromotionOverride(
            pb.CreatePromotionOverrideRequest(model_version=version.name, reason=REASON)
        ).name
        for _ in range(3)
    ]
    bob.ApprovePromotionOverride(pb.ApprovePromotionOverrideRequest(name=made[0]))
    bob.RefusePromotionOverride(pb.RefusePromotionOverrideRequest(name=made[1], reason="too few items"))

    def listed(**fields: Any) -> list[str]:
        request = pb.ListPromotionOverridesRequest(**fields)
        return [one.name for one in alice.ListPromotionOverrides(request).promotion_overrides]

    assert listed() == listed(parent="models/-") == listed(parent="models/threat-intel") == made[::-1]
    assert listed(parent="models/other") == []
    assert listed(filter="state = PENDING") == [made[2]]
    assert listed(filter=f"model_version = {version.name}", page_size=1) == [made[2]]
    found = alice.GetPromotionOverride(pb.GetPromotionOverrideRequest(name=made[0]))
    assert (found.state, found.approver) == (pb.OVERRIDE_STATE_APPROVED, "bob")
    assert list(found.failed_report_digests) == [version.report_digest]
    assert [approval.principal for approval in found.approvals] == ["bob"]


def test_a_refused_override_stays_refused_and_promotes_nothing(trainer: Any) -> None:
    trainer.seal()
    version = trainer.evaluated(trainer.trained(), domain=0.4, arc_easy=-0.2)
    alice, bob, carol = trainer.stub(), trainer.stub("bob", "approver"), trainer.stub("carol", "approver")
    override = alice.CreatePromotionOverride(
        pb.CreatePromotionOverrideRequest(model_version=version.name, reason=REASON)
    )
    refuse = pb.RefusePromotionOverrideRequest(name=override.name, reason="the loss is real")
    assert isinstance(refused(lambda: alice.RefusePromotionOverride(refuse)), PermissionDenied)
    found = bob.RefusePromotionOverride(refuse)
    assert (found.state, found.refuser, found.refuse_reason) == (
        pb.OVERRIDE_STATE_REFUSED,
        "bob",
        "the loss is real",
    )
    assert bob.RefusePromotionOverride(refuse) == found
    approve = pb.ApprovePromotionOverrideRequest(name=override.name)
    for person in (bob, carol):
        error = refused(lambda person=person: person.ApprovePromotionOverride(approve))
        assert (type(error), error.reason) == (FailedPrecondition, "OVERRIDE_REFUSED")
    error = refused(lambda: promote(trainer, version, override.name))
    assert error.reason == "OVERRIDE_NOT_APPROVED"
    assert "the loss is real" in str(error)


def test_an_approved_override_cannot_be_refused(trainer: Any) -> None:
    trainer.seal()
    version = trainer.evaluated(trainer.trained(), domain=0.4, arc_easy=-0.2)
    bob, carol = trainer.stub("bob", "approver"), trainer.stub("carol", "approver")
    override = trainer.stub().CreatePromotionOverride(
        pb.CreatePromotionOverrideRequest(model_version=version.name, reason=REASON)
    )
    bob.ApprovePromotionOverride(pb.ApprovePromotionOverrideRequest(name=override.name))
    refuse = pb.RefusePromotionOverrideRequest(name=override.name, reason="too late")
    assert refused(lambda: carol.RefusePromotionOverride(refuse)).reason == "OVERRIDE_APPROVED"
