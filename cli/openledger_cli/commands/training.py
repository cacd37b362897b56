"""`openledger train ...`: assess, run, watch."""

from __future__ import annotations

from typing import Annotated

import typer
from openledger.trainer.v1 import trainer_pb2 as pb

from openledger_cli.context import session
from openledger_cli.output import console, emit, emit_list, progress_bar
from openledger_cli.paging import every

app = typer.Typer(help="Fine-tuning: what it will do, its progress, its result.", no_args_is_help=True)

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


@app.command("bases")
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


@app.command()
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


@app.command()
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


@app.command()
def watch(name: Annotated[str, typer.Argument(help="trainingRuns/ULID")]) -> None:
    """Watches a run until it ends."""
    last = pb.TrainingRun(name=name)
    with progress_bar() as bar:
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


@app.command("list")
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


@app.command("get")
def get_run(name: str) -> None:
    """Shows one run."""
    _show_run(
        session().connections.trainer.GetTrainingRun(
            pb.GetTrainingRunRequest(name=name), timeout=session().connections.deadline_s
        )
    )


@app.command()
def cancel(name: str) -> None:
    """Stops a run."""
    _show_run(
        session().connections.trainer.CancelTrainingRun(
            pb.CancelTrainingRunRequest(name=name), timeout=session().connections.deadline_s
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


def _show_run(found: pb.TrainingRun) -> None:
    emit(
        found,
        ("run", found.name),
        ("model", found.model),
        ("state", state_of(found.state)),
        ("version", found.model_version or "-"),
        ("error", found.error or "-"),
    )


def state_of(state: pb.RunState.ValueType) -> str:
    """`running`."""
    return pb.RunState.Name(state).removeprefix("RUN_STATE_").lower()
