"""The command line: `python -m chain_relay` starts the relay; `python -m chain_relay deploy` deploys the contracts."""

from __future__ import annotations

import argparse
import sys

from chain_relay.contracts import CONTRACT_OF
from chain_relay.deploy import DeployPlan, deploy
from chain_relay.service import build, open_chain
from chain_relay.settings import Settings
from servicekit import private
from servicekit.errors import StartupError
from servicekit.server import serve


def main() -> int:
    """Runs the command that the arguments name. Returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m chain_relay", description="Settles attributed answers on an EVM chain."
    )
    commands = parser.add_subparsers(dest="command")
    deploying = commands.add_parser(
        "deploy", help="deploy the contracts, or finish a deployment that was cut off"
    )
    deploying.add_argument("--rpc", help="JSON-RPC address; default OPENLEDGER_CHAIN_RELAY_RPC_URL")
    arguments = parser.parse_args()
    private.protect_process()
    if arguments.command == "deploy":
        return _deploy(arguments.rpc)
    return serve(Settings, build)


def _deploy(rpc: str | None) -> int:
    try:
        settings = Settings.load(**({"rpc_url": rpc} if rpc else {}))
        w3, signer = open_chain(settings)
        plan = DeployPlan(settings.artifacts, settings.reward_delay_s, settings.development_funding)
        deployment = deploy(w3, signer, plan, settings.deployment_file)
    except StartupError as error:
        print(f"chain_relay: {error}", file=sys.stderr)
        return 1
    for name in CONTRACT_OF:
        print(f"{name:<12} {getattr(deployment, name)}")
    print(f"written to {settings.deployment_file}")
    return 0
