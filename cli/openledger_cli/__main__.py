"""The `openledger` command."""

from __future__ import annotations

import sys

import typer

from openledger_cli.context import configure
from openledger_cli.lazy import LazyGroup

app = typer.Typer(
    name="openledger",
    cls=LazyGroup,
    help="Client of the OpenLedger platform: datanets, training, evaluation, answers, attribution, settlement.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.callback()(configure)


def main() -> None:
    """Runs a command. Every expected failure is one line on standard error and a non-zero exit code."""
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(141)
    except Exception as error:
        from openledger_cli.failures import report  # here: it loads gRPC

        if (code := report(error)) is None:
            raise
        sys.exit(code)


if __name__ == "__main__":
    main()
