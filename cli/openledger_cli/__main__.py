"""The `openledger` command."""

from __future__ import annotations

import sys

import grpc
import typer

from openledger_cli.commands import (
    attribution,
    bundle,
    datanet,
    dlq,
    doctor,
    inference,
    local,
    model,
    objects,
    reconcile,
    settlement,
    training,
)
from openledger_cli.context import configure
from openledger_cli.output import complain
from servicekit.errors import DomainError, StartupError, from_rpc_error

app = typer.Typer(
    name="openledger",
    help="Client of the OpenLedger platform: datanets, training, evaluation, answers, attribution, settlement.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.callback()(configure)
app.add_typer(datanet.app, name="datanet")
app.add_typer(training.app, name="train")
app.add_typer(model.app, name="model")
app.add_typer(attribution.app, name="attribution")
app.add_typer(settlement.app, name="settle")
app.add_typer(objects.app, name="objects")
app.add_typer(dlq.app, name="dlq")
app.command("ask")(inference.ask)
app.command("served")(inference.served)
app.command("up")(local.up)
app.command("status")(local.status)
app.command("doctor")(doctor.doctor)
app.command("reconcile")(reconcile.reconcile)
app.command("token")(local.token)
app.command("export")(bundle.export)
app.command("verify")(bundle.verify)


def main() -> None:
    """Runs a command; every failure is one line on standard error and a non-zero exit code."""
    try:
        app()
    except grpc.RpcError as error:
        sys.exit(complain(from_rpc_error(error)))
    except DomainError as error:
        sys.exit(complain(error))
    except StartupError as error:
        print(f"openledger: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(141)


if __name__ == "__main__":
    main()
