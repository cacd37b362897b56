"""`openledger train ...`: assess, run, watch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from openledger_cli import lists
from openledger_cli.console import say
from openledger_cli.context import session
from openledger_cli.deferred import Deferred
from openledger_cli.lazy import group
from openledger_cli.options import Limit, RequestId, full_name, show_list
from openledger_cli.output import duration, emit, emit_rows, emit_table, lower_name, moment
from openledger_cli.progress import progress, rate
from openledger_cli.training_spec import message, with_spec

if TYPE_CHECKING:
    from openledger.trainer.v1 import trainer_pb2 as pb

    from openledger_client import watches
else:
    pb = Deferred("openledger.trainer.v1.trainer_pb2")
    watches = Deferred("openledger_client.watches")

app = group("Fine-tuning: what it will do, its progress, its result.")

Base = Annotated[
    str,
    typer.Option(
        "--base", help="baseModels/{id}; needed where the platform has several.", show_default=False
    ),
]
Snapshots = Annotated[
    list[str], typer.Option("--snapshot", help="datanets/D/snapshots/N[=weight]; may be repeated.")
]
Name = Annotated[str, typer.Argument(help="trainingRuns/ULID")]


def only_base() -> str:
    """Returns the platform's base model. Raises BadParameter when there is none, or a choice."""
    page = session().client.trainer.ListBaseModels(pb.ListBaseModelsRequest(page_size=20))
    names = [each.name for each in page.base_models]
    if len(names) != 1:
        choice = f"name one of {', '.join(names)}" if names else "the platform has no base model"
        raise typer.BadParameter(choice, param_hint="--base")
    return names[0]


def weighted(snapshots: list[str]) -> list[pb.WeightedSnapshot]:
    """`datanets/d/snapshots/1=2.5` -> snapshot and weight."""
    found = []
    for given in snapshots:
        name, _, weight = given.partition("=")
        try:
            found.append(pb.WeightedSnapshot(snapshot=name, weight=float(weight) if weight else None))
        except ValueError:
            raise typer.BadParameter(
                f"{given!r}: weight {weight!r} is not a number", param_hint="--snapshot"
            ) from None
    return found


def _margin(given: str) -> pb.Intent.Margin:
    """`arc_easy=0.02` -> suite and margin."""
    suite, _, margin = given.partition("=")
    try:
        return pb.Intent.Margin(suite=suite, margin=float(margin))
    except ValueError:
        raise typer.BadParameter(f"{given!r}: {margin!r} is not a number", param_hint="--keep") from None


@app.command("bases")
def bases(
    filter: Annotated[str, lists.BASE_MODELS.filter_option()] = "",
    order_by: Annotated[str, lists.BASE_MODELS.order_option()] = "",
    limit: Limit = 50,
) -> None:
    """Lists the base models that can be tuned."""
    show_list(
        session().client.trainer.ListBaseModels,
        pb.ListBaseModelsRequest(),
        lambda page: page.base_models,
        [
            ("name", lambda b: b.name),
            ("parameters", lambda b: b.parameter_count),
            ("licence", lambda b: b.licence),
            ("digest", lambda b: b.digest),
        ],
        filter=filter,
        order_by=order_by,
        limit=limit,
    )


@app.command()
@with_spec
def assess(*, snapshot: Snapshots, base: Base = "", values: Mapping[str, Any]) -> None:
    """Says what a spec will lead to and how long it takes, before anything runs."""
    request = pb.AssessTrainingSpecRequest(
        base_model=base or only_base(),
        snapshots=weighted(snapshot),
        spec=message(values),
    )
    found = session().client.trainer.AssessTrainingSpec(request)
    if session().as_json:
        emit(found)
        return
    show_findings(found)
    show_values(found.values)
    emit_rows(("expected time", _expected(found)))


@app.command()
@with_spec
def run(
    *,
    model: Annotated[str, typer.Argument()],
    snapshot: Snapshots,
    base: Base = "",
    purpose: str = "",
    gate_policy: Annotated[
        str, typer.Option(help="gatePolicies/P or P; default: the model's, at first gatePolicies/default.")
    ] = "",
    keep: Annotated[
        list[str], typer.Option(help="suite=margin, narrower than the policy's; may be repeated.")
    ] = [],
    request_id: RequestId = "",
    follow: Annotated[bool, typer.Option(help="Watch it until it ends.")] = True,
    values: Mapping[str, Any],
) -> None:
    """Starts a run and watches it."""
    request = pb.CreateTrainingRunRequest(
        model=full_name("models", model),
        base_model=base or only_base(),
        snapshots=weighted(snapshot),
        spec=message(values),
        intent=pb.Intent(
            purpose=purpose,
            keep=map(_margin, keep),
            gate_policy=full_name("gatePolicies", gate_policy) if gate_policy else "",
        ),
        request_id=request_id,
    )
    created = session().client.trainer.CreateTrainingRun(request)
    if not session().as_json:
        show_findings(created.assessment)
        emit_rows(("expected time", _expected(created.assessment)))
    if follow:
        watch(created.name)
    else:
        _show_state(created)


@app.command()
def watch(name: Name) -> None:
    """Watches a run until it ends."""
    last = pb.TrainingRun(name=name)
    with progress("training") as bar:
        call = session().client.trainer.WatchTrainingRun
        for update in watches.watch(call, pb.WatchTrainingRunRequest(name=name)):
            if update.HasField("progress"):
                where = update.progress
                bar.at(
                    where.done,
                    where.total,
                    unit=where.unit,
                    stage=where.stage,
                    eta_s=where.eta_s,
                    detail=_measured(update.metrics),
                )
            if update.HasField("run"):
                last = update.run
    _show_state(last)
    if last.state == pb.RUN_STATE_FAILED:
        raise typer.Exit(1)


@app.command("list")
def list_runs(
    model: Annotated[str, typer.Option(help="models/M or M; all by default.")] = "",
    filter: Annotated[str, lists.RUNS.filter_option()] = "",
    order_by: Annotated[str, lists.RUNS.order_option()] = "",
    limit: Limit = 50,
) -> None:
    """Lists runs, newest first."""
    show_list(
        session().client.trainer.ListTrainingRuns,
        pb.ListTrainingRunsRequest(model=full_name("models", model) if model else ""),
        lambda page: page.training_runs,
        [
            ("run", lambda r: r.name),
            ("model", lambda r: r.model),
            ("state", lambda r: state_of(r.state)),
            ("version", lambda r: r.model_version),
            ("by", lambda r: r.principal),
        ],
        filter=filter,
        order_by=order_by,
        limit=limit,
    )


@app.command("get")
def get_run(name: Name) -> None:
    """Shows a run: its state, its spec with each value's origin, its intent, and the report on its result."""
    found = session().client.trainer.GetTrainingRun(pb.GetTrainingRunRequest(name=name))
    if session().as_json:
        emit(found)
        return
    emit_rows(
        ("run", found.name),
        ("model", found.model),
        ("state", state_of(found.state)),
        *([("error", found.error)] if found.error else []),
        ("created by", found.principal),
        ("base", f"{found.base_model} {found.base_digest}"),
        ("snapshots", "\n".join(weighted_name(each.snapshot, each.weight) for each in found.snapshots)),
        *intent_rows(found.intent),
        ("expected time", _expected(found.assessment)),
        ("created", moment(found.create_time)),
        ("started", moment(found.start_time)),
        ("ended", moment(found.end_time)),
        ("version", found.model_version or "-"),
    )
    show_values(found.values)
    if found.model_version:
        from openledger_cli.commands.model import show_judgement

        version = session().client.trainer.GetModelVersion(
            pb.GetModelVersionRequest(name=found.model_version)
        )
        show_judgement(version)


@app.command()
def parameters(
    name: Annotated[str, typer.Argument(help="One value, e.g. rehearsal.kl_weight; all by default.")] = "",
) -> None:
    """Says of each value of a spec what it is, what it may be, and what goes wrong below and above."""
    found = session().client.trainer.DescribeParameters(pb.DescribeParametersRequest(parameter=name))
    if session().as_json:
        emit(found)
    elif name:
        for each in found.parameters:
            emit_rows(
                ("value", each.name),
                ("is", each.words),
                ("range", f"{each.range} {each.unit}".strip()),
                ("not set", each.default),
                ("too small", each.below),
                *([("too large", each.above)] if each.above else []),
                ("usual", each.advice),
                ("evidence", each.evidence),
            )
    else:
        emit_table(
            ["value", "range", "not set", "usual"],
            [
                (each.name, f"{each.range} {each.unit}".strip(), each.default, each.advice)
                for each in found.parameters
            ],
        )


@app.command()
def cancel(name: Name) -> None:
    """Stops a run."""
    _show_state(session().client.trainer.CancelTrainingRun(pb.CancelTrainingRunRequest(name=name)))


def show_findings(found: pb.TrainingAssessment) -> None:
    """What a spec leads to, gravest first."""
    colours = {pb.SEVERITY_DANGER: "red", pb.SEVERITY_WARNING: "yellow"}
    for finding in found.findings:
        colour = colours.get(finding.severity, "green")
        severity = lower_name(pb.Severity.Name(finding.severity), "SEVERITY_")
        say(
            (f"{severity:8}", colour),
            (f"{finding.parameter} = {finding.value}", "bold"),
            f": {finding.consequence} {finding.advice} ",
            (f"({finding.source})", "dim"),
        )


def show_values(values: Iterable[pb.EffectiveValue]) -> None:
    """The effective spec: each value and whether the user, the suggestion or the default set it."""
    say(("effective spec", "italic"))
    emit_table(
        ["parameter", "value", "origin"],
        [(v.parameter, v.value.replace(",", ", "), v.origin) for v in values],
    )


def intent_rows(intent: pb.Intent) -> list[tuple[str, object]]:
    """What a run is for and what it must keep."""
    keep = ", ".join(f"{each.suite} within {each.margin:g}" for each in intent.keep)
    return [
        ("purpose", intent.purpose or "-"),
        ("gate policy", intent.gate_policy or "the model's"),
        ("must keep", keep or "what the gate policy says"),
    ]


def _expected(found: pb.TrainingAssessment) -> str:
    if found.expected_s <= 0:
        return "not known"
    return f"about {duration(found.expected_s)}" + (
        f", from {found.expected_basis}" if found.expected_basis else ""
    )


def _measured(metrics: pb.TrainingRunUpdate.StepMetrics) -> str:
    if not metrics.step:
        return ""
    speed = rate(metrics.tokens_per_s, "tokens")
    return f"loss {metrics.loss:.3f}" + (f", {speed}" if speed else "")


def weighted_name(snapshot: str, weight: float) -> str:
    """A snapshot with its relative weight; a weight that was not given is 1."""
    return f"{snapshot} x {weight or 1:g}"


def _show_state(found: pb.TrainingRun) -> None:
    emit(
        found,
        ("run", found.name),
        ("model", found.model or "-"),
        ("state", state_of(found.state)),
        ("version", found.model_version or "-"),
        *([("error", found.error)] if found.error else []),
    )


def state_of(state: pb.RunState.ValueType) -> str:
    """`running`."""
    return lower_name(pb.RunState.Name(state), "RUN_STATE_")
