"""What every command shares: where the services are, who is calling, how to print."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from openledger_cli.connection import Connections, parse_identity
from servicekit import telemetry


@dataclass
class Session:
    """One invocation of the command."""

    connections: Connections
    as_json: bool


_session: Session | None = None


def configure(
    state_dir: Annotated[
        Path,
        typer.Option(envvar="OPENLEDGER_STATE_DIR", help="State of the local platform (`openledger up`)."),
    ] = Path(".openledger"),
    token: Annotated[
        str, typer.Option(envvar="OPENLEDGER_TOKEN", help="Bearer token; wins over --as.", show_default=False)
    ] = "",
    identity: Annotated[
        str,
        typer.Option(
            "--as",
            envvar="OPENLEDGER_AS",
            metavar="NAME:ROLE[,ROLE]",
            help="Call as this principal by a token of the local development issuer.",
        ),
    ] = "admin:admin",
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON for programs instead of tables.")
    ] = False,
    deadline_s: Annotated[float, typer.Option(help="Deadline of unary calls, seconds.")] = 60.0,
    otlp_endpoint: Annotated[
        str,
        typer.Option(
            envvar="OPENLEDGER_OTLP_ENDPOINT",
            help="Where the traces of this command's calls go by OTLP/gRPC, http://host:4317.",
            show_default=False,
        ),
    ] = "",
) -> None:
    """Client of the OpenLedger platform."""
    global _session
    telemetry.configure_client("cli", otlp_endpoint or None)
    principal, roles = parse_identity(identity)
    _session = Session(
        connections=Connections(
            state_dir, token=token, principal=principal, roles=roles, deadline_s=deadline_s
        ),
        as_json=as_json,
    )


def session() -> Session:
    """The invocation's session. Commands run after `configure`, so it is there."""
    assert _session is not None
    return _session
