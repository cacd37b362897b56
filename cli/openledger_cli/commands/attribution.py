"""`openledger attribution ...`: which contributions shaped an answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from openledger_cli import lists
from openledger_cli.console import say
from openledger_cli.context import session
from openledger_cli.deferred import Deferred
from openledger_cli.lazy import group
from openledger_cli.options import Limit, show_list
from openledger_cli.output import emit, emit_list, lower_name

if TYPE_CHECKING:
    from openledger.attribution.v1 import attribution_pb2 as pb
else:
    pb = Deferred("openledger.attribution.v1.attribution_pb2")

app = group("Which contributions shaped an answer, and how surely.")


@app.command()
def get(
    name: Annotated[str, typer.Argument(help="attributions/ULID or inferences/ULID")], wait: bool = True
) -> None:
    """Shows the attribution of one answer."""
    found = session().client.attribution.GetAttribution(pb.GetAttributionRequest(name=name, wait=wait))
    emit(
        found,
        ("attribution", found.name),
        ("state", _state(found)),
        ("record", found.digest),
        ("model", found.model.name),
        ("evaluation report", found.model.report_digest or "-"),
        ("method", found.method),
        ("unattributed", f"{percent(found.unattributed_ppm)} {found.unattributed_reason}"),
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
        say(
            (f"{where} {span.start}-{span.end}", "dim"),
            f" {span.text!r} occurs {span.occurrence_count:,} times",
        )


@app.command("list")
def list_attributions(
    model_version: Annotated[str, typer.Option(help="models/M/versions/N; all by default.")] = "",
    filter: Annotated[str, lists.ATTRIBUTIONS.filter_option()] = "",
    order_by: Annotated[str, lists.ATTRIBUTIONS.order_option()] = "",
    limit: Limit = 50,
) -> None:
    """Lists attributions, newest first."""
    show_list(
        session().client.attribution.ListAttributions,
        pb.ListAttributionsRequest(model_version=model_version),
        lambda page: page.attributions,
        [
            ("attribution", lambda a: a.name),
            ("state", _state),
            ("model", lambda a: a.model.name),
            ("largest share", _largest),
            ("unattributed", lambda a: percent(a.unattributed_ppm)),
        ],
        filter=filter,
        order_by=order_by,
        limit=limit,
    )


@app.command()
def summary(
    model_version: Annotated[str, typer.Option(help="models/M/versions/N; all by default.")] = "",
) -> None:
    """Totals by contributor, compared with what naive normalisation would have paid."""
    found = session().client.attribution.SummarizeAttributions(
        pb.SummarizeAttributionsRequest(model_version=model_version)
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
        title=f"{found.answer_count:,} answers, {found.pending_count:,} pending",
    )
    say(
        f"unattributed {percent(found.unattributed_ppm.value)}; control records {percent(found.control_ppm.value)}, "
        f"naive {percent(found.control_naive_ppm.value)}, posing as a contributor {percent(found.control_check_ppm.value)}"
    )


@app.command()
def indexes(
    filter: Annotated[str, lists.INDEXES.filter_option()] = "",
    order_by: Annotated[str, lists.INDEXES.order_option()] = "",
    limit: Limit = 50,
) -> None:
    """Lists the indexes and how far they are built."""
    show_list(
        session().client.attribution.ListAttributionIndexes,
        pb.ListAttributionIndexesRequest(),
        lambda page: page.indexes,
        [
            ("model version", lambda i: i.model_version),
            ("ready", lambda i: i.ready),
            ("records", lambda i: i.record_count),
            ("controls", lambda i: i.control_count),
            ("progress", lambda i: f"{i.progress.done}/{i.progress.total}"),
            ("error", lambda i: i.error or "-"),
        ],
        filter=filter,
        order_by=order_by,
        limit=limit,
    )


def percent(ppm: float) -> str:
    """Parts per million as per cent."""
    return f"{ppm / 10_000:.2f}%"


def _state(found: pb.Attribution) -> str:
    return lower_name(pb.AttributionState.Name(found.state), "ATTRIBUTION_STATE_")


def _largest(found: pb.Attribution) -> str:
    if not found.shares or found.shares[0].ppm == 0:
        return "-"
    return f"{found.shares[0].contributor.rsplit('/', 1)[-1]} {percent(found.shares[0].ppm)}"
