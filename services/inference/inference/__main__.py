"""Starts the inference service."""

import sys

from inference.process import build
from inference.settings import InferenceSettings
from servicekit.server import serve

if __name__ == "__main__":
    sys.exit(serve(InferenceSettings, build))
