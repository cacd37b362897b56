"""Starts the inference service."""

from __future__ import annotations

import sys

from servicekit import collector

if __name__ == "__main__":
    with collector.paused():  # for the imports, most of a start
        from inference.service import build
        from inference.settings import InferenceSettings
        from servicekit.server import serve
    sys.exit(serve(InferenceSettings, build))
