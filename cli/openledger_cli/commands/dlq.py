"""`openledger dlq`: events that consumers refused, and how they go back to their topics."""

from __future__ import annotations

import base64
import getpass
import importlib
import json
import pkgutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from typing import TYPE_CHECKING, Annotated, Any

import typer

from openledger_cli import lists
from openledger_cli.console import say
from openledger_cli.context import session
from openledger_cli.deferred import Deferred
from openledger_cli.lazy import group
from openledger_cli.options import Limit
from openledger_cli.output import emit_rows, emit_table

if TYPE_CHECKING:
    from openledger_client import errors
    from servicekit.delivery.redrive import DeadLetter
    from servicekit.eventlog import EventLog
else:
    errors = Deferred("openledger_client.errors")

_SHOWN_BYTES = 64

app = group(
    "Events that a consumer refused: lists, shows and redrives them.\n\n"
    "For operators: reads and writes the event log directly, with the rights of the user who runs it. No service needs to"
    " run. The log is --event-log or OPENLEDGER_EVENT_LOG; else the one `openledger up` last used in --state-dir.",
)

EventLogOption = Annotated[
    str,
    typer.Option(
        "--event-log",
        envvar="OPENLEDGER_EVENT_LOG",
        help="embedded:<path> or kafka://host:port.",
        show_default=False,
    ),
]
TopicArgument = Annotated[str, typer.Argument(help="As in docs/topics.md, with or without .dlq.")]


@app.command("list")
def list_letters(
    topic: Annotated[str, typer.Argument(help="Only of this topic; default is all.")] = "",
    start: Annotated[int, typer.Option("--from", min=0, help="Begin at this offset (needs a topic).")] = 0,
    limit: Limit = 50,
    waiting: Annotated[bool, typer.Option("--waiting", help="Only those that were not redriven.")] = False,
    filter: Annotated[str, lists.DEAD_LETTERS.filter_option()] = "",
    order_by: Annotated[str, lists.DEAD_LETTERS.order_option()] = "",
    event_log: EventLogOption = "",
) -> None:
    """Lists dead letters: reason, the group that refused them, their position. Exit code 0 also when there are none."""
    from openledger_ops.dead_letters import DeadLetters
    from openledger_ops.lists import letters as page_of
    from servicekit.eventlog import topics

    if start and not topic:
        raise errors.InvalidArgument.of(
            "--from", "needs_topic", "an offset belongs to one topic: name the topic too", start
        )
    names = [topic] if topic else [each.name for each in topics.ALL]
    with _log(event_log) as log:
        found = [
            letter
            for name in names
            for letter in DeadLetters(log, name).letters()
            if letter.record.offset >= start and not (waiting and letter.redrives)
        ]
    page = page_of(found, filter=filter, order_by=order_by, limit=limit)
    if session().as_json:
        print(json.dumps([_summary(letter) for letter in page.items], indent=2, ensure_ascii=False))
        return
    _show_table(page.items)
    if page.total_size > len(page.items):
        following = f"--from {page.items[-1].record.offset + 1} or " if topic and not order_by else ""
        say(f"{len(page.items):,} of {page.total_size:,}; {following}--limit shows more")


@app.command()
def show(
    topic: TopicArgument,
    offset: Annotated[int, typer.Argument(min=0, help="Its offset in the dead-letter topic.")],
    event_log: EventLogOption = "",
) -> None:
    """Shows one dead letter in full: why it was refused, its headers, its event decoded."""
    from openledger_ops.dead_letters import DeadLetters

    with _log(event_log) as log:
        letter = DeadLetters(log, topic).letter(offset)
    shown = _summary(letter) | {"headers": _headers(letter), **_content(letter)}
    if session().as_json:
        print(json.dumps(shown, indent=2, ensure_ascii=False))
        return
    emit_rows(
        *(
            (
                name,
                json.dumps(value, indent=2, ensure_ascii=False)
                if isinstance(value, dict | list)
                else str(value),
            )
            for name, value in shown.items()
        )
    )


@app.command()
def redrive(
    topic: TopicArgument,
    offsets: Annotated[
        list[int], typer.Argument(help="Offsets in the dead-letter topic.", show_default=False)
    ] = [],
    all_: Annotated[bool, typer.Option("--all", help="Every letter that was not redriven yet.")] = False,
    reason: Annotated[str, typer.Option(help="With --all: only those refused for this reason.")] = "",
    again: Annotated[bool, typer.Option("--again", help="Also letters that were redriven before.")] = False,
    by: Annotated[str, typer.Option(help="Who redrives them; default is the user of this machine.")] = "",
    event_log: EventLogOption = "",
) -> None:
    """Sends dead letters back to the topic they came from, with the headers and the ce_id they had.

    Only the group that refused a letter handles it then; its inbox makes it effective once. It is handled after later
    events of its key. What was redriven is recorded next to the letters, so a second time is refused unless --again.
    """
    from openledger_ops.dead_letters import DeadLetters

    if bool(offsets) == all_:
        raise errors.InvalidArgument.of(
            "offsets", "one_of", "name the offsets to redrive, or give --all", offsets or "none"
        )
    if reason and not all_:
        raise errors.InvalidArgument.of("--reason", "needs_all", "--reason selects among --all", reason)
    with _log(event_log) as log:
        letters = DeadLetters(log, topic)
        chosen = (
            [one for one in letters.letters() if (again or not one.redrives) and reason in ("", one.reason)]
            if all_
            else [letters.letter(offset) for offset in offsets]
        )
        for letter in chosen:
            letters.redrive(letter, by or getpass.getuser(), again)
            if not session().as_json:
                say(f"redriven {letter.event_id} to {letter.topic} for {letter.group}")
    if session().as_json:
        print(json.dumps([_summary(letter) for letter in chosen], indent=2, ensure_ascii=False))
    elif not chosen:
        say("nothing to redrive")


@contextmanager
def _log(given: str) -> Iterator[EventLog]:
    from openledger_ops.dead_letters import opened
    from openledger_ops.state_folder import event_log_url

    with opened(event_log_url(given, session().state_dir.resolve())) as log:
        yield log


def _summary(letter: DeadLetter) -> dict[str, Any]:
    return {
        "topic": letter.topic,
        "dlq_offset": letter.record.offset,
        "reason": letter.reason,
        "detail": letter.detail,
        "group": letter.group,
        "time": letter.time,
        "partition": letter.partition,
        "offset": letter.offset,
        "event_id": letter.event_id,
        "event_type": letter.event_type,
        "key": letter.record.key.decode(errors="replace"),
        "redrives": [{"time": each.time, "by": each.by} for each in letter.redrives],
    }


def _show_table(letters: Sequence[DeadLetter]) -> None:
    for topic, of_topic in groupby(letters, key=lambda letter: letter.record.topic):
        say((topic, "italic"))
        emit_table(
            ["offset", "reason", "refused by", "position", "refused", "redriven"],
            [
                (
                    str(one.record.offset),
                    one.reason,
                    one.group,
                    f"{one.partition}/{one.offset}",
                    one.time[:19],
                    one.redrives[-1].time[:19] if one.redrives else "no",
                )
                for one in of_topic
            ],
        )
    if not letters:
        say("no dead letters")


def _headers(letter: DeadLetter) -> dict[str, str]:
    return {name: value.decode(errors="replace") for name, value in letter.original().headers}


def _content(letter: DeadLetter) -> dict[str, Any]:
    """Returns the event as JSON, or its bytes and why they cannot be decoded."""
    from google.protobuf.json_format import MessageToDict

    from servicekit.eventlog.events import InvalidEvent, UnknownEventType, from_record

    if letter.left_out:
        return {"undecoded": "the value was too large for the dead letter"}
    _import_event_types()
    try:
        event = from_record(letter.original())
    except (InvalidEvent, UnknownEventType) as error:
        value = letter.record.value
        return {
            "undecoded": str(error),
            "value_bytes": len(value),
            "value_base64": base64.b64encode(value[:_SHOWN_BYTES]).decode()
            + ("..." if len(value) > _SHOWN_BYTES else ""),
        }
    try:
        return {"event": MessageToDict(event.message, preserving_proto_field_name=True)}
    except (ValueError, OverflowError) as error:  # a time in the year 300,000, for example
        return {"undecoded": f"{event.type} that JSON cannot show: {error}", "text": str(event.message)}


def _import_event_types() -> None:
    """Imports every generated module: an event's type is known once its module is imported."""
    import openledger

    for module in pkgutil.walk_packages(openledger.__path__, "openledger."):
        if module.name.endswith("_pb2"):
            importlib.import_module(module.name)
