"""Of the attribution API."""

from __future__ import annotations

from openledger_testing.rpc_names import ULID

COMMANDS = {
    "GetAttribution": f"attribution get inferences/{ULID}",
    "ListAttributions": "attribution list",
    "SummarizeAttributions": "attribution summary",
    "ListAttributionIndexes": "attribution indexes",
}
