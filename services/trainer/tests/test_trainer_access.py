"""The owner of one model has no rights in another, and one person never acts as two."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc
import pytest
from openledger.trainer.v1 import trainer_pb2 as pb

from openledger_client.errors import AlreadyExists, PermissionDenied, from_rpc_error

pytestmark = pytest.mark.slow

REASON = "the suite is small and the gain is large"


def denied(call: Callable[..., Any], request: Any) -> bool:
    """Whether a call is refused because of who makes it; fails the test where it passes."""
    with pytest.raises(grpc.RpcError) as refused:
        call(request)
    return isinstance(from_rpc_error(refused.value), PermissionDenied)


def run_request(model: str, **fields: Any) -> pb.CreateTrainingRunRequest:
    return pb.CreateTrainingRunRequest(
        model=model,
        base_model="baseModels/tiny",
        snapshots=[pb.WeightedSnapshot(snapshot="datanets/threat-intel/snapshots/1")],
        spec=pb.TrainingSpec(steps=40),
        **fields,
    )


def test_only_its_owner_adds_a_version_to_a_model_or_stops_its_run(trainer: Any) -> None:
    trainer.seal()
    run = trainer.create()
    eve = trainer.stub("eve", "builder", "approver")
    assert denied(eve.CreateTrainingRun, run_request(run.model))
    assert denied(eve.CancelTrainingRun, pb.CancelTrainingRunRequest(name=run.name))
    own = eve.CreateTrainingRun(run_request("models/of-eve"))
    assert denied(trainer.stub("alice").CancelTrainingRun, pb.CancelTrainingRunRequest(name=own.name))
    admin = trainer.stub("root", "admin")
    assert admin.CreateTrainingRun(run_request(run.model)).principal == "root"
    # An administrator may add a run; the owner of the model stays the same.
    assert trainer.stub("alice").CreateTrainingRun(run_request(run.model)).principal == "alice"
    cancelled = admin.CancelTrainingRun(pb.CancelTrainingRunRequest(name=run.name))
    assert cancelled.state == pb.RUN_STATE_CANCELLED


def test_only_its_owner_measures_promotes_or_overrides_a_version(trainer: Any) -> None:
    trainer.seal()
    version = trainer.evaluated(trainer.trained(), domain=0.2, hellaswag=0.0)
    eve = trainer.stub("eve", "builder")
    suites = [pb.EvaluateModelVersionRequest.SuiteRequest(suite="domain", items=400)]
    assert denied(eve.EvaluateModelVersion, pb.EvaluateModelVersionRequest(name=version.name, suites=suites))
    assert denied(eve.PromoteModelVersion, pb.PromoteModelVersionRequest(name=version.name))
    override = pb.CreatePromotionOverrideRequest(model_version=version.name, reason=REASON)
    assert denied(eve.CreatePromotionOverride, override)
    assert eve.GetModelVersion(pb.GetModelVersionRequest(name=version.name)).owner == "alice"


def test_an_override_needs_a_second_person_however_many_roles_the_first_has(trainer: Any) -> None:
    trainer.seal()
    version = trainer.evaluated(trainer.trained(), domain=0.2, hellaswag=-0.5)
    for roles in (("builder", "approver"), ("admin",)):
        alice = trainer.stub("alice", *roles)
        asked = alice.CreatePromotionOverride(
            pb.CreatePromotionOverrideRequest(model_version=version.name, reason=REASON)
        )
        assert denied(alice.ApprovePromotionOverride, pb.ApprovePromotionOverrideRequest(name=asked.name))
    bob = trainer.stub("bob", "approver")
    approved = bob.ApprovePromotionOverride(pb.ApprovePromotionOverrideRequest(name=asked.name))
    assert (approved.requester, approved.approver) == ("alice", "bob")
    promoted = bob.PromoteModelVersion(pb.PromoteModelVersionRequest(name=version.name, override=asked.name))
    assert promoted.state == pb.MODEL_VERSION_STATE_PROMOTED


@pytest.mark.parametrize(
    "spelling", ["Alice", "alice ", "\u0430lice", "al\u00edce", "ali\u0301ce", "\uff41lice", "a1ice"]
)
def test_one_person_under_two_spellings_is_no_second_person(trainer: Any, spelling: str) -> None:
    trainer.seal()
    version = trainer.evaluated(trainer.trained(), domain=0.2, hellaswag=-0.5)
    asked = trainer.stub("alice").CreatePromotionOverride(
        pb.CreatePromotionOverrideRequest(model_version=version.name, reason=REASON)
    )
    approve = pb.ApprovePromotionOverrideRequest(name=asked.name)
    again = trainer.stub(spelling, "approver", "builder")
    assert denied(again.ApprovePromotionOverride, approve)
    # Folding refuses; it grants nothing: the other spelling does not own alice's model.
    suites = [pb.EvaluateModelVersionRequest.SuiteRequest(suite="domain", items=400)]
    assert denied(
        again.EvaluateModelVersion, pb.EvaluateModelVersionRequest(name=version.name, suites=suites)
    )


def test_a_late_repeat_of_a_promotion_does_not_bring_back_what_was_retired(trainer: Any) -> None:
    trainer.seal()
    first = trainer.evaluated(trainer.trained(), domain=0.2, hellaswag=0.0)
    alice = trainer.stub("alice")
    request = pb.PromoteModelVersionRequest(name=first.name, request_id="first")
    alice.PromoteModelVersion(request)
    second = trainer.evaluated(trainer.trained(), domain=0.2, hellaswag=0.0)
    alice.PromoteModelVersion(pb.PromoteModelVersionRequest(name=second.name, request_id="second"))
    assert alice.PromoteModelVersion(request).state == pb.MODEL_VERSION_STATE_RETIRED
    now = alice.GetModelVersion(pb.GetModelVersionRequest(name=second.name))
    assert now.state == pb.MODEL_VERSION_STATE_PROMOTED
    with pytest.raises(grpc.RpcError) as refused:
        alice.PromoteModelVersion(pb.PromoteModelVersionRequest(name=second.name, request_id="first"))
    assert isinstance(from_rpc_error(refused.value), AlreadyExists)
