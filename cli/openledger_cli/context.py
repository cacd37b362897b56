"""What every command shares: where the services are, who calls, how to print."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from openledger_client import Client


@dataclass(kw_only=True)
class Session:
    """One invocation of the command."""

    state_dir: Path
    as_json: bool
    token: str
    principal: str
    roles: tuple[str, ...]
    deadline_s: float

    @cached_property
    def client(self) -> Client:
        """The client of the services; a channel opens with the first call."""
        from openledger_cli.caller import open_client  # here: gRPC costs `--help` a third of a second

        return open_client(self)


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
        bool, typer.Option("--json", help="Print JSON for programs instead of tables; may also stand last.")
    ] = False,
    deadline_s: Annotated[float, typer.Option(min=0.1, help="Deadline of unary calls, seconds.")] = 60.0,
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
    principal, roles = parse_identity(identity)
    _session = Session(
        state_dir=state_dir,
        as_json=as_json,
        token=token,
        principal=principal,
        roles=roles,
        deadline_s=deadline_s,
    )
    if otlp_endpoint:
        from servicekit.telemetry import traces  # here: the OpenTelemetry SDK is loaded only where it is used

        try:
            traces.configure_client("cli", otlp_endpoint)
        except ValueError as error:
            raise typer.BadParameter(
                f"--otlp-endpoint {otlp_endpoint!r}: {error}; it is like http://host:4317"
            ) from None


def parse_identity(text: str) -> tuple[str, tuple[str, ...]]:
    """`alice:curator,builder` -> ("alice", ("curator", "builder"))."""
    principal, _, roles = text.partition(":")
    if not principal or not roles:
        raise typer.BadParameter(f"{text!r} is not NAME:ROLE[,ROLE], e.g. alice:curator")
    return principal, tuple(role for role in roles.split(",") if role)


def session() -> Session:
    """The invocation's session. Commands run after `configure`, so it is there."""
    assert _session is not None
    return _session


def wants_json() -> bool:
    """Whether the invocation asks for JSON; also before the options were read."""
    return _session is not None and _session.as_json
