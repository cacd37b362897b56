"""Starts the datanet service."""

from __future__ import annotations

import sys

from servicekit import collector

if __name__ == "__main__":
    with collector.paused():  # for the imports, most of a start
        from datanet.service import build
        from datanet.settings import DatanetSettings
        from servicekit.server import serve
    sys.exit(serve(DatanetSettings, build))
