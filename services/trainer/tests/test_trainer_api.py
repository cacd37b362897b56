"""The trainer through its gRPC API: runs, versions, evaluations, the gate."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from openledger.common.v1.list_pb2 import VIEW_FULL, VIEW_UNSPECIFIED
from openledger.trainer.v1 import trainer_pb2 as pb
from sqlalchemy.event import listen

from identity.digest import sha256_bytes
from servicekit.database import reading
from servicekit.testing.waiting import eventually
from trainer.store.runs import bytes_of
from trainer.store.tables import JobRow, RunRow

pytestmark = pytest.mark.slow

SNAPSHOT = "datanets/threat-intel/snapshots/1"


def refused(call: Callable[[], Any], code: grpc.StatusCode) -> error_details_pb2.ErrorInfo:
    """The ErrorInfo of a call that must fail with this code."""
    with pytest.raises(grpc.RpcError) as caught:
        call()
    assert caught.value.code() is code, caught.value.details()
    status, info = rpc_status.from_call(caught.value), error_details_pb2.ErrorInfo()
    assert any(detail.Unpack(info) for detail in status.details)
    return info


def test_assessment_warns_of_a_high_rate_without_rehearsal_and_says_why(trainer: Any) -> None:
    trainer.seal()
    spec = pb.TrainingSpec(
        learning_rate=2e-3, steps=40, rehearsal=pb.RehearsalSpec(kind=pb.REHEARSAL_KIND_NONE)
    )
    assessment = trainer.stub().AssessTrainingSpec(
        pb.AssessTrainingSpecRequest(
            base_model="baseModels/tiny", snapshots=[pb.WeightedSnapshot(snapshot=SNAPSHOT)], spec=spec
        )
    )
    worst = assessment.findings[0]
    assert (worst.severity, worst.parameter, worst.value) == (pb.SEVERITY_DANGER, "learning_rate", "0.002")
    assert "bits per byte" in worst.consequence
    assert assessment.suggested.learning_rate == 5e-4
    assert assessment.suggested.rehearsal.kind == pb.REHEARSAL_KIND_SELF_GENERATED
    origins = {value.parameter: value.origin for value in assessment.values}
    assert (origins["learning_rate"], origins["lora_rank"]) == ("user", "default")
    assert {path for path in origins if path.startswith("rehearsal.")} == {
        "rehearsal.kind"
    }  # none has no numbers


def test_a_snapshot_that_is_not_sealed_cannot_be_trained_on(trainer: Any) -> None:
    info = refused(lambda: trainer.create(), grpc.StatusCode.FAILED_PRECONDITION)
    assert (info.reason, info.metadata["snapshot"]) == ("SNAPSHOT_NOT_SEALED", SNAPSHOT)


def test_unknown_things_are_not_found_by_name(trainer: Any) -> None:
    trainer.seal()
    stub, missing = trainer.stub(), "models/unknown/versions/3"
    run = "trainingRuns/" + "0" * 26
    not_report = trainer.service.objects.put_bytes(b"an object, but no report")
    calls: dict[str, Callable[[], Any]] = {
        "baseModels/huge": lambda: trainer.create(base_model="baseModels/huge"),
        missing: lambda: stub.GetModelVersion(pb.GetModelVersionRequest(name=missing)),
        "models/unknown": lambda: stub.ListModelVersions(
            pb.ListModelVersionsRequest(parent="models/unknown")
        ),
        run: lambda: stub.GetTrainingRun(pb.GetTrainingRunRequest(name=run)),
        not_report: lambda: stub.GetEvaluationReport(pb.GetEvaluationReportRequest(digest=not_report)),
    }
    for name, call in calls.items():
        assert refused(call, grpc.StatusCode.NOT_FOUND).metadata["name"] == name


def test_values_that_cannot_run_together_are_named(trainer: Any) -> None:
    trainer.seal()
    spec = pb.TrainingSpec(rehearsal=pb.RehearsalSpec(kind=pb.REHEARSAL_KIND_NONE, sequences=64))
    info = refused(lambda: trainer.create(spec=spec), grpc.StatusCode.INVALID_ARGUMENT)
    assert info.metadata["field"] == "spec.rehearsal.sequences"


def test_a_retry_with_the_same_request_id_answers_the_same_run(trainer: Any) -> None:
    trainer.seal()
    first, second = trainer.create(request_id="r1"), trainer.create(request_id="r1")
    assert first.name == second.name
    refused(
        lambda: trainer.create(request_id="r1", spec=pb.TrainingSpec(steps=41)),
        grpc.StatusCode.ALREADY_EXISTS,
    )


def test_a_run_becomes_a_version_that_says_how_it_was_made(trainer: Any) -> None:
    sealed = trainer.seal()
    version = trainer.trained()
    assert version.name == "models/threat-intel/versions/1"
    assert version.state == pb.MODEL_VERSION_STATE_TRAINED
    assert version.snapshots[0].root == sealed.root
    assert version.owner == "alice"
    assert version.spec.rehearsal.kl_weight == 2.0
    assert {value.parameter: value.origin for value in version.values}["steps"] == "user"
    assert trainer.trained().name == "models/threat-intel/versions/2"
    request = pb.ListModelVersionsRequest(parent="models/-", page_size=1)
    listed = trainer.stub().ListModelVersions(request)
    assert (listed.model_versions[0].name, listed.total_size) == ("models/threat-intel/versions/2", 2)
    request.page_token = listed.next_page_token
    rest = trainer.stub().ListModelVersions(request)
    assert [v.name for v in rest.model_versions] == [version.name]


def test_pages_of_runs_are_cut_by_a_size_that_none_of_their_runs_exceeds(trainer: Any) -> None:
    trainer.seal()
    intent = pb.Intent(purpose="\u00e9" * 2000, keep=[pb.Intent.Margin(suite="hellaswag", margin=0.05)])
    run = trainer.create(intent=intent)
    id_ = run.name.rsplit("/", 1)[1]
    with reading(trainer.service.engine) as session:
        bound = bytes_of(session.get_one(RunRow, id_), session.get_one(JobRow, id_))
    assert run.ByteSize() <= bound


def test_lists_are_filtered_sorted_and_counted(trainer: Any) -> None:
    trainer.seal()
    version = trainer.evaluated(trainer.trained(), domain=0.2, hellaswag=0.0)
    cancelled = trainer.create(model="models/other")
    trainer.stub().CancelTrainingRun(pb.CancelTrainingRunRequest(name=cancelled.name))

    def runs(**fields: Any) -> tuple[list[str], int]:
        answer = trainer.stub().ListTrainingRuns(pb.ListTrainingRunsRequest(**fields))
        return [run.name for run in answer.training_runs], answer.total_size

    assert runs(filter="state = CANCELLED") == ([cancelled.name], 1)
    assert runs(filter="model = models/threat-intel") == ([version.training_run], 1)
    assert runs(order_by="create_time") == ([version.training_run, cancelled.name], 2)
    assert runs(model="models/other", filter='principal = "alice"') == ([cancelled.name], 1)
    found = trainer.stub().ListModelVersions(
        pb.ListModelVersionsRequest(parent="models/-", filter=f"training_run = {version.training_run}")
    )
    assert [one.name for one in found.model_versions] == [version.name]
    assert runs(filter=f"name = {cancelled.name}") == ([cancelled.name], 1)
    for name, count in ((version.name, 1), ("models/threat-intel/versions/9", 0), ("models/x/versions/1", 0)):
        page = trainer.stub().ListModelVersions(
            pb.ListModelVersionsRequest(parent="models/-", filter=f"name = {name}")
        )
        assert (page.total_size, len(page.model_versions)) == (count, count)
    bases = trainer.stub().ListBaseModels(pb.ListBaseModelsRequest(filter="name = baseModels/tiny"))
    assert [base.name for base in bases.base_models] == ["baseModels/tiny"]
    bases = trainer.stub().ListBaseModels(pb.ListBaseModelsRequest(filter="parameter_count > 1000000"))
    assert (list(bases.base_models), bases.total_size) == ([], 0)


def test_a_basic_view_leaves_out_what_can_be_large(trainer: Any) -> None:
    trainer.seal()
    trainer.trained()
    lists = {
        view: (
            trainer.stub().ListTrainingRuns(pb.ListTrainingRunsRequest(view=view)).training_runs[0],
            trainer.stub()
            .ListModelVersions(pb.ListModelVersionsRequest(parent="models/-", view=view))
            .model_versions[0],
        )
        for view in (VIEW_UNSPECIFIED, VIEW_FULL)
    }
    for basic, full in zip(lists[VIEW_UNSPECIFIED], lists[VIEW_FULL], strict=True):
        assert not basic.values
        assert full.values
        assert basic.spec == full.spec


def test_a_wrong_filter_is_refused_by_field(trainer: Any) -> None:
    request = pb.ListTrainingRunsRequest(filter="colour = red")
    info = refused(lambda: trainer.stub().ListTrainingRuns(request), grpc.StatusCode.INVALID_ARGUMENT)
    assert info is not None


def test_watching_a_run_reports_every_step_and_ends_with_the_run(trainer: Any) -> None:
    trainer.seal()
    version = trainer.trained()
    updates = list(trainer.stub().WatchTrainingRun(pb.WatchTrainingRunRequest(name=version.training_run)))
    assert [update.metrics.step for update in updates if update.HasField("metrics")] == [1]
    assert updates[-1].run.model_version == version.name


def test_the_next_run_of_a_base_has_an_estimate_from_the_last(trainer: Any) -> None:
    trainer.seal()
    assert "no run of it has succeeded" in trainer.create().assessment.expected_basis
    trainer.stub().CancelTrainingRun(
        pb.CancelTrainingRunRequest(
            name=trainer.stub().ListTrainingRuns(pb.ListTrainingRunsRequest()).training_runs[0].name
        )
    )
    trainer.trained()
    measured = trainer.create().assessment
    assert measured.expected_s > 25
    assert measured.expected_basis == "the newest run of this base model here"


def test_a_version_without_a_report_cannot_be_promoted(trainer: Any) -> None:
    trainer.seal()
    version = trainer.trained()
    info = refused(
        lambda: trainer.stub().PromoteModelVersion(pb.PromoteModelVersionRequest(name=version.name)),
        grpc.StatusCode.FAILED_PRECONDITION,
    )
    assert info.reason == "NO_EVALUATION_REPORT"


def test_a_passed_gate_promotes_and_retires_the_one_before(trainer: Any) -> None:
    trainer.seal()
    first = trainer.evaluated(trainer.trained(), domain=0.3, arc_easy=0.0)
    second = trainer.evaluated(trainer.trained(), domain=0.4, arc_easy=0.0)
    assert (first.state, first.verdict) == (pb.MODEL_VERSION_STATE_EVALUATED, pb.VERDICT_PASSED)
    stub = trainer.stub("bob", "approver")
    for version in (first, second):
        promoted = stub.PromoteModelVersion(pb.PromoteModelVersionRequest(name=version.name))
        assert promoted.state == pb.MODEL_VERSION_STATE_PROMOTED
    first = trainer.stub().GetModelVersion(pb.GetModelVersionRequest(name=first.name))
    assert first.state == pb.MODEL_VERSION_STATE_RETIRED
    assert [change.state for change in first.history] == [
        pb.MODEL_VERSION_STATE_TRAINED,
        pb.MODEL_VERSION_STATE_EVALUATED,
        pb.MODEL_VERSION_STATE_PROMOTED,
        pb.MODEL_VERSION_STATE_RETIRED,
    ]


def test_a_failed_gate_names_suite_drop_interval_and_margin(trainer: Any) -> None:
    trainer.seal()
    version = trainer.evaluated(trainer.trained(), domain=0.4, arc_easy=-0.2, hellaswag=0.0)
    assert version.state == pb.MODEL_VERSION_STATE_BLOCKED
    info = refused(
        lambda: trainer.stub().PromoteModelVersion(pb.PromoteModelVersionRequest(name=version.name)),
        grpc.StatusCode.FAILED_PRECONDITION,
    )
    said = info.metadata
    assert (info.reason, said["suite"], said["drop"], said["margin"]) == (
        "GATE_FAILED",
        "arc_easy",
        "0.2000",
        "0.05",
    )
    assert 0.05 < float(said["drop_lower"]) < 0.2 < float(said["drop_upper"])


def test_an_override_needs_two_people_and_stands_for_one_report(trainer: Any) -> None:
    trainer.seal()
    version = trainer.evaluated(trainer.trained(), domain=0.4, arc_easy=-0.05)
    assert version.verdict == pb.VERDICT_INCONCLUSIVE
    alice, bob = trainer.stub("alice", "builder", "approver"), trainer.stub("bob", "approver")
    override = alice.CreatePromotionOverride(
        pb.CreatePromotionOverrideRequest(
            model_version=version.name, reason="Four points on ARC-Easy are acceptable for triage."
        )
    )
    promote = pb.PromoteModelVersionRequest(name=version.name, override=override.name)
    approve = pb.ApprovePromotionOverrideRequest(name=override.name)
    assert (
        refused(lambda: alice.PromoteModelVersion(promote), grpc.StatusCode.FAILED_PRECONDITION).reason
        == "OVERRIDE_NOT_APPROVED"
    )
    refused(lambda: alice.ApprovePromotionOverride(approve), grpc.StatusCode.PERMISSION_DENIED)
    assert bob.ApprovePromotionOverride(approve).approver == "bob"
    newer = trainer.evaluated(version, domain=0.4, arc_easy=-0.06, hellaswag=0.0)
    assert newer.report_digest != version.report_digest
    info = refused(lambda: alice.PromoteModelVersion(promote), grpc.StatusCode.FAILED_PRECONDITION)
    assert info.reason == "OVERRIDE_OF_ANOTHER_REPORT"


def test_an_approved_override_promotes_and_is_in_the_history(trainer: Any) -> None:
    trainer.seal()
    version = trainer.evaluated(trainer.trained(), domain=0.4, arc_easy=-0.05)
    override = trainer.stub().CreatePromotionOverride(
        pb.CreatePromotionOverrideRequest(
            model_version=version.name, reason="Four points on ARC-Easy are acceptable for triage."
        )
    )
    bob = trainer.stub("bob", "approver")
    bob.ApprovePromotionOverride(pb.ApprovePromotionOverrideRequest(name=override.name))
    promoted = trainer.stub().PromoteModelVersion(
        pb.PromoteModelVersionRequest(name=version.name, override=override.name)
    )
    assert promoted.state == pb.MODEL_VERSION_STATE_PROMOTED
    assert "approved by bob" in promoted.history[-1].reason


def test_the_same_suites_are_evaluated_once(trainer: Any) -> None:
    trainer.seal()
    version = trainer.trained()
    request = pb.EvaluateModelVersionRequest(name=version.name)
    assert (
        trainer.stub().EvaluateModelVersion(request).name == trainer.stub().EvaluateModelVersion(request).name
    )
    odd = pb.EvaluateModelVersionRequest(
        name=version.name, suites=[pb.EvaluateModelVersionRequest.SuiteRequest(suite="chess")]
    )
    info = refused(lambda: trainer.stub().EvaluateModelVersion(odd), grpc.StatusCode.INVALID_ARGUMENT)
    assert info.metadata["value"] == "chess"


def test_report_and_outcomes_can_be_had_and_hash_to_their_names(trainer: Any) -> None:
    trainer.seal()
    version = trainer.evaluated(trainer.trained(), domain=0.3)
    report = trainer.stub().GetEvaluationReport(pb.GetEvaluationReportRequest(digest=version.report_digest))
    assert sha256_bytes(report.canonical_json) == report.digest == version.report_digest
    assert json.loads(report.canonical_json)["adapter"] == version.adapter_digest
    chunks = list(
        trainer.stub().DownloadEvaluationOutcomes(
            pb.DownloadEvaluationOutcomesRequest(digest=version.report_digest)
        )
    )
    assert (
        sha256_bytes(b"".join(chunk.data for chunk in chunks)) == chunks[0].digest == report.outcomes_digest
    )


def test_idle_watchers_read_nothing_of_their_run(trainer: Any) -> None:
    trainer.seal()
    run = trainer.create()
    trainer.at_ray(run.name)
    statements: list[str] = []

    def note(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        statements.append(statement)

    request = pb.WatchTrainingRunRequest(name=run.name)
    watches = [trainer.stub().WatchTrainingRun(request) for _ in range(10)]
    for watch in watches:
        while next(watch).state != pb.RUN_STATE_RUNNING:
            pass
    listen(trainer.service.engine, "before_cursor_execute", note)

    def polled() -> bool:
        return sum(each.startswith("SELECT jobs.id, jobs.state, jobs.attempts") for each in statements) >= 2

    def idle() -> bool:
        statements.clear()
        eventually(polled)
        return not any("FROM training_runs" in statement for statement in statements)

    eventually(idle, "polls without a read of the run")  # the first poll wakes each watcher once
    trainer.stub().CancelTrainingRun(pb.CancelTrainingRunRequest(name=run.name))
    assert [list(watch)[-1].run.state for watch in watches] == [pb.RUN_STATE_CANCELLED] * len(watches)


def test_an_intent_is_only_stricter_than_the_gate_policy_and_names_only_its_suites(trainer: Any) -> None:
    trainer.seal()
    for suite, margin in (("arc_easy", 1.0), ("arc_easy", 0.06), ("mmlu", 0.05)):
        intent = pb.Intent(keep=[pb.Intent.Margin(suite=suite, margin=margin)])
        info = refused(lambda intent=intent: trainer.create(intent=intent), grpc.StatusCode.INVALID_ARGUMENT)
        assert info.metadata["field"] == f"intent.keep[{suite}]"
    strict = pb.Intent(keep=[pb.Intent.Margin(suite="arc_easy", margin=0.02)])
    first = trainer.create(intent=strict)
    assert first.gate_policy == "gatePolicies/default/versions/1"
    assert trainer.create().policy_digest == first.policy_digest, "held to the strictest of its runs"
    wider = pb.Intent(keep=[pb.Intent.Margin(suite="arc_easy", margin=0.05)])
    info = refused(lambda: trainer.create(intent=wider), grpc.StatusCode.FAILED_PRECONDITION)
    assert info.reason == "GATE_POLICY_LOOSER"


def test_a_failed_version_stays_failed_when_it_is_evaluated_by_other_suites(trainer: Any) -> None:
    trainer.seal()
    failed = trainer.evaluated(trainer.trained(), arc_easy=-0.3)
    assert failed.verdict == pb.VERDICT_FAILED
    for suites in ({"domain": 0.3}, {"domain": 0.3, "hellaswag": 0.0, "bits_per_byte": 0.0}):
        again = trainer.measured(failed, **suites)
        assert (again.report_digest, again.verdict) == (failed.report_digest, pb.VERDICT_FAILED)
    assert [report.report_digest for report in again.failed_reports] == [failed.report_digest]
    promote = pb.PromoteModelVersionRequest(name=failed.name)
    info = refused(lambda: trainer.stub().PromoteModelVersion(promote), grpc.StatusCode.FAILED_PRECONDITION)
    assert (info.reason, info.metadata["report_digest"]) == ("GATE_FAILED", failed.report_digest)


def test_a_report_without_a_suite_of_the_policy_is_incomplete_and_no_pass(trainer: Any) -> None:
    trainer.seal()
    version = trainer.measured(trainer.trained(), domain=0.3, arc_easy=0.0)
    assert version.verdict == pb.VERDICT_INCOMPLETE
    report = trainer.stub().GetEvaluationReport(pb.GetEvaluationReportRequest(digest=version.report_digest))
    assert (report.policy_digest, list(report.missing_suites)) == (
        version.policy_digest,
        ["bits_per_byte", "hellaswag"],
    )
    promote = pb.PromoteModelVersionRequest(name=version.name)
    info = refused(lambda: trainer.stub().PromoteModelVersion(promote), grpc.StatusCode.FAILED_PRECONDITION)
    assert info.reason == "GATE_INCOMPLETE"
