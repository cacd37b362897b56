"""`openledger up`, `status` and `token`: the platform on this machine."""

from __future__ import annotations

import json
import signal
import threading
from typing import Annotated

import typer

from openledger_cli.connection import SERVICES, tls_of_environment
from openledger_cli.context import session
from openledger_cli.output import console
from openledger_cli.up.health import serving
from openledger_cli.up.logview import LogView
from openledger_cli.up.plan import Plan
from openledger_cli.up.ports import choose_ports
from openledger_cli.up.prepare import prepare
from openledger_cli.up.supervise import Supervisor, readiness_line
from servicekit.auth import DevelopmentIssuer


def up(
    base_model: Annotated[
        str, typer.Option(help="smollm2-135m-instruct, or tiny: random weights, for tests.")
    ] = "smollm2-135m-instruct",
    port_base: Annotated[int, typer.Option(help="First of 13 ports; 0 picks free ones.")] = 7400,
    event_log: Annotated[str, typer.Option(help="kafka://host:port instead of the embedded log.")] = "",
    quiet: Annotated[bool, typer.Option(help="Show warnings and errors only.")] = False,
    setting: Annotated[
        list[str],
        typer.Option("--set", metavar="NAME=VALUE", help="Environment of the services; may be repeated."),
    ] = [],
) -> None:
    """Runs the whole platform on this machine until Ctrl-C: services, Ray, an EVM, the development issuer."""
    state = session().connections.state_dir.resolve()
    DevelopmentIssuer(state).ensure_keys()
    plan = Plan(
        state,
        choose_ports(port_base),
        base_model,
        event_log,
        state / "chain" / "anvil.json",
        _settings(setting),
    )
    stopping = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: stopping.set())
    view = LogView(session().as_json, quiet)
    prepare(plan, lambda message: view.show(json.dumps({"service": "up", "message": message})))
    raise typer.Exit(Supervisor(plan, view, stopping).run(lambda: print(readiness_line(plan), flush=True)))


def status() -> None:
    """Says which services answer. Exit code 1 when one does not."""
    down = False
    for service in SERVICES:
        try:
            address = str(session().connections.addresses(service)["grpc"])
            good = serving(address, tls=tls_of_environment())
        except (
            Exception
        ) as error:  # whatever is wrong with one service is its line, and the others are shown too
            address, good = str(error), False
        down = down or not good
        console.print(
            f"{'[green]up  [/green]' if good else '[red]down[/red]'} {service:12} {address}", highlight=False
        )
    if down:
        raise typer.Exit(1)


def token(
    principal: str,
    role: Annotated[list[str], typer.Option("--role", help="May be repeated.")],
    ttl_s: Annotated[int, typer.Option(help="Validity, seconds.")] = 3600,
) -> None:
    """Prints a token of the local development issuer."""
    issuer = DevelopmentIssuer(session().connections.state_dir)
    issuer.ensure_keys()
    print(issuer.mint(principal, role, ttl_s=ttl_s))


def _settings(given: list[str]) -> dict[str, str]:
    found = {}
    for item in given:
        name, equals, value = item.partition("=")
        if not equals or not name:
            raise typer.BadParameter(f"--set {item!r} is not NAME=VALUE")
        found[name] = value
    return found
