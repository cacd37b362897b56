"""Decides about many records in one command."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from openledger.common.v1 import list_pb2
from openledger.datanet.v1 import datanet_pb2 as pb

from openledger_cli.console import say
from openledger_cli.context import session
from openledger_cli.output import as_dict
from openledger_cli.progress import progress
from openledger_client import errors
from openledger_client.paging import items

if TYPE_CHECKING:
    from openledger.datanet.v1.datanet_pb2_grpc import DatanetServiceStub

_SHOWN = 20
"""Refusals that are shown to a person; JSON has all."""


def names_in(file: Path) -> list[str]:
    """Returns the records that a file names, one a line; `-` is standard input. Raises BadParameter."""
    try:
        text = sys.stdin.read() if str(file) == "-" else file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise typer.BadParameter(f"{str(file)!r} cannot be read: {error}", param_hint="--from") from None
    return [line.strip() for line in text.splitlines() if line.strip()]


def pending(stub: DatanetServiceStub, datanet: str, filter_: str) -> Iterator[str]:
    """Yields the records of a Datanet that wait for review, in the order of arrival. A decision does not disturb the list."""
    request = pb.ListRecordsRequest(
        parent=datanet, state=pb.RECORD_STATE_PENDING, filter=filter_, view=list_pb2.VIEW_BASIC
    )
    for record in items(stub.ListRecords, request, lambda page: page.records):
        yield record.name


def decide(
    stub: DatanetServiceStub,
    names: Iterable[str],
    decision: pb.RecordState.ValueType,
    reason: str,
    subject: pb.DecisionSubject.ValueType = pb.DECISION_SUBJECT_TEXT,
) -> bool:
    """Decides about each record, shows how many, and returns whether all were decided.

    A record that is refused does not end it. Repeating a decision changes nothing, so an interrupted command can be repeated.
    """
    decided = total = 0
    refused: list[tuple[str, errors.OpenLedgerError]] = []
    found: list[dict[str, Any]] = []
    with progress("reviewing") as bar:
        for total, name in enumerate(names, 1):
            try:
                record = stub.ReviewRecord(
                    pb.ReviewRecordRequest(name=name, decision=decision, reason=reason, subject=subject)
                )
                decided += 1
                if session().as_json:
                    found.append(as_dict(record))
            except (errors.InvalidArgument, errors.NotFound, errors.FailedPrecondition) as error:
                refused.append((name, error))
                found.append({"name": name, "error": {"reason": error.reason, "message": error.message}})
            bar.at(total, 0, unit="records")
    if session().as_json:
        print(json.dumps(found, indent=2, ensure_ascii=False))
        return not refused
    for name, why in refused[:_SHOWN]:
        say(f"{name}: ", (why.reason, "red"), f" {why.message}")
    if len(refused) > _SHOWN:
        say(f"and {len(refused) - _SHOWN:,} more")
    word = pb.RecordState.Name(decision).removeprefix("RECORD_STATE_").lower()
    say(f"{decided:,} of {total:,} {word}")
    return not refused
