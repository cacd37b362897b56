"""Where the installed command `openledger` begins: it loads the rest, and Ctrl-C during that prints no traceback."""

from __future__ import annotations

import sys


def main() -> None:
    """Loads and runs the command."""
    try:
        from openledger_cli.__main__ import main as run  # here: an interrupt while it loads is caught

        run()
    except KeyboardInterrupt:
        sys.exit(130)
