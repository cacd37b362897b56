"""`openledger dlq`: what consumers refused, and how it goes back."""

from __future__ import annotations

import base64
import getpass
import importlib
import json
import pkgutil
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import groupby
from typing import Annotated, Any

import openledger
import typer
from google.protobuf.json_format import MessageToDict
from rich.table import Table

from openledger_cli.context import session
from openledger_cli.dead_letters import DeadLetterDesk, dead_letter_topics, event_log_url, opened
from openledger_cli.output import console
from servicekit.errors import InvalidArgument
from servicekit.eventlog import EventLog
from servicekit.events import InvalidEvent, UnknownEventType, from_record
from servicekit.replay import DeadLetter

_SHOWN_BYTES = 64

app = typer.Typer(
    no_args_is_help=True,
    help="Events that a consumer refused: lists, shows and replays them.\n\n"
    "A tool for operators: it reads and writes the event log itself, with the rights of whoever runs it, and asks no"
    " service. The log is --event-log or OPENLEDGER_EVENT_LOG; else the one `openledger up` last used in --state-dir.",
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
    limit: Annotated[int, typer.Option(min=1, help="Show at most this many of a topic.")] = 50,
    waiting: Annotated[bool, typer.Option("--waiting", help="Only those that were not replayed.")] = False,
    event_log: EventLogOption = "",
) -> None:
    """Lists dead letters: reason, who refused them, where they stood. Exit code 0 also when there are none."""
    if start and not topic:
        raise InvalidArgument("--from", "needs_topic", "an offset is of one topic: name the topic too", start)
    names = [topic] if topic else [each.name for each in dead_letter_topics()]
    found: list[DeadLetter] = []
    more: list[str] = []
    with _log(event_log) as log:
        for name in names:
            all_ = [
                letter
                for letter in DeadLetterDesk(log, name).letters()
                if letter.record.offset >= start and not (waiting and letter.replays)
            ]
            found += all_[:limit]
            if len(all_) > limit:
                more.append(f"openledger dlq list {name} --from {all_[limit].record.offset}")
    if session().as_json:
        print(json.dumps([_summary(letter) for letter in found], indent=2, ensure_ascii=False))
        return
    _show_table(found)
    for command in more:
        console.print(f"more: {command}", highlight=False)


@app.command()
def show(
    topic: TopicArgument,
    offset: Annotated[int, typer.Argument(min=0, help="Its offset in the dead-letter topic.")],
    event_log: EventLogOption = "",
) -> None:
    """Shows one dead letter whole: why it was refused, its headers, its event decoded."""
    with _log(event_log) as log:
        letter = DeadLetterDesk(log, topic).letter(offset)
    shown = _summary(letter) | {"headers": _headers(letter), **_content(letter)}
    if session().as_json:
        print(json.dumps(shown, indent=2, ensure_ascii=False))
        return
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in shown.items():
        told = (
            json.dumps(value, indent=2, ensure_ascii=False) if isinstance(value, dict | list) else str(value)
        )
        table.add_row(name, told)
    console.print(table, markup=False)


@app.command()
def replay(
    topic: TopicArgument,
    offsets: Annotated[
        list[int], typer.Argument(help="Offsets in the dead-letter topic.", show_default=False)
    ] = [],
    all_: Annotated[bool, typer.Option("--all", help="Every letter that was not replayed yet.")] = False,
    reason: Annotated[str, typer.Option(help="With --all: only those refused for this reason.")] = "",
    again: Annotated[bool, typer.Option("--again", help="Also what was replayed before.")] = False,
    by: Annotated[str, typer.Option(help="Who replays; default is the user of this machine.")] = "",
    event_log: EventLogOption = "",
) -> None:
    """Sends dead letters back to the topic they came from, with the headers and the ce_id they had.

    Only the group that refused a letter handles it then; its inbox makes it effective once. It is handled after what
    came later for its key. What was replayed is noted beside the letters, so a second replay is refused unless --again.
    """
    if bool(offsets) == all_:
        raise InvalidArgument(
            "offsets", "one_of", "name the offsets to replay, or ask for --all", offsets or "none"
        )
    if reason and not all_:
        raise InvalidArgument("--reason", "needs_all", "--reason chooses among --all", reason)
    with _log(event_log) as log:
        desk = DeadLetterDesk(log, topic)
        chosen = (
            [one for one in desk.letters() if (again or not one.replays) and reason in ("", one.reason)]
            if all_
            else [desk.letter(offset) for offset in offsets]
        )
        for letter in chosen:
            desk.replay(letter, by or getpass.getuser(), again)
            if not session().as_json:
                console.print(
                    f"replayed {letter.event_id} to {letter.topic} for {letter.group}", highlight=False
                )
    if session().as_json:
        print(json.dumps([_summary(letter) for letter in chosen], indent=2, ensure_ascii=False))
    elif not chosen:
        console.print("nothing to replay")


@contextmanager
def _log(given: str) -> Iterator[EventLog]:
    with opened(event_log_url(given, session().connections.state_dir.resolve())) as log:
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
        "replays": [{"time": each.time, "by": each.by} for each in letter.replays],
    }


def _show_table(letters: list[DeadLetter]) -> None:
    for topic, of_topic in groupby(letters, key=lambda letter: letter.record.topic):
        table = Table(title=topic, title_justify="left", header_style="bold")
        for label in ("offset", "reason", "refused by", "stood at", "refused", "replayed"):
            table.add_column(label, overflow="fold")
        for one in of_topic:
            table.add_row(
                str(one.record.offset),
                one.reason,
                one.group,
                f"{one.partition}/{one.offset}",
                one.time[:19],
                one.replays[-1].time[:19] if one.replays else "no",
            )
        console.print(table, markup=False)
    if not letters:
        console.print("no dead letters")


def _headers(letter: DeadLetter) -> dict[str, str]:
    return {name: value.decode(errors="replace") for name, value in letter.as_it_came().headers}


def _content(letter: DeadLetter) -> dict[str, Any]:
    """The event as JSON, or the bytes and why they are none."""
    if letter.left_out:
        return {"undecoded": "the value was too large to come along"}
    _import_event_types()
    try:
        event = from_record(letter.as_it_came())
    except (InvalidEvent, UnknownEventType) as error:
        value = letter.record.value
        return {
            "undecoded": str(error),
            "value_bytes": len(value),
            "value_base64": base64.b64encode(value[:_SHOWN_BYTES]).decode()
            + ("..." if len(value) > _SHOWN_BYTES else ""),
        }
    return {"event": MessageToDict(event.message, preserving_proto_field_name=True)}


def _import_event_types() -> None:
    """An event's type is known once the generated module that declares it is imported."""
    for module in pkgutil.walk_packages(openledger.__path__, "openledger."):
        if module.name.endswith("_pb2"):
            importlib.import_module(module.name)
