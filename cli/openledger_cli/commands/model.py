"""`openledger model ...`: versions, evaluation, gate, promotion."""

from __future__ import annotations

from typing import Annotated

import typer
from openledger.trainer.v1 import trainer_pb2 as pb

from openledger_cli.commands.training import state_of
from openledger_cli.context import session
from openledger_cli.output import console, emit, emit_list, progress_bar
from openledger_cli.paging import every

app = typer.Typer(help="Model versions: evaluation, gate, promotion.", no_args_is_help=True)


@app.command("list")
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


@app.command("get")
def get_version(name: str) -> None:
    """Shows one version."""
    _show_version(
        session().connections.trainer.GetModelVersion(
            pb.GetModelVersionRequest(name=name), timeout=session().connections.deadline_s
        )
    )


@app.command()
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
    with progress_bar() as bar:
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


@app.command()
def report(digest: str) -> None:
    """Shows an evaluation report."""
    show_report(
        session().connections.trainer.GetEvaluationReport(
            pb.GetEvaluationReportRequest(digest=digest), timeout=session().connections.deadline_s
        )
    )


@app.command()
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


@app.command()
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


@app.command()
def approve(name: Annotated[str, typer.Argument(help="promotionOverrides/ULID")]) -> None:
    """Approves an override that another person asked for."""
    request = pb.ApprovePromotionOverrideRequest(name=name)
    _show_override(
        session().connections.trainer.ApprovePromotionOverride(
            request, timeout=session().connections.deadline_s
        )
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


def version_state(state: pb.ModelVersionState.ValueType) -> str:
    """`promoted`."""
    return pb.ModelVersionState.Name(state).removeprefix("MODEL_VERSION_STATE_").lower()


def verdict_of(verdict: pb.Verdict.ValueType) -> str:
    """`inconclusive`."""
    return pb.Verdict.Name(verdict).removeprefix("VERDICT_").lower()
