"""`openledger reconcile`: what was lost and what stands twice, from what is written down alone."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from typing import Annotated

import typer
from rich.table import Table

from openledger_cli.context import session
from openledger_cli.output import console
from openledger_cli.reconcile.book import Book, Fault
from openledger_cli.reconcile.look import reconcile as count
from openledger_cli.reconcile.places import last_settings, places

_SHOWN = 20


def reconcile(
    rpc: Annotated[str, typer.Option(help="JSON-RPC address of the chain; default is the relay's.")] = "",
    no_chain: Annotated[bool, typer.Option("--no-chain", help="Leave out what stands on the chain.")] = False,
    at_rest: Annotated[
        bool, typer.Option("--at-rest", help="Nothing may be on its way: what waits counts as lost.")
    ] = False,
) -> None:
    """Counts what was lost and doubled: databases, objects, event log and chain are read, no service is asked.

    Settings are those of the services' environment, or what `openledger up` gave them. Exit code 1 when anything is lost
    or doubled.
    """
    state = session().connections.state_dir.resolve()
    for name, value in last_settings(state).items():
        os.environ.setdefault(name, value)
    found = places(state, rpc or None)
    book = count(replace(found, rpc="") if no_chain else found)
    lost, doubled, waiting = (book.count(fault) for fault in Fault)
    if session().as_json:
        print(json.dumps(_as_dict(book), indent=2))
    else:
        _show(book)
    if lost or doubled or (at_rest and waiting):
        raise typer.Exit(1)


def _as_dict(book: Book) -> dict[str, object]:
    totals = {fault.value: book.count(fault) for fault in Fault}
    links = [
        {"link": link, "seen": book.seen.get(link, 0)}
        | {fault.value: book.count(fault, link) for fault in Fault}
        for link in book.links()
    ]
    findings = [
        {"link": each.link, "fault": each.fault.value, "thing": each.thing, "why": each.why}
        for each in book.findings
    ]
    return {**totals, "links": links, "findings": findings}


def _show(book: Book) -> None:
    table = Table(header_style="bold")
    table.add_column("link")
    for label in ("seen", *(fault.value for fault in Fault)):
        table.add_column(label, justify="right")
    for link in book.links():
        counts = (book.seen.get(link, 0), *(book.count(fault, link) for fault in Fault))
        table.add_row(link, *(f"{number:,}" for number in counts))
    console.print(table)
    wrong = [each for each in book.findings if each.fault is not Fault.WAITING]
    for each in wrong[:_SHOWN]:
        console.print(f"[red]{each.fault.value}[/red] {each.link}: {each.thing}: {each.why}", highlight=False)
    if len(wrong) > _SHOWN:
        console.print(f"and {len(wrong) - _SHOWN:,} more; --json shows all")
    lost, doubled, waiting = (book.count(fault) for fault in Fault)
    console.print(f"{lost:,} lost, {doubled:,} doubled, {waiting:,} on their way")
