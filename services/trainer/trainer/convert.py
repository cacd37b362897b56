"""Between this service's entities and the API's messages."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from openledger.common.v1.estimate_pb2 import Estimate, Progress
from openledger.trainer.v1 import trainer_pb2 as pb

from evalstats.policy import GatePolicy, InvalidPolicy, People, Role, SuitePolicy
from identity.digest import sha256_bytes
from identity.names import (
    BaseModelName,
    EvaluationName,
    GatePolicyName,
    ModelName,
    PromotionName,
    PromotionOverrideName,
    TrainingRunName,
)
from openledger_client.training_parameters import Parameter
from servicekit import names
from servicekit.errors import InvalidArgument
from servicekit.timestamps import to_proto
from trainer import specs
from trainer.assessment import Assessment, Finding, Intent
from trainer.contract.base_models import BaseModel
from trainer.contract.progress import ProgressLine
from trainer.entities import (
    Approval,
    Evaluation,
    FailedReport,
    GatePolicyState,
    GatePolicyVersion,
    JobState,
    Override,
    OverrideState,
    Promotion,
    PromotionKind,
    Run,
    StateChange,
    Version,
    VersionState,
)
from trainer.gate_policy import to_bytes as to_policy_bytes
from trainer.model_files import Part
from trainer.promotion_history import entry_hash, to_bytes
from trainer.proposals import Proposal, WeightedSnapshot

RUN_STATES: Mapping[JobState, pb.RunState.ValueType] = {
    JobState.QUEUED: pb.RUN_STATE_QUEUED,
    JobState.RUNNING: pb.RUN_STATE_RUNNING,
    JobState.SUCCEEDED: pb.RUN_STATE_SUCCEEDED,
    JobState.FAILED: pb.RUN_STATE_FAILED,
    JobState.CANCELLED: pb.RUN_STATE_CANCELLED,
}
_VERSION_STATES: Mapping[VersionState, pb.ModelVersionState.ValueType] = {
    VersionState.TRAINED: pb.MODEL_VERSION_STATE_TRAINED,
    VersionState.EVALUATED: pb.MODEL_VERSION_STATE_EVALUATED,
    VersionState.BLOCKED: pb.MODEL_VERSION_STATE_BLOCKED,
    VersionState.PROMOTED: pb.MODEL_VERSION_STATE_PROMOTED,
    VersionState.RETIRED: pb.MODEL_VERSION_STATE_RETIRED,
}
_VERDICTS: Mapping[str, pb.Verdict.ValueType] = {
    "": pb.VERDICT_UNSPECIFIED,
    "pass": pb.VERDICT_PASSED,
    "failed": pb.VERDICT_FAILED,
    "inconclusive": pb.VERDICT_INCONCLUSIVE,
    "incomplete": pb.VERDICT_INCOMPLETE,
}
_OVERRIDE_STATES: Mapping[OverrideState, pb.OverrideState.ValueType] = {
    OverrideState.PENDING: pb.OVERRIDE_STATE_PENDING,
    OverrideState.APPROVED: pb.OVERRIDE_STATE_APPROVED,
    OverrideState.REFUSED: pb.OVERRIDE_STATE_REFUSED,
}
_PROMOTION_KINDS: Mapping[PromotionKind, pb.PromotionKind.ValueType] = {
    PromotionKind.PASSED: pb.PROMOTION_KIND_PASSED,
    PromotionKind.OVERRIDDEN: pb.PROMOTION_KIND_OVERRIDDEN,
    PromotionKind.ROLLED_BACK: pb.PROMOTION_KIND_ROLLED_BACK,
    PromotionKind.TAKEN_OVER: pb.PROMOTION_KIND_TAKEN_OVER,
}
_POLICY_STATES: Mapping[GatePolicyState, pb.GatePolicyState.ValueType] = {
    GatePolicyState.PENDING: pb.GATE_POLICY_STATE_PENDING,
    GatePolicyState.ACTIVE: pb.GATE_POLICY_STATE_ACTIVE,
    GatePolicyState.REFUSED: pb.GATE_POLICY_STATE_REFUSED,
}
_ROLES: Mapping[Role, pb.SuiteRole.ValueType] = {
    Role.DOMAIN: pb.SUITE_ROLE_DOMAIN,
    Role.RETAINED: pb.SUITE_ROLE_RETAINED,
}
_PARTS: Mapping[pb.ModelVersionPart.ValueType, Part] = {
    pb.MODEL_VERSION_PART_BASE_MODEL: Part.BASE_MODEL,
    pb.MODEL_VERSION_PART_ADAPTER: Part.ADAPTER,
    pb.MODEL_VERSION_PART_TRAINING_MANIFEST: Part.TRAINING_MANIFEST,
}
_PEOPLE = ("promote", "override", "loosen")
_UNITS = {"accuracy": "accuracy", "bits_per_byte": "bits/byte"}


def to_part(part: pb.ModelVersionPart.ValueType) -> Part:
    """Returns the part of a version that a request names; validation has refused any other value."""
    return _PARTS[part]


def to_proposal(request: pb.AssessTrainingSpecRequest | pb.CreateTrainingRunRequest) -> Proposal:
    """Returns the run that a request asks about, or for. Raises InvalidArgument for a name."""
    return Proposal(
        base_model=names.parse("base_model", BaseModelName, request.base_model),
        snapshots=_to_snapshots(request.snapshots),
        values=specs.to_values(request.spec),
        intent=Intent(
            request.intent.purpose,
            tuple((kept.suite, kept.margin) for kept in request.intent.keep),
            request.intent.gate_policy.removeprefix("gatePolicies/"),
        ),
    )


def _to_snapshots(given: Iterable[pb.WeightedSnapshot]) -> tuple[WeightedSnapshot, ...]:
    """Returns what a client trains on. Raises InvalidArgument for a snapshot that is named twice."""
    found: dict[str, WeightedSnapshot] = {}
    for place, one in enumerate(given):
        if one.snapshot in found:
            raise InvalidArgument(
                f"snapshots[{place}].snapshot",
                "named_once",
                "is named twice: its records would be seen more often than others; name it once, with weight 2",
                one.snapshot,
            )
        weight = one.weight if one.HasField("weight") else 1.0
        found[one.snapshot] = WeightedSnapshot(one.snapshot, weight)
    return tuple(found.values())


def parameters(parameters: Iterable[Parameter]) -> pb.DescribeParametersResponse:
    return pb.DescribeParametersResponse(parameters=map(_parameter, parameters))


def _parameter(parameter: Parameter) -> pb.TrainingParameter:
    return pb.TrainingParameter(
        name=parameter.name,
        words=parameter.words,
        unit=parameter.unit,
        range=parameter.range,
        least=parameter.least,
        least_excluded=parameter.least_excluded,
        most=parameter.most,
        most_excluded=parameter.most_excluded,
        choices=parameter.choices,
        default=parameter.default,
        warn_below=parameter.warn_below,
        warn_above=parameter.warn_above,
        below=parameter.below,
        above=parameter.above,
        advice=parameter.advice,
        evidence=parameter.evidence,
    )


def assessment(assessment: Assessment) -> pb.TrainingAssessment:
    return pb.TrainingAssessment(
        findings=[_finding(finding) for finding in assessment.findings],
        suggested=specs.to_proto(assessment.suggested),
        effective=specs.to_proto(assessment.effective.spec),
        values=specs.values(assessment.effective.spec, assessment.effective.origins),
        expected_s=assessment.expected_s,
        expected_basis=assessment.expected_basis,
    )


def run(run: Run, full: bool = True) -> pb.TrainingRun:
    """Returns a run; the basic view leaves out `values` and `assessment`."""
    message = pb.TrainingRun(
        name=run_name(run.job.id),
        model=str(ModelName(run.model)),
        base_model=str(BaseModelName(run.base_model)),
        base_digest=run.base_digest,
        snapshots=[pb.WeightedSnapshot(snapshot=s.name, weight=s.weight) for s in run.snapshots],
        spec=specs.to_proto(run.spec),
        intent=_intent(run.intent),
        state=RUN_STATES[run.job.state],
        error=run.job.error,
        model_version=f"models/{run.model}/versions/{run.version}" if run.version else "",
        create_time=to_proto(run.job.create_time),
        start_time=to_proto(run.job.start_time),
        end_time=to_proto(run.job.end_time),
        principal=run.principal,
        gate_policy=str(run.gate_policy) if run.gate_policy else "",
        policy_digest=run.policy_digest,
    )
    if full:
        message.values.extend(specs.values(run.spec, run.origins))
        message.assessment.CopyFrom(assessment(run.assessment))
    return message


def version(version: Version, full: bool = True) -> pb.ModelVersion:
    """Returns a version; the basic view leaves out `values`, `packages` and `history`."""
    made = version.run
    message = pb.ModelVersion(
        name=str(version.name),
        digest=version.digest,
        base_model=str(BaseModelName(made.base_model)),
        base_digest=made.base_digest,
        adapter_digest=version.adapter_digest,
        snapshots=[
            pb.ModelVersion.TrainedSnapshot(
                snapshot=s.name, root=s.root, manifest_digest=s.manifest_digest, weight=s.weight
            )
            for s in made.snapshots
        ],
        training_manifest_digest=version.training_manifest_digest,
        spec=specs.to_proto(made.spec),
        intent=_intent(made.intent),
        compute=version.compute,
        report_digest=version.report_digest,
        verdict=_VERDICTS[version.verdict],
        state=_VERSION_STATES[version.state],
        training_run=run_name(made.job.id),
        owner=made.principal,
        gate_policy=str(made.gate_policy) if made.gate_policy else "",
        policy_digest=version.policy_digest,
        failed_reports=map(_failed_report, version.failed_reports),
    )
    if full:
        message.values.extend(specs.values(made.spec, made.origins))
        message.packages.update(version.packages)
        message.history.extend(map(_change, version.history))
    return message


def evaluation(evaluation: Evaluation) -> pb.Evaluation:
    return pb.Evaluation(
        name=str(EvaluationName(evaluation.job.id)),
        model_version=str(evaluation.version),
        state=RUN_STATES[evaluation.job.state],
        report_digest=evaluation.report_digest,
        error=evaluation.job.error,
        policy_digest=evaluation.policy_digest,
        verdict=_VERDICTS[evaluation.verdict],
    )


def report(canonical_report: bytes) -> pb.EvaluationReport:
    """Returns the message of a stored report. The message is a view: the canonical JSON inside it is the report."""
    content: dict[str, Any] = json.loads(canonical_report)
    return pb.EvaluationReport(
        digest=sha256_bytes(canonical_report),
        canonical_json=canonical_report,
        base_digest=content["base"],
        adapter_digest=content["adapter"],
        suites=[_suite(suite, content["method"]) for suite in content["suites"]],
        verdict=_VERDICTS[content["gate"]["verdict"]],
        reasons=content["gate"]["findings"],
        outcomes_digest=content["outcomes"],
        compute=f"{content['compute']['device']}/{content['compute']['dtype']}",
        policy_digest=content.get("policy_digest", ""),
        policy_source_digest=content.get("policy_source", ""),
        missing_suites=content["gate"].get("missing", []),
    )


def override(override: Override) -> pb.PromotionOverride:
    return pb.PromotionOverride(
        name=str(PromotionOverrideName(override.id)),
        model_version=str(override.version),
        report_digest=override.report_digest,
        reason=override.reason,
        requester=override.requester,
        approver=override.approvals[-1].principal if override.state is OverrideState.APPROVED else "",
        create_time=to_proto(override.create_time),
        approve_time=to_proto(override.approve_time),
        state=_OVERRIDE_STATES[override.state],
        approvals=map(_approval, override.approvals),
        people_needed=override.people,
        refuser=override.refuser,
        refuse_reason=override.refuse_reason,
        refuse_time=to_proto(override.refuse_time),
        failed_report_digests=override.failed_reports,
    )


def promotion(promotion: Promotion) -> pb.Promotion:
    """Returns the message of an entry. It is a view: the canonical JSON inside it is the entry."""
    return pb.Promotion(
        name=str(PromotionName(promotion.model, promotion.number)),
        hash=entry_hash(promotion),
        previous_hash=promotion.previous_hash,
        canonical_json=to_bytes(promotion),
        model_version=str(promotion.version),
        retired_version=str(promotion.retired) if promotion.retired else "",
        kind=_PROMOTION_KINDS[promotion.kind],
        report_digest=promotion.report_digest,
        verdict=_VERDICTS[promotion.verdict],
        policy_digest=promotion.policy_digest,
        override=str(PromotionOverrideName(promotion.override)) if promotion.override else "",
        back_to=str(PromotionName(promotion.model, promotion.back_to)) if promotion.back_to else "",
        principal=promotion.principal,
        people=promotion.people,
        reason=promotion.reason,
        promote_time=to_proto(promotion.time),
    )


def progress(line: ProgressLine) -> Progress:
    return Progress(stage=line.stage, done=line.done, total=line.total, unit=line.unit, eta_s=line.eta_s)


def step_metrics(line: ProgressLine) -> pb.TrainingRunUpdate.StepMetrics | None:
    """None for a line that is no training step."""
    if "step" not in line.metrics:
        return None
    metrics = pb.TrainingRunUpdate.StepMetrics(step=int(line.metrics["step"]))
    for name in ("loss", "kl", "learning_rate", "gradient_norm", "tokens_per_s"):
        setattr(metrics, name, line.metrics[name])
    return metrics


def base_model(model: BaseModel) -> pb.BaseModel:
    return pb.BaseModel(
        name=str(BaseModelName(model.id)),
        digest=model.digest,
        display_name=model.display_name,
        licence=model.licence,
        parameter_count=model.parameter_count,
        source=model.source,
    )


def run_name(id_: str) -> str:
    return str(TrainingRunName(id_))


def _finding(finding: Finding) -> pb.TrainingAssessment.Finding:
    return pb.TrainingAssessment.Finding(
        severity=pb.Severity.ValueType(finding.severity),
        parameter=finding.parameter,
        value=finding.value,
        consequence=finding.consequence,
        advice=finding.advice,
        source=finding.source,
    )


def _intent(intent: Intent) -> pb.Intent:
    return pb.Intent(
        purpose=intent.purpose,
        keep=[pb.Intent.Margin(suite=suite, margin=margin) for suite, margin in intent.keep],
        gate_policy=str(GatePolicyName(intent.gate_policy)) if intent.gate_policy else "",
    )


def to_policy(spec: pb.GatePolicySpec) -> GatePolicy:
    """Returns the policy of a request; zeros are left to the defaults. Raises InvalidArgument."""
    given = {name: value for name in _PEOPLE if (value := getattr(spec.people, name))}
    try:
        return GatePolicy(
            suites=tuple(_to_suite(number, suite) for number, suite in enumerate(spec.suites)),
            alpha=spec.alpha or GatePolicy.alpha,
            seed=spec.seed,
            people=People(**given),
        )
    except InvalidPolicy as error:
        raise InvalidArgument(
            f"spec.{error.field}", "gate_policy", f"expected {error.expected}", str(error.value)
        ) from None


def _to_suite(number: int, suite: pb.GatePolicySpec.Suite) -> SuitePolicy:
    role = Role.DOMAIN if suite.role == pb.SUITE_ROLE_DOMAIN else Role.RETAINED
    try:
        return SuitePolicy(
            name=suite.suite,
            role=role,
            margin=suite.margin,
            items=suite.items,
            rule=suite.rule,
            version=suite.version,
        )
    except InvalidPolicy as error:
        raise InvalidPolicy(f"suites[{number}].{error.field}", error.value, error.expected) from None


def gate_policy(version: GatePolicyVersion) -> pb.GatePolicy:
    """Returns the message of a version of a gate policy."""
    policy = version.policy
    return pb.GatePolicy(
        name=str(version.name),
        digest=policy.digest,
        canonical_json=to_policy_bytes(policy),
        spec=pb.GatePolicySpec(
            suites=[
                pb.GatePolicySpec.Suite(
                    suite=suite.name,
                    role=_ROLES[suite.role],
                    margin=suite.margin,
                    items=suite.items,
                    rule=suite.rule,
                    version=suite.version,
                )
                for suite in policy.suites
            ],
            alpha=policy.alpha,
            seed=policy.seed,
            people=pb.GatePolicySpec.People(**{name: getattr(policy.people, name) for name in _PEOPLE}),
        ),
        state=_POLICY_STATES[version.state],
        requester=version.requester,
        reason=version.reason,
        loosens=version.loosens,
        people_needed=version.people,
        approvals=map(_approval, version.approvals),
        refuser=version.refuser,
        refuse_reason=version.refuse_reason,
        create_time=to_proto(version.create_time),
        decide_time=to_proto(version.decide_time),
    )


def _failed_report(report: FailedReport) -> pb.ModelVersion.FailedReport:
    return pb.ModelVersion.FailedReport(
        report_digest=report.report_digest,
        policy_digest=report.policy_digest,
        override=str(PromotionOverrideName(report.override)) if report.override else "",
    )


def _approval(approval: Approval) -> pb.Approval:
    return pb.Approval(principal=approval.principal, approve_time=to_proto(approval.time))


def _change(change: StateChange) -> pb.ModelVersion.StateChange:
    return pb.ModelVersion.StateChange(
        state=_VERSION_STATES[change.state],
        change_time=to_proto(change.time),
        principal=change.principal,
        reason=change.reason,
    )


def _suite(suite: Mapping[str, Any], method: Mapping[str, Any]) -> pb.EvaluationReport.SuiteResult:
    statistics = suite["statistics"]
    concluded = suite["verdict"] in ("pass", "failed")

    def estimate(figure: Mapping[str, Any]) -> Estimate:
        interval = figure["interval"]
        return Estimate(
            value=figure["value"],
            lower=interval["lower"],
            upper=interval["upper"],
            confidence=method["confidence"],
            sample_size=statistics["clusters"],
            unit=_UNITS[suite["metric"]],
            method=_method_text(interval["method"], statistics, method),
        )

    return pb.EvaluationReport.SuiteResult(
        suite=suite["name"],
        items_digest=suite["items"],
        template_digest=suite["template"],
        scoring_rule=f"{suite['rule']}/{suite['version']}",
        base=estimate(statistics["base"]),
        tuned=estimate(statistics["tuned"]),
        difference=estimate(statistics["gain"]),
        difference_lower_bound=statistics["gain_lower_bound"],
        difference_upper_bound=statistics["gain_upper_bound"],
        margin=suite["margin"],
        gated=suite["role"] == "retained",
        verdict=_VERDICTS[suite["verdict"]],
        regression_p_value=statistics["regression_p_holm"],
        items_needed=0 if concluded else statistics["items_needed"] or 0,
        anytime_lower_bound=suite["test"]["gain_lower_bound"],
        anytime_upper_bound=suite["test"]["gain_upper_bound"],
    )


def _method_text(name: str, statistics: Mapping[str, Any], method: Mapping[str, Any]) -> str:
    """For people: "tango, 300 items in 280 clusters, as if fixed in advance", "bootstrap-t, ..., 10000 resamples, seed 7"."""
    sample = f"{name}, {statistics['n']} items in {statistics['clusters']} clusters, as if fixed in advance"
    if name == "bootstrap-t":
        return f"{sample}, {method['resamples']} resamples, seed {method['seed']}"
    return sample
