"""`openledger train ...` and `openledger model ...`: assess, run, watch, evaluate, promote."""

from __future__ import annotations

from typing import Annotated

import typer
from openledger.trainer.v1 import trainer_pb2 as pb
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from openledger_cli.context import session
from openledger_cli.output import console, emit, emit_list
from openledger_cli.paging import every

training = typer.Typer(help="Fine-tuning: what it will do, its progress, its result.", no_args_is_help=True)
models = typer.Typer(help="Model versions: evaluation, gate, promotion.", no_args_is_help=True)

Base = Annotated[str, typer.Option("--base", help="baseModels/{id}")]
Snapshots = Annotated[
    list[str], typer.Option("--snapshot", help="datanets/D/snapshots/N[=weight]; may be repeated.")
]
LearningRate = Annotated[float, typer.Option(help="0 takes the platform's suggestion.")]
Replay = Annotated[str, typer.Option(help="suggested, none or self-generated")]
DEFAULT_BASE = "baseModels/smollm2-135m-instruct"


def spec_of(learning_rate: float, steps: int, batch_size: int, replay: str, seed: int) -> pb.TrainingSpec:
    """A spec from options; zeros take the platform's suggestion."""
    kinds = {
        "suggested": pb.REPLAY_KIND_UNSPECIFIED,
        "none": pb.REPLAY_KIND_NONE,
        "self-generated": pb.REPLAY_KIND_SELF_GENERATED,
    }
    if replay not in kinds:
        raise typer.BadParameter(f"--replay {replay!r} is not one of {', '.join(kinds)}")
    return pb.TrainingSpec(
        learning_rate=learning_rate,
        steps=steps,
        batch_size=batch_size,
        seed=seed,
        replay=pb.ReplaySpec(kind=kinds[replay]),
    )


def weighted(snapshots: list[str]) -> list[pb.WeightedSnapshot]:
    """`datanets/d/snapshots/1=2.5` -> snapshot and weight."""
    found = []
    for given in snapshots:
        name, _, weight = given.partition("=")
        try:
            found.append(pb.WeightedSnapshot(snapshot=name, weight=float(weight or 0)))
        except ValueError:
            raise typer.BadParameter(f"{given!r}: weight {weight!r} is not a number") from None
    return found


@training.command("bases")
def bases() -> None:
    """Lists the base models that can be tuned."""
    stub = session().connections.trainer
    found = every(
        lambda token: stub.ListBaseModels(pb.ListBaseModelsRequest(page_token=token)), "base_models"
    )
    emit_list(
        found,
        [
            ("name", lambda b: b.name),
            ("parameters", lambda b: b.parameter_count),
            ("licence", lambda b: b.licence),
            ("digest", lambda b: b.digest),
        ],
    )


@training.command()
def assess(
    snapshot: Snapshots,
    base: Base = DEFAULT_BASE,
    learning_rate: LearningRate = 0.0,
    steps: int = 0,
    batch_size: int = 0,
    replay: Replay = "suggested",
    seed: int = 0,
) -> None:
    """Says what a spec will lead to, before anything runs."""
    request = pb.AssessTrainingSpecRequest(
        base_model=base,
        snapshots=weighted(snapshot),
        spec=spec_of(learning_rate, steps, batch_size, replay, seed),
    )
    show_assessment(
        session().connections.trainer.AssessTrainingSpec(request, timeout=session().connections.deadline_s)
    )


@training.command()
def run(
    model: str,
    snapshot: Snapshots,
    base: Base = DEFAULT_BASE,
    learning_rate: LearningRate = 0.0,
    steps: int = 0,
    batch_size: int = 0,
    replay: Replay = "suggested",
    seed: int = 0,
    purpose: str = "",
    request_id: str = "",
    follow: Annotated[bool, typer.Option(help="Watch it until it ends.")] = True,
) -> None:
    """Starts a run and watches it."""
    request = pb.CreateTrainingRunRequest(
        model=model if model.startswith("models/") else f"models/{model}",
        base_model=base,
        snapshots=weighted(snapshot),
        spec=spec_of(learning_rate, steps, batch_size, replay, seed),
        intent=pb.Intent(purpose=purpose),
        request_id=request_id,
    )
    created = session().connections.trainer.CreateTrainingRun(
        request, timeout=session().connections.deadline_s
    )
    if not session().as_json:
        show_findings(created.assessment)
    if follow:
        watch(created.name)
    else:
        _show_run(created)


@training.command()
def watch(name: Annotated[str, typer.Argument(help="trainingRuns/ULID")]) -> None:
    """Watches a run until it ends."""
    last = pb.TrainingRun(name=name)
    with _progress() as bar:
        task = bar.add_task("training", total=None, detail="")
        for update in session().connections.trainer.WatchTrainingRun(pb.WatchTrainingRunRequest(name=name)):
            metrics = update.metrics
            detail = f"loss {metrics.loss:.3f}  {metrics.tokens_per_s:,.0f} tokens/s" if metrics.step else ""
            bar.update(
                task,
                description=update.progress.stage or "training",
                completed=update.progress.done,
                total=update.progress.total or None,
                detail=detail,
            )
            if update.HasField("run"):
                last = update.run
    _show_run(last)
    if last.state == pb.RUN_STATE_FAILED:
        raise typer.Exit(1)


@training.command("list")
def list_runs(model: str = "", limit: int = 50) -> None:
    """Lists runs, newest first."""
    stub = session().connections.trainer
    found = every(
        lambda token: stub.ListTrainingRuns(pb.ListTrainingRunsRequest(model=model, page_token=token)),
        "training_runs",
        limit,
    )
    emit_list(
        found,
        [
            ("run", lambda r: r.name),
            ("model", lambda r: r.model),
            ("state", lambda r: state_of(r.state)),
            ("version", lambda r: r.model_version),
            ("by", lambda r: r.principal),
        ],
    )


@training.command("get")
def get_run(name: str) -> None:
    """Shows one run."""
    _show_run(
        session().connections.trainer.GetTrainingRun(
            pb.GetTrainingRunRequest(name=name), timeout=session().connections.deadline_s
        )
    )


@training.command()
def cancel(name: str) -> None:
    """Stops a run."""
    _show_run(
        session().connections.trainer.CancelTrainingRun(
            pb.CancelTrainingRunRequest(name=name), timeout=session().connections.deadline_s
        )
    )


@models.command("list")
def list_versions(model: Annotated[str, typer.Argument()] = "-") -> None:
    """Lists a model's versions, or all."""
    parent = model if model.startswith("models/") else f"models/{model}"
    stub = session().connections.trainer
    found = every(
        lambda token: stub.ListModelVersions(pb.ListModelVersionsRequest(parent=parent, page_token=token)),
        "model_versions",
    )
    emit_list(
        found,
        [
            ("version", lambda v: v.name),
            ("state", lambda v: version_state(v.state)),
            ("verdict", lambda v: verdict_of(v.verdict)),
            ("adapter", lambda v: v.adapter_digest[:23]),
            ("report", lambda v: v.report_digest[:23]),
        ],
    )


@models.command("get")
def get_version(name: str) -> None:
    """Shows one version."""
    _show_version(
        session().connections.trainer.GetModelVersion(
            pb.GetModelVersionRequest(name=name), timeout=session().connections.deadline_s
        )
    )


@models.command()
def evaluate(
    name: str,
    suite: Annotated[list[str], typer.Option(help="suite[=items]; may be repeated.")] = [],
    request_id: str = "",
) -> None:
    """Evaluates a version against its base and shows the report."""
    suites = []
    for given in suite:
        suite_id, _, items = given.partition("=")
        suites.append(pb.EvaluateModelVersionRequest.SuiteRequest(suite=suite_id, items=int(items or 0)))
    stub = session().connections.trainer
    evaluation = stub.EvaluateModelVersion(
        pb.EvaluateModelVersionRequest(name=name, suites=suites, request_id=request_id),
        timeout=session().connections.deadline_s,
    )
    with _progress() as bar:
        task = bar.add_task("evaluating", total=None, detail="")
        for update in stub.WatchEvaluation(pb.WatchEvaluationRequest(name=evaluation.name)):
            evaluation = update.evaluation
            detail = f"{update.items_per_s:.1f} items/s" if update.items_per_s else ""
            bar.update(
                task,
                description=update.progress.stage or "evaluating",
                completed=update.progress.done,
                total=update.progress.total or None,
                detail=detail,
            )
    if evaluation.state != pb.RUN_STATE_SUCCEEDED:
        emit(
            evaluation,
            ("evaluation", evaluation.name),
            ("state", state_of(evaluation.state)),
            ("error", evaluation.error),
        )
        raise typer.Exit(1)
    report(evaluation.report_digest)


@models.command()
def report(digest: str) -> None:
    """Shows an evaluation report."""
    show_report(
        session().connections.trainer.GetEvaluationReport(
            pb.GetEvaluationReportRequest(digest=digest), timeout=session().connections.deadline_s
        )
    )


@models.command()
def promote(
    name: str,
    override: Annotated[str, typer.Option(help="promotionOverrides/ULID")] = "",
    request_id: str = "",
) -> None:
    """Serves a version; refused when its gate did not pass and no approved override is named."""
    request = pb.PromoteModelVersionRequest(name=name, override=override, request_id=request_id)
    _show_version(
        session().connections.trainer.PromoteModelVersion(request, timeout=session().connections.deadline_s)
    )


@models.command()
def override(
    name: str, reason: Annotated[str, typer.Option(help="Why, at least 20 characters.")], request_id: str = ""
) -> None:
    """Asks that a version be promoted against the gate; another person must approve."""
    request = pb.CreatePromotionOverrideRequest(model_version=name, reason=reason, request_id=request_id)
    _show_override(
        session().connections.trainer.CreatePromotionOverride(
            request, timeout=session().connections.deadline_s
        )
    )


@models.command()
def approve(name: Annotated[str, typer.Argument(help="promotionOverrides/ULID")]) -> None:
    """Approves an override that another person asked for."""
    request = pb.ApprovePromotionOverrideRequest(name=name)
    _show_override(
        session().connections.trainer.ApprovePromotionOverride(
            request, timeout=session().connections.deadline_s
        )
    )


def show_assessment(found: pb.TrainingAssessment) -> None:
    """What a spec leads to, gravest first."""
    if session().as_json:
        emit(found)
        return
    show_findings(found)
    emit_list(
        found.values,
        [("parameter", lambda v: v.parameter), ("value", lambda v: v.value), ("origin", lambda v: v.origin)],
        title="effective values",
    )


def show_findings(found: pb.TrainingAssessment) -> None:
    """The findings alone."""
    colours = {pb.SEVERITY_DANGER: "red", pb.SEVERITY_WARNING: "yellow"}
    for finding in found.findings:
        colour = colours.get(finding.severity, "green")
        severity = pb.Severity.Name(finding.severity).removeprefix("SEVERITY_").lower()
        console.print(
            f"[{colour}]{severity:8}[/{colour}][bold]{finding.parameter} = {finding.value}[/bold]: "
            f"{finding.consequence} {finding.advice} [dim]({finding.source})[/dim]"
        )


def show_report(found: pb.EvaluationReport) -> None:
    """A report as people read it."""
    if session().as_json:
        emit(found)
        return
    emit_list(
        found.suites,
        [
            ("suite", lambda s: s.suite),
            ("base", lambda s: s.base),
            ("tuned", lambda s: s.tuned),
            ("difference (95%)", lambda s: s.difference),
            ("margin", lambda s: s.margin if s.gated else "gain"),
            ("verdict", lambda s: verdict_of(s.verdict)),
            ("items needed", lambda s: s.items_needed or ""),
        ],
        title=f"report {found.digest}",
    )
    console.print(f"gate: [bold]{verdict_of(found.verdict)}[/bold]")
    for reason in found.reasons:
        console.print(f"  {reason}")


def _show_run(found: pb.TrainingRun) -> None:
    emit(
        found,
        ("run", found.name),
        ("model", found.model),
        ("state", state_of(found.state)),
        ("version", found.model_version or "-"),
        ("error", found.error or "-"),
    )


def _show_version(found: pb.ModelVersion) -> None:
    emit(
        found,
        ("version", found.name),
        ("state", version_state(found.state)),
        ("verdict", verdict_of(found.verdict)),
        ("base", found.base_digest),
        ("adapter", found.adapter_digest),
        ("report", found.report_digest or "-"),
        ("training manifest", found.training_manifest_digest),
        ("compute", found.compute),
        (
            "history",
            "; ".join(f"{version_state(h.state)} {h.principal} {h.reason}".strip() for h in found.history),
        ),
    )


def _show_override(found: pb.PromotionOverride) -> None:
    emit(
        found,
        ("override", found.name),
        ("version", found.model_version),
        ("report", found.report_digest),
        ("reason", found.reason),
        ("asked by", found.requester),
        ("approved by", found.approver or "nobody yet"),
    )


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:.0f}/{task.total}"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[detail]}"),
        console=console,
        disable=session().as_json,
    )


def state_of(state: pb.RunState.ValueType) -> str:
    """`running`."""
    return pb.RunState.Name(state).removeprefix("RUN_STATE_").lower()


def version_state(state: pb.ModelVersionState.ValueType) -> str:
    """`promoted`."""
    return pb.ModelVersionState.Name(state).removeprefix("MODEL_VERSION_STATE_").lower()


def verdict_of(verdict: pb.Verdict.ValueType) -> str:
    """`inconclusive`."""
    return pb.Verdict.Name(verdict).removeprefix("VERDICT_").lower()
