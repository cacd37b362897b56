"""`openledger export` and `openledger verify`: a bundle, and its check without the platform."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from openledger_cli.commands.reconcile import NOT_CHECKED
from openledger_cli.console import say
from openledger_cli.context import session

if TYPE_CHECKING:
    from openledger_cli.bundle.check import Finding


def export(
    inference: Annotated[str, typer.Argument(help="inferences/ULID")],
    account: Annotated[str, typer.Option(help="Chain address whose payout goes into the bundle.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write.")] = Path("bundle"),
) -> None:
    """Writes everything needed to recheck one answer and one payout without the platform."""
    from openledger_cli.bundle.export import export_bundle  # here: `verify` needs no client

    files = export_bundle(session().client, inference, account, out)
    if session().as_json:
        print(json.dumps({"folder": str(out), "files": [str(path) for path in files]}))
        return
    size = sum(path.stat().st_size for path in files)
    say(f"{out}: {len(files)} files, {size / 1024:,.0f} KiB")


def verify(
    bundle: Annotated[Path, typer.Argument(help="Folder written by `openledger export`.")],
    rpc: Annotated[str, typer.Option(envvar="OPENLEDGER_RPC", help="The chain's JSON-RPC address.")],
    registry: Annotated[str, typer.Option(help="The registry's address, from another source.")] = "",
    ledger: Annotated[str, typer.Option(help="The attribution ledger's address, from another source.")] = "",
    distributor: Annotated[str, typer.Option(help="The distributor's address, from another source.")] = "",
    accept_unchecked: Annotated[
        bool, typer.Option("--accept-unchecked", help="Exit with 0 although something was not checked.")
    ] = False,
) -> None:
    """Rechecks a bundle with its bytes and an RPC address, without the platform.

    The bundle names the contracts itself: give their addresses from another source, or they count as not checked.

    Exit code: 0 everything is right, 1 something is wrong, 3 nothing is wrong but something was not checked.
    """
    # Here: web3 and scipy cost two seconds to import.
    from openledger_cli.bundle.check import Contracts, check_bundle
    from openledger_cli.chain import Chain

    known = Contracts(registry=registry, ledger=ledger, distributor=distributor)
    findings = list(check_bundle(bundle, Chain(rpc), known))
    if session().as_json:
        print(json.dumps([finding.__dict__ for finding in findings], indent=2))
    else:
        for finding in findings:
            show(finding)
    if code := exit_code(findings, accept_unchecked):
        raise typer.Exit(code)


def show(finding: Finding) -> None:
    """Prints one outcome; for a check that could compare nothing only that it was not made."""
    mark = ("ok    ", "green") if finding.passed else ("FAILED", "red")
    if finding.detail or not finding.unchecked:
        say(mark, " ", (finding.check, "bold"), f": {finding.detail}")
    if finding.unchecked:
        say(("NOT CHECKED", "yellow"), " ", (finding.check, "bold"), f": {finding.unchecked}")


def exit_code(findings: Sequence[Finding], accept_unchecked: bool) -> int:
    """Returns 1 when something is wrong, 3 when something was not checked and that is not accepted, otherwise 0."""
    if not all(finding.passed for finding in findings):
        return 1
    return NOT_CHECKED if any(finding.unchecked for finding in findings) and not accept_unchecked else 0
