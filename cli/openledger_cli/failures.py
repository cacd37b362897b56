"""Failures as people and programs read them: one line with what would be right."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping

import grpc

from openledger_cli.console import printable
from openledger_cli.context import wants_json
from openledger_client.errors import OpenLedgerError, from_rpc_error
from servicekit.errors import DomainError, StartupError


def report(error: Exception) -> int | None:
    """Prints an expected error on standard error and returns the exit code; None for a defect of this program."""
    if isinstance(error, grpc.RpcError):
        error = from_rpc_error(error)
    if isinstance(error, StartupError):
        print(f"openledger: {error}", file=sys.stderr)
        return 1
    if not isinstance(error, OpenLedgerError | DomainError):
        return None
    if wants_json():
        shown = {
            "code": error.code.name,
            "reason": error.reason,
            "message": str(error),
            "metadata": dict(error.metadata),
        }
        print(json.dumps({"error": shown}), file=sys.stderr)
    else:
        value = error.metadata.get("value", "")
        given = f"; given is {value!r}" if value and value not in str(error) else ""
        text = f"openledger: {error.code.name}: {error}{given}{_called(error.metadata)}"
        print(printable(text), file=sys.stderr)
    return 1


def _called(metadata: Mapping[str, str]) -> str:
    """Returns where a call went that no service of that name answered; "" for other errors."""
    if "variable" not in metadata:
        return ""
    return f"; {metadata['service']} was called at {metadata['address']}: check {metadata['variable']}"
