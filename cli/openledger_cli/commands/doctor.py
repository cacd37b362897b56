"""`openledger doctor`: what is up, reachable, behind, misconfigured."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from openledger_cli.context import session
from openledger_cli.doctor.examination import Examination
from openledger_cli.doctor.finding import EXIT_CODES, Finding, worst
from openledger_cli.output import console

_COLOURS = {"ok": "green", "warning": "yellow", "problem": "red"}


def doctor(
    rpc: Annotated[
        str, typer.Option(envvar="OPENLEDGER_RPC", help="The chain's JSON-RPC address.", show_default=False)
    ] = "",
    ray_address: Annotated[
        str,
        typer.Option(envvar="OPENLEDGER_TRAINER_RAY_ADDRESS", help="Ray's job server.", show_default=False),
    ] = "",
    everything: Annotated[bool, typer.Option("--all", help="Show what is well too.")] = False,
) -> None:
    """Looks at the whole platform through its public doors and says what to do.

    Exit code: 0 all is well, 1 something does not work, 2 it works and something should be looked at.
    """
    findings = Examination(session().connections, rpc, ray_address).findings()
    level = worst(findings)
    if session().as_json:
        print(json.dumps({"status": level, "findings": [asdict(finding) for finding in findings]}, indent=2))
    else:
        _show(findings, everything)
    raise typer.Exit(EXIT_CODES[level])


def _show(findings: list[Finding], everything: bool) -> None:
    table = Table(header_style="bold", box=None, pad_edge=False)
    for label in ("", "what", "looked at", "seen, and what to do"):
        table.add_column(label, overflow="fold")
    for finding in findings:
        if everything or finding.level != "ok":
            colour = _COLOURS[finding.level]
            shown = f"[{colour}]{finding.level}[/{colour}]"
            seen = escape(finding.detail) + (
                f"\n[dim]{escape(finding.remedy)}[/dim]" if finding.remedy else ""
            )
            table.add_row(shown, finding.about, finding.check, seen)
    if table.row_count:
        console.print(table)
    well = sum(finding.level == "ok" for finding in findings)
    console.print(f"{well} of {len(findings)} things looked at are well", highlight=False)
