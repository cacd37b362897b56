"""Options and arguments that several commands share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from openledger_cli.output import Column, emit_list

if TYPE_CHECKING:
    from google.protobuf.message import Message

Limit = Annotated[int, typer.Option("--limit", min=0, help="Most items; 0 shows all.")]
RequestId = Annotated[
    str, typer.Option("--request-id", help="Makes a repeat of this command answer the first result.")
]


def show_list(
    call: Any,
    request: Any,
    of: Callable[[Any], Iterable[Message]],
    columns: Sequence[Column],
    *,
    filter: str,
    order_by: str,
    limit: int,
) -> Any:
    """Prints the items of a List method and, where more exist, how many; returns its last page."""
    from openledger_client.paging import pages, sized

    request.filter, request.order_by = filter, order_by
    found: list[Message] = []
    page = None
    for page in pages(call, sized(request, limit)):
        found += of(page)
        if limit and len(found) >= limit:
            break
    shown = found[:limit] if limit else found
    emit_list(shown, columns, total=getattr(page, "total_size", 0))
    return page


def full_name(collection: str, given: str) -> str:
    """`threat-intel` or `datanets/threat-intel` -> `datanets/threat-intel`."""
    return given if given.startswith(f"{collection}/") else f"{collection}/{given}"
