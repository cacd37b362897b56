"""The `openledger` command."""

from __future__ import annotations

import errno
import os
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


_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def drop_output() -> None:
    """Sends what is still to be written nowhere: the interpreter would try again at its end, and print a traceback."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def main() -> None:
    """Runs a command. Every expected failure is one line on standard error and a non-zero exit code."""
    try:
        try:
            app()
        finally:
            if sys.stdout is not None:  # it was closed by the caller
                sys.stdout.flush()  # here: at the end of the program a failure to write cannot be caught
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        drop_output()
        sys.exit(141)
    except Exception as error:
        from openledger_cli.failures import report  # here: it loads gRPC

        if isinstance(error, OSError) and error.errno in _FULL:
            drop_output()
            print(f"openledger: cannot write: {error.strerror}", file=sys.stderr)
            sys.exit(1)
        if (code := report(error)) is None:
            raise
        sys.exit(code)


if __name__ == "__main__":
    main()
