"""How results are shown: tables for people, JSON for programs, one line for an error."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from openledger.common.v1.estimate_pb2 import Estimate
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from openledger_cli.context import session
from servicekit.errors import DomainError

console = Console()
Column = tuple[str, Callable[[Any], object]]


def as_dict(message: Message) -> dict[str, Any]:
    """A message as JSON people know from the proto: snake_case, zero values included."""
    return dict(
        MessageToDict(message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
    )


def emit(message: Message, *rows: tuple[str, object]) -> None:
    """One message: JSON, or two columns of `rows`."""
    if session().as_json:
        print(json.dumps(as_dict(message), indent=2, ensure_ascii=False))
        return
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for label, value in rows:
        table.add_row(label, text(value))
    console.print(table)


def emit_list(messages: Iterable[Message], columns: Sequence[Column], title: str = "") -> None:
    """Messages: a JSON array, or a table with one row each."""
    found = list(messages)
    if session().as_json:
        print(json.dumps([as_dict(message) for message in found], indent=2, ensure_ascii=False))
        return
    table = Table(title=title or None, title_justify="left", header_style="bold")
    for label, _ in columns:
        table.add_column(label, overflow="fold")
    for message in found:
        table.add_row(*(text(value(message)) for _, value in columns))
    console.print(table if found else "none")


def progress_bar() -> Progress:
    """A bar with ETA for long work; tasks have a `detail`. Silent where a program reads."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:.0f}/{task.total}"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[detail]}"),
        console=console,
        disable=session().as_json,
    )


def text(value: object) -> str:
    """A value as people read it."""
    if isinstance(value, Estimate):
        return estimate(value)
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return str(value)


def estimate(value: Estimate) -> str:
    """`0.653 [0.58, 0.72] n=150`; a dash when it was not measured."""
    if value.sample_size == 0:
        return "-"
    return f"{value.value:.4g} [{value.lower:.4g}, {value.upper:.4g}] n={value.sample_size}"


def open_tokens(base_units: str) -> str:
    """An amount of base units as OPEN, without rounding away what matters: `1.2345 OPEN`."""
    whole, rest = divmod(int(base_units or "0"), 10**18)
    return f"{whole}.{rest:018d}".rstrip("0").rstrip(".") + " OPEN"


def complain(error: DomainError) -> int:
    """Prints an error as one line with what would be right; returns the exit code."""
    if _wants_json():
        print(
            json.dumps(
                {
                    "error": {
                        "code": error.code.name,
                        "reason": error.reason,
                        "message": str(error),
                        "metadata": dict(error.metadata),
                    }
                }
            ),
            file=sys.stderr,
        )
    else:
        print(f"openledger: {error.code.name}: {error}", file=sys.stderr)
    return 1


def _wants_json() -> bool:
    try:
        return session().as_json
    except AssertionError:
        return False
