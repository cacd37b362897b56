"""Starts the service."""

from __future__ import annotations

import sys

from servicekit import collector

if __name__ == "__main__":
    with collector.paused():  # for the imports, most of a start
        from servicekit.server import serve
        from trainer.service import build
        from trainer.settings import TrainerSettings
    sys.exit(serve(TrainerSettings, build))
