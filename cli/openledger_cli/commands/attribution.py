"""`openledger attribution ...`: which contributions shaped an answer."""

from __future__ import annotations

from typing import Annotated

import typer
from openledger.attribution.v1 import attribution_pb2 as pb

from openledger_cli.context import session
from openledger_cli.output import console, emit, emit_list
from openledger_cli.paging import every

app = typer.Typer(help="Which contributions shaped an answer, and how surely.", no_args_is_help=True)


@app.command()
def get(
    name: Annotated[str, typer.Argument(help="attributions/ULID or inferences/ULID")], wait: bool = True
) -> None:
    """Shows the attribution of one answer."""
    found = session().connections.attribution.GetAttribution(
        pb.GetAttributionRequest(name=name, wait=wait), timeout=session().connections.deadline_s
    )
    emit(
        found,
        ("attribution", found.name),
        ("state", _state(found)),
        ("record", found.digest),
        ("model", found.model.name),
        ("report it rests on", found.model.report_digest or "-"),
        ("method", found.method),
        ("not attributable", f"{percent(found.unattributed_ppm)} {found.unattributed_reason}"),
        ("split-half agreement", f"{found.reliability.split_half_agreement:.2f}"),
        ("controls", found.reliability.control_count),
    )
    if session().as_json:
        return
    emit_list(
        found.shares,
        [
            ("contributor", lambda s: s.contributor.rsplit("/", 1)[-1]),
            ("share", lambda s: percent(s.ppm)),
            ("95%", lambda s: f"{percent(s.estimate.lower)} to {percent(s.estimate.upper)}"),
            ("naive", lambda s: percent(s.naive_ppm)),
            ("lexical", lambda s: percent(s.lexical_ppm)),
            ("p", lambda s: f"{s.p_value:.3g}"),
        ],
    )
    for span in found.spans:
        where = "prompt" if span.in_prompt else "answer"
        console.print(
            f"[dim]{where} {span.start}-{span.end}[/dim] {span.text!r} in {span.occurrence_count:,} places"
        )


@app.command("list")
def list_attributions(model_version: str = "", limit: int = 50) -> None:
    """Lists attributions, newest first."""
    stub = session().connections.attribution
    found = every(
        lambda token: stub.ListAttributions(
            pb.ListAttributionsRequest(model_version=model_version, page_token=token)
        ),
        "attributions",
        limit,
    )
    emit_list(
        found,
        [
            ("attribution", lambda a: a.name),
            ("state", _state),
            ("model", lambda a: a.model.name),
            ("largest share", _largest),
            ("not attributable", lambda a: percent(a.unattributed_ppm)),
        ],
    )


@app.command()
def summary(model_version: str = "") -> None:
    """Totals by contributor, beside what naive normalisation would have paid."""
    found = session().connections.attribution.SummarizeAttributions(
        pb.SummarizeAttributionsRequest(model_version=model_version), timeout=session().connections.deadline_s
    )
    if session().as_json:
        emit(found)
        return
    emit_list(
        found.contributors,
        [
            ("contributor", lambda c: c.contributor.rsplit("/", 1)[-1]),
            ("records", lambda c: c.record_count),
            ("clusters", lambda c: c.cluster_count),
            ("mean share", lambda c: percent(c.ppm.value)),
            ("95%", lambda c: f"{percent(c.ppm.lower)} to {percent(c.ppm.upper)}"),
            ("naive", lambda c: percent(c.naive_ppm.value)),
            ("lexical", lambda c: percent(c.lexical_ppm.value)),
        ],
        title=f"{found.answer_count:,} answers, {found.pending_count:,} waiting",
    )
    console.print(
        f"not attributable {percent(found.unattributed_ppm.value)}; control records {percent(found.control_ppm.value)}, "
        f"naively {percent(found.control_naive_ppm.value)}, posing as a contributor {percent(found.control_check_ppm.value)}"
    )


@app.command()
def indexes() -> None:
    """Lists the indexes and how far they are."""
    stub = session().connections.attribution
    found = every(
        lambda token: stub.ListAttributionIndexes(pb.ListAttributionIndexesRequest(page_token=token)),
        "indexes",
    )
    emit_list(
        found,
        [
            ("model version", lambda i: i.model_version),
            ("ready", lambda i: i.ready),
            ("records", lambda i: i.record_count),
            ("controls", lambda i: i.control_count),
            ("progress", lambda i: f"{i.progress.done}/{i.progress.total}"),
            ("error", lambda i: i.error or "-"),
        ],
    )


def percent(ppm: float) -> str:
    """Parts per million as per cent."""
    return f"{ppm / 10_000:.2f}%"


def _state(found: pb.Attribution) -> str:
    return pb.AttributionState.Name(found.state).removeprefix("ATTRIBUTION_STATE_").lower()


def _largest(found: pb.Attribution) -> str:
    return (
        f"{found.shares[0].contributor.rsplit('/', 1)[-1]} {percent(found.shares[0].ppm)}"
        if found.shares
        else "-"
    )
