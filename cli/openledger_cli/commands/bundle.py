"""`openledger export` and `openledger verify`: a bundle, and its check without the platform."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from openledger_cli.bundle.export import export_bundle
from openledger_cli.context import session
from openledger_cli.output import console


def export(
    inference: Annotated[str, typer.Argument(help="inferences/ULID")],
    account: Annotated[str, typer.Option(help="Chain address whose payout goes into the bundle.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write.")] = Path("bundle"),
) -> None:
    """Writes everything needed to recheck one answer and one payout without the platform."""
    files = export_bundle(session().connections, inference, account, out)
    size = sum(path.stat().st_size for path in files)
    console.print(f"{out}: {len(files)} files, {size / 1024:,.0f} KiB")


def verify(
    bundle: Annotated[Path, typer.Argument(help="Folder written by `openledger export`.")],
    rpc: Annotated[str, typer.Option(envvar="OPENLEDGER_RPC", help="The chain's JSON-RPC address.")],
) -> None:
    """Rechecks a bundle with its bytes and an RPC address alone. Exit code 1 when anything is wrong."""
    # Here, because web3 and scipy would cost every other command two seconds at its start.
    from openledger_cli.bundle.check import check_bundle
    from openledger_cli.chain import Chain

    findings = list(check_bundle(bundle, Chain(rpc)))
    if session().as_json:
        print(json.dumps([finding.__dict__ for finding in findings], indent=2))
    else:
        for finding in findings:
            mark = "[green]ok    [/green]" if finding.passed else "[red]FAILED[/red]"
            console.print(
                f"{mark} [bold]{finding.check}[/bold]: {finding.detail}", highlight=False, soft_wrap=True
            )
    if not all(finding.passed for finding in findings):
        raise typer.Exit(1)
