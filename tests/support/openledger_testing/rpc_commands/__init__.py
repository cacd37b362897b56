"""The command of the CLI that calls each RPC, in a module of its own for each service: a new service adds one.

A module has `COMMANDS`, and `RESPONSES` for the RPCs whose command needs more than an empty message. The audit API belongs to
`reconcile`, which its own tests run.
"""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules
from typing import Any

COMMANDS: dict[str, str] = {}
RESPONSES: dict[str, Any] = {}

for _module in iter_modules(__path__):
    _service = import_module(f"{__name__}.{_module.name}")
    COMMANDS |= _service.COMMANDS
    RESPONSES |= getattr(_service, "RESPONSES", {})
