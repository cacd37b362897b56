"""`openledger doctor`: what is up, reachable, behind, misconfigured."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from openledger_cli.console import say
from openledger_cli.context import session

if TYPE_CHECKING:
    from openledger_ops.doctor.finding import Finding

_COLOURS = {"ok": "green", "warning": "yellow", "problem": "red"}


def doctor(
    rpc: Annotated[
        str, typer.Option(envvar="OPENLEDGER_RPC", help="The chain's JSON-RPC address.", show_default=False)
    ] = "",
    ray_address: Annotated[
        str,
        typer.Option(envvar="OPENLEDGER_TRAINER_RAY_ADDRESS", help="Ray's job server.", show_default=False),
    ] = "",
    everything: Annotated[bool, typer.Option("--all", help="Show checks that passed, too.")] = False,
) -> None:
    """Checks the whole platform by its public endpoints and says what to do.

    Exit code: 0 all is well, 1 something does not work, 2 it works but something needs attention.
    """
    from openledger_ops.doctor.examination import Examination
    from openledger_ops.doctor.finding import EXIT_CODES, worst

    with session().client as calls:
        findings = Examination(client=calls, rpc=rpc, ray_address=ray_address).findings()
    level = worst(findings)
    if session().as_json:
        print(json.dumps({"status": level, "findings": [asdict(finding) for finding in findings]}, indent=2))
    else:
        _show(findings, everything)
    raise typer.Exit(EXIT_CODES[level])


def _show(findings: list[Finding], everything: bool) -> None:
    for finding in findings:
        if not everything and finding.level == "ok":
            continue
        colour = _COLOURS[finding.level]
        say(
            (f"{finding.level:7}", colour),
            " ",
            (finding.about, "bold"),
            f" {finding.check}: {finding.detail}",
        )
        if finding.remedy:
            say((f"        {finding.remedy}", "dim"))
    passed = sum(finding.level == "ok" for finding in findings)
    say(f"{passed} of {len(findings)} checks passed")
