"""Modules that are imported when they are first used, so that `--help` loads neither gRPC nor the generated messages."""

from __future__ import annotations

from importlib import import_module
from typing import Any


class Deferred:
    """Stands for a module: each attribute is read from the module, which is imported at the first use."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        found = getattr(import_module(self._name), attribute)
        setattr(self, attribute, found)
        return found
