"""Python client of the OpenLedger services: see docs/client.md.

`Client` and `AsyncClient` are the entry points. Names are loaded on first use, so that importing a part of the package
(`openledger_client.services`) loads only that part.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from openledger_client.addresses import Addresses, ServiceAddress
    from openledger_client.auth import Token, TokenFile
    from openledger_client.client import AsyncClient, Client
    from openledger_client.errors import OpenLedgerError
    from openledger_client.retries import Retries
    from openledger_client.tls import Tls

# Before gRPC is imported. Else it prints a line on standard error whenever a server closes an idle connection.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")

_MODULES = {
    "Addresses": "addresses",
    "AsyncClient": "client",
    "Client": "client",
    "OpenLedgerError": "errors",
    "Retries": "retries",
    "ServiceAddress": "addresses",
    "Tls": "tls",
    "Token": "auth",
    "TokenFile": "auth",
}

__all__ = [
    "Addresses",
    "AsyncClient",
    "Client",
    "OpenLedgerError",
    "Retries",
    "ServiceAddress",
    "Tls",
    "Token",
    "TokenFile",
]


def __getattr__(name: str) -> Any:
    module = _MODULES.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{module}"), name)
