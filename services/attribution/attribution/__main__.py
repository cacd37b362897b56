"""Starts the attribution service."""

import sys

from attribution.process import build
from attribution.settings import AttributionSettings
from servicekit.server import serve

if __name__ == "__main__":
    sys.exit(serve(AttributionSettings, build))
