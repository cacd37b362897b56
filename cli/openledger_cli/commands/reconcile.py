"""`openledger reconcile`: what was lost and what exists twice."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from openledger_cli.console import say
from openledger_cli.context import session
from openledger_cli.output import emit_table

if TYPE_CHECKING:
    from openledger_ops.reconcile.book import Book

_SHOWN = 20
NOT_CHECKED = 3
"""Exit code when nothing is wrong but the chain was not checked, without a request to leave it out."""


def reconcile(
    rpc: Annotated[
        str,
        typer.Option(
            envvar="OPENLEDGER_RPC",
            help="JSON-RPC address of the chain; default is that of the platform in --state-dir.",
            show_default=False,
        ),
    ] = "",
    no_chain: Annotated[bool, typer.Option("--no-chain", help="Do not check the chain.")] = False,
    at_rest: Annotated[
        bool, typer.Option("--at-rest", help="The platform should be idle: what waits counts as lost.")
    ] = False,
    event_log: Annotated[
        str,
        typer.Option(
            help="embedded:<path> or kafka://host:port; default is OPENLEDGER_EVENT_LOG or that of --state-dir.",
            show_default=False,
        ),
    ] = "",
    patience_s: Annotated[
        float, typer.Option(min=0, help="How long to wait for a service that does not answer, seconds.")
    ] = 60.0,
) -> None:
    """Compares what every service has written down with the event log, the objects and the chain.

    Every service must run; no database is read. The caller needs the role auditor, operator or admin.

    Exit code: 0 nothing is wrong, 1 something was lost, exists twice or cannot be read (with --at-rest: or waits), 3 nothing
    is wrong but the chain was not checked.
    """
    from openledger_ops.reconcile.book import Fault
    from openledger_ops.reconcile.reconciliation import Sources
    from openledger_ops.reconcile.reconciliation import reconcile as count
    from openledger_ops.state_folder import event_log_url, up_address

    state_dir = session().state_dir.resolve()
    address = "" if no_chain else rpc or up_address(state_dir, "chain")
    log = (
        event_log_url(event_log, state_dir) if event_log else ""
    )  # a wrong option first: it needs no platform
    with session().client as calls:
        log = log or event_log_url("", state_dir)
        book = count(Sources(client=calls, event_log=log, rpc=address, patience_s=patience_s))
    if session().as_json:
        print(json.dumps(_as_dict(book), indent=2))
    else:
        _show(book)
    if any(at_rest or each.fault is not Fault.WAITING for each in book.findings):
        raise typer.Exit(1)
    if not book.chain_checked and not no_chain:
        raise typer.Exit(NOT_CHECKED)


def _as_dict(book: Book) -> dict[str, object]:
    from openledger_ops.reconcile.book import Fault

    totals = {fault.value: book.count(fault) for fault in Fault}
    links = [
        {"link": link, "checked": book.checked.get(link, 0)}
        | {fault.value: book.count(fault, link) for fault in Fault}
        for link in book.links()
    ]
    findings = [
        {"link": each.link, "fault": each.fault.value, "thing": each.thing, "why": each.why}
        for each in book.findings
    ]
    return {
        **totals,
        "chain_checked": book.chain_checked,
        "state_times": book.state_times,
        "links": links,
        "findings": findings,
    }


def _show(book: Book) -> None:
    from openledger_ops.reconcile.book import Fault

    emit_table(
        ["link", "checked", *(fault.value for fault in Fault)],
        [
            (link, book.checked.get(link, 0), *(book.count(fault, link) for fault in Fault))
            for link in book.links()
        ],
    )
    wrong = [each for each in book.findings if each.fault is not Fault.WAITING]
    for each in wrong[:_SHOWN]:
        say((each.fault.value, "red"), f" {each.link}: {each.thing}: {each.why}")
    if len(wrong) > _SHOWN:
        say(f"and {len(wrong) - _SHOWN:,} more; --json shows all")
    times = sorted(book.state_times.values())
    say(f"state of {times[0]} to {times[-1]}")
    if not book.chain_checked:
        say("chain: not checked")
    say(", ".join(f"{book.count(fault):,} {fault.value}" for fault in Fault))
