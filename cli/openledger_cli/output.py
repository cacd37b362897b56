"""How results are shown: tables for people, JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from rich.text import Text

from openledger_cli import layout
from openledger_cli.console import console, printable, say
from openledger_cli.context import session
from openledger_cli.deferred import Deferred

if TYPE_CHECKING:
    from pathlib import Path

    from google.protobuf import json_format
    from google.protobuf.message import Message
    from google.protobuf.timestamp_pb2 import Timestamp
    from openledger.common.v1 import estimate_pb2
else:
    json_format = Deferred("google.protobuf.json_format")
    estimate_pb2 = Deferred("openledger.common.v1.estimate_pb2")

Column = tuple[str, Callable[[Any], object]]


def as_dict(message: Message) -> dict[str, Any]:
    """A message as JSON with the names of the proto: snake_case, zero values included."""
    return dict(
        json_format.MessageToDict(
            message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
        )
    )


def emit(message: Message, *rows: tuple[str, object]) -> None:
    """Prints one message: as JSON, or as `rows` of label and value."""
    if session().as_json:
        print(json.dumps(as_dict(message), indent=2, ensure_ascii=False))
        return
    emit_rows(*rows)


def emit_file(path: Path, size: int, digest: str) -> None:
    """Prints what was written to a file."""
    if session().as_json:
        print(json.dumps({"file": str(path), "bytes": size, "digest": digest}))
        return
    say(f"{path}: {size:,} bytes, {digest}")


def emit_rows(*rows: tuple[str, object]) -> None:
    """Prints label and value, one pair a line, for people."""
    shown = [(label, text(value)) for label, value in rows]
    for label, value in layout.pairs(shown, console.width):
        _line((label, "bold"), value)


def emit_list(
    messages: Iterable[Message], columns: Sequence[Column], title: str = "", total: int = 0
) -> None:
    """Prints messages: as a JSON array, or as a table with one row each and, where more exist, how many."""
    found = list(messages)
    if session().as_json:
        print(json.dumps([as_dict(message) for message in found], indent=2, ensure_ascii=False))
        return
    if title:
        say((title, "italic"))
    emit_table([label for label, _ in columns], [[value(each) for _, value in columns] for each in found])
    if total > len(found):
        say((f"{len(found):,} of {total:,}; --limit shows more", "dim"))


def emit_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Prints a table for people, at the width of the terminal."""
    if not rows:
        say("none")
        return
    lines = layout.table(header, [[text(cell) for cell in row] for row in rows], console.width)
    for number, line in enumerate(lines):
        _line((line, "bold" if number == 0 and line.startswith(header[0]) else ""))


def text(value: object) -> str:
    """A value as people read it."""
    if isinstance(value, estimate_pb2.Estimate):
        return estimate(value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, int):
        return f"{value:,}"
    return printable(str(value))


def _line(*parts: str | tuple[str, str]) -> None:
    """Prints a line that has its layout."""
    console.print(Text.assemble(*parts), highlight=False, soft_wrap=True)


def estimate(value: estimate_pb2.Estimate) -> str:
    """`0.653 [0.58, 0.72] n=150`; a dash when it was not measured."""
    if value.sample_size == 0:
        return "-"
    shown, lower, upper = (round(each, 9) for each in (value.value, value.lower, value.upper))
    return f"{shown:.3g} [{lower:.3g}, {upper:.3g}] n={value.sample_size:,}"


def duration(seconds: float) -> str:
    """`45 s`, `3 min 20 s`, `2 h 05 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"


def moment(value: Timestamp) -> str:
    """`2026-03-14 09:26:53 UTC`; a dash when it is not set."""
    if value.seconds == 0:
        return "-"
    return f"{value.ToDatetime():%Y-%m-%d %H:%M:%S} UTC"


def shortened(content: str, limit: int) -> str:
    """A text of at most `limit` characters; ... stands for what was cut. Not for names."""
    return content if len(content) <= limit else content[: limit - 3] + "..."


def shortened_words(content: str, limit: int) -> str:
    """Whole words, at most `limit` characters: a name within the text is there whole or not at all."""
    if len(content) <= limit:
        return content
    kept, ends = "", " ..."
    for word in content.split():
        if len(kept) + 1 + len(word) + len(ends) > limit:
            break
        kept = f"{kept} {word}".strip()
    return kept + ends


def lower_name(name: str, prefix: str) -> str:
    """`RUN_STATE_RUNNING` without `RUN_STATE_`, in lower case."""
    return name.removeprefix(prefix).lower()
