"""Between this service's entities and the API's messages."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.timestamp_pb2 import Timestamp
from openledger.common.v1.estimate_pb2 import Progress
from openledger.trainer.v1 import trainer_pb2 as pb

from identity.names import BaseModelName, ModelName, TrainingRunName
from trainer.assessment import Finding, Intent
from trainer.entities import Evaluation, JobState, Override, Run, StateChange, Version, VersionState
from trainer.progress import ProgressLine
from trainer.spec import EffectiveSpec, TrainingSpec

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
}
_REPLAY_KINDS: Mapping[str, pb.ReplayKind.ValueType] = {
    "none": pb.REPLAY_KIND_NONE,
    "self_generated": pb.REPLAY_KIND_SELF_GENERATED,
}
_NUMBERS = ("learning_rate", "steps", "batch_size", "lora_rank", "lora_alpha", "warmup_ratio", "max_tokens",
            "seed", "workers")  # fmt: skip
_REPLAY_NUMBERS = ("sequences", "tokens_each", "sequences_per_step", "kl_weight")


def to_user_values(spec: pb.TrainingSpec) -> dict[str, Any]:
    """What a user set, by path: zero and empty fields were left to the platform."""
    values: dict[str, Any] = {name: value for name in _NUMBERS if (value := getattr(spec, name))}
    if spec.target_modules:
        values["target_modules"] = tuple(spec.target_modules)
    for kind, number in _REPLAY_KINDS.items():
        if spec.replay.kind == number:
            values["replay.kind"] = kind
    values.update(
        {f"replay.{name}": value for name in _REPLAY_NUMBERS if (value := getattr(spec.replay, name))}
    )
    return values


def to_intent(intent: pb.Intent) -> Intent:
    return Intent(intent.purpose, tuple((kept.suite, kept.margin) for kept in intent.keep))


def spec(spec: TrainingSpec) -> pb.TrainingSpec:
    return pb.TrainingSpec(
        **{name: getattr(spec, name) for name in _NUMBERS},
        target_modules=spec.target_modules,
        replay=pb.ReplaySpec(
            kind=_REPLAY_KINDS[spec.replay.kind],
            **{name: getattr(spec.replay, name) for name in _REPLAY_NUMBERS},
        ),
    )


def values(spec: TrainingSpec, origins: Mapping[str, str]) -> list[pb.EffectiveValue]:
    """Every value with its origin."""
    return [
        pb.EffectiveValue(parameter=path, value=_text(value), origin=origins[path])
        for path, value in spec.values().items()
    ]


def assessment(
    findings: list[Finding], suggested: TrainingSpec, effective: EffectiveSpec, expected_s: float
) -> pb.TrainingAssessment:
    return pb.TrainingAssessment(
        findings=[_finding(finding) for finding in findings],
        suggested=spec(suggested),
        effective=spec(effective.spec),
        values=values(effective.spec, effective.origins),
        expected_s=expected_s,
    )


def to_json(assessed: pb.TrainingAssessment) -> dict[str, Any]:
    """The message as JSON, as it is stored with a run."""
    content: dict[str, Any] = MessageToDict(assessed, preserving_proto_field_name=True)
    return content


def run(run: Run) -> pb.TrainingRun:
    return pb.TrainingRun(
        name=run_name(run.job.id),
        model=str(ModelName(run.model)),
        base_model=str(BaseModelName(run.base_model)),
        base_digest=run.base_digest,
        snapshots=[pb.WeightedSnapshot(snapshot=s.name, weight=s.weight) for s in run.snapshots],
        spec=spec(run.spec),
        values=values(run.spec, run.origins),
        intent=_intent(run.intent),
        assessment=ParseDict(dict(run.assessment), pb.TrainingAssessment()),
        state=RUN_STATES[run.job.state],
        error=run.job.error,
        model_version=f"models/{run.model}/versions/{run.version}" if run.version else "",
        create_time=_time(run.job.create_time),
        start_time=_time(run.job.start_time),
        end_time=_time(run.job.end_time),
        principal=run.principal,
    )


def version(version: Version) -> pb.ModelVersion:
    made = version.run
    return pb.ModelVersion(
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
        spec=spec(made.spec),
        values=values(made.spec, made.origins),
        intent=_intent(made.intent),
        compute=version.compute,
        packages=version.packages,
        report_digest=version.report_digest,
        verdict=_VERDICTS[version.verdict],
        state=_VERSION_STATES[version.state],
        history=[_change(change) for change in version.history],
        training_run=run_name(made.job.id),
        owner=made.principal,
    )


def evaluation(evaluation: Evaluation) -> pb.Evaluation:
    return pb.Evaluation(
        name=f"evaluations/{evaluation.job.id}",
        model_version=str(evaluation.version),
        state=RUN_STATES[evaluation.job.state],
        report_digest=evaluation.report_digest,
        error=evaluation.job.error,
    )


def override(override: Override) -> pb.PromotionOverride:
    return pb.PromotionOverride(
        name=f"promotionOverrides/{override.id}",
        model_version=str(override.version),
        report_digest=override.report_digest,
        reason=override.reason,
        requester=override.requester,
        approver=override.approver,
        create_time=_time(override.create_time),
        approve_time=_time(override.approve_time),
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
    )


def _change(change: StateChange) -> pb.ModelVersion.StateChange:
    return pb.ModelVersion.StateChange(
        state=_VERSION_STATES[change.state],
        change_time=_time(change.time),
        principal=change.principal,
        reason=change.reason,
    )


def _text(value: object) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return ",".join(value) if isinstance(value, tuple) else str(value)


def _time(time: datetime | None) -> Timestamp | None:
    if time is None:
        return None
    stamp = Timestamp()
    stamp.FromDatetime(time)
    return stamp
