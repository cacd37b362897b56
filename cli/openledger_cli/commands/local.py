"""`openledger up`, `status` and `token`: the platform on this machine."""

from __future__ import annotations

import json
import signal
import threading
from typing import Annotated

import typer

from openledger_cli.console import say
from openledger_cli.context import session


def up(
    base_model: Annotated[
        str,
        typer.Option(
            help="smollm2-135m-instruct, one that base-model import has imported, or tiny: random weights, for tests. Default "
            "is the one that last ran in --state-dir, else smollm2-135m-instruct.",
            show_default=False,
        ),
    ] = "",
    port_base: Annotated[
        int, typer.Option(help="First of the ports, one for each endpoint; 0 picks free ones.")
    ] = 7400,
    event_log: Annotated[str, typer.Option(help="kafka://host:port instead of the embedded log.")] = "",
    quiet: Annotated[bool, typer.Option(help="Show warnings and errors only.")] = False,
    setting: Annotated[
        list[str],
        typer.Option("--set", metavar="NAME=VALUE", help="Environment of the services; may be repeated."),
    ] = [],
) -> None:
    """Runs the whole platform on this machine until Ctrl-C: services, Ray, an EVM, the development issuer."""
    from openledger_ops.event_log import check_url
    from openledger_ops.state_folder import base_model as base_model_of
    from openledger_ops.up.log_view import LogView
    from openledger_ops.up.plan import Plan
    from openledger_ops.up.ports import choose_ports
    from openledger_ops.up.prepare import prepare
    from openledger_ops.up.supervise import Supervisor, readiness_line
    from servicekit import private
    from servicekit.auth import DevelopmentIssuer

    if event_log:
        check_url(event_log)  # before minutes of preparation
    private.protect_process()
    state = session().state_dir.resolve()
    tightened = private.tighten(state)
    DevelopmentIssuer(state).ensure_keys()
    plan = Plan(
        state_dir=state,
        ports=choose_ports(port_base),
        base_model=base_model_of(base_model, state),
        event_log=event_log,
        chain_state=state / "chain" / "anvil.json",
        environment=_settings(setting),
    )
    stopping = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: stopping.set())
    view = LogView(session().as_json, quiet)
    if tightened:
        view.show(json.dumps({"service": "up", "level": "WARNING", "message": tightened}))
    prepare(plan, lambda message: view.show(json.dumps({"service": "up", "message": message})))
    supervisor = Supervisor(plan=plan, view=view, stopping=stopping)
    raise typer.Exit(supervisor.run(lambda: print(readiness_line(plan), flush=True)))


def status() -> None:
    """Shows which services answer. Exit code 1 when one does not."""
    from openledger_client import services
    from openledger_client.errors import OpenLedgerError

    client = session().client
    found: list[tuple[str, str, bool]] = []
    for service in services.ALL:
        try:
            found.append((service.name, client.addresses.of(service).grpc, client.is_serving(service)))
        except OpenLedgerError as error:  # the others are shown too
            found.append((service.name, str(error), False))
    if session().as_json:
        print(json.dumps([{"service": name, "address": where, "serving": up} for name, where, up in found]))
    else:
        for name, where, up in found:
            say(("up  ", "green") if up else ("down", "red"), f" {name:12} {where}")
    if not all(up for _, _, up in found):
        raise typer.Exit(1)


def token(
    principal: str,
    role: Annotated[list[str], typer.Option("--role", help="May be repeated.")],
    ttl_s: Annotated[int, typer.Option(help="Validity, seconds.")] = 3600,
) -> None:
    """Prints a token of the local development issuer."""
    from openledger_ops.state_folder import existing_part
    from servicekit.auth import DevelopmentIssuer

    existing_part(session().state_dir, "issuer/private.pem")
    issuer = DevelopmentIssuer(session().state_dir)
    minted = issuer.mint(principal, role, ttl_s=ttl_s)
    if session().as_json:
        print(json.dumps({"token": minted, "principal": principal, "roles": role, "ttl_s": ttl_s}))
        return
    print(minted)


def _settings(given: list[str]) -> dict[str, str]:
    found = {}
    for item in given:
        name, equals, value = item.partition("=")
        if not equals or not name:
            raise typer.BadParameter(f"--set {item!r} is not NAME=VALUE")
        found[name] = value
    return found
