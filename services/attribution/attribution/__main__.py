"""Starts the attribution service."""

from __future__ import annotations

import sys

from servicekit import collector

if __name__ == "__main__":
    with collector.paused():  # for the imports, most of a start
        from attribution.service import build
        from attribution.settings import AttributionSettings
        from servicekit.server import serve
    sys.exit(serve(AttributionSettings, build))
