"""Starts the relay; nothing else."""

from __future__ import annotations

import sys

from servicekit import collector

if __name__ == "__main__":
    with collector.paused():  # for the imports, most of a start
        from chain_relay.command import main
    sys.exit(main())
