"""No table breaks a name at 80 columns: every output of the CLI with ids of 63 characters and whole digests."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import message_factory
from google.protobuf.message import Message
from typer.testing import CliRunner

from openledger_cli.__main__ import app
from openledger_cli.commands import dlq, doctor, reconcile
from openledger_cli.console import console
from openledger_client.services import ALL
from openledger_ops.doctor.finding import warning
from openledger_ops.reconcile.book import Book
from openledger_testing.every_rpc import METHODS, Everything, served
from openledger_testing.rpc_commands import COMMANDS, RESPONSES
from servicekit.delivery.redrive import DeadLetter, Redrive
from servicekit.eventlog import InRecord
from trainer.gate_policy import shipped_default, to_bytes

WIDTH = 80
LIST_ITEMS = 3
NOT_WALKED = {"DownloadModelVersion"}
"""Its objects are checked by the digests of a version, which here are made up; what it prints, test_model_export.py reads."""
WHOLE = re.compile(r"id[0-9]{4}-a{54}-z|b{64}")
FRAGMENT = re.compile(r"id[0-9]{4}|a{6}|b{6}")
AMOUNTS = {
    "amount",
    "claimable",
    "claimed",
    "cumulative",
    "dust",
    "earned",
    "fee",
    "fee_total",
    "payout_total",
    "platform_fee",
    "rate_in",
    "rate_out",
    "total",
}
DIGEST = "sha256:" + "b" * 64


def ids() -> Iterator[str]:
    """Ids of 63 characters, the longest that a resource may have."""
    return (f"id{number:04}-{'a' * 54}-z" for number in count())


def text_of(field: str, names: Iterator[str]) -> str:
    """A long value for a field of text."""
    if field in AMOUNTS:
        return "9" * 26
    if field.endswith(("digest", "root", "hash", "proof")):
        return DIGEST
    return f"datanets/{next(names)}/contributors/{next(names)}"


def filled(kind: type[Message], names: Iterator[str], depth: int = 0) -> Any:
    """A message with every field set, lists of several items."""
    found: Any = kind()
    for field in kind.DESCRIPTOR.fields:
        if field.name == "next_page_token":
            continue
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            continue
        values = [value_of(field, names, depth) for _ in range(LIST_ITEMS if field.is_repeated else 1)]
        if field.is_repeated:
            getattr(found, field.name).extend(values)
        elif isinstance(values[0], Message):
            getattr(found, field.name).CopyFrom(values[0])
        else:
            setattr(found, field.name, values[0])
    return found


def value_of(field: Any, names: Iterator[str], depth: int) -> Any:
    """A long value for a field."""
    if field.message_type is not None:
        if field.message_type.full_name == "google.protobuf.Timestamp" or depth > 4:
            return message_factory.GetMessageClass(field.message_type)()
        return filled(message_factory.GetMessageClass(field.message_type), names, depth + 1)
    if field.enum_type is not None:
        return field.enum_type.values[-1].number
    if field.type == field.TYPE_STRING:
        return text_of(field.name, names)
    if field.type == field.TYPE_BYTES:
        return b"{}"
    if field.type == field.TYPE_BOOL:
        return True
    return 1_234_567 if field.type not in (field.TYPE_DOUBLE, field.TYPE_FLOAT) else 0.12345


def long_response(method: str) -> Any:
    """What a method answers: every value long, except what the command needs to be so."""
    if method.startswith("Download"):
        return RESPONSES[method]  # bytes, checked by their digest
    found = filled(message_factory.GetMessageClass(METHODS[method].output_type), ids())
    if method in RESPONSES:
        found.MergeFrom(RESPONSES[method])
    return found


def assert_whole(output: str) -> None:
    """Fails for a name or digest that is cut, or broken between two lines."""
    rest = WHOLE.sub("", output)
    broken = [line for line in rest.splitlines() if FRAGMENT.search(line)]
    assert not broken, f"broken: {broken[:3]} in\n{output}"
    too_wide = [line for line in output.splitlines() if len(line) > WIDTH and len(line.split()) > 1]
    assert not too_wide, f"wider than {WIDTH}: {too_wide[:3]} in\n{output}"


@pytest.fixture(scope="module")
def everything() -> Iterator[tuple[Everything, str]]:
    with served(Everything(long_response)) as found:
        yield found


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "_width", WIDTH)


@pytest.mark.usefixtures("narrow")
@pytest.mark.parametrize("method", sorted(METHODS.keys() - NOT_WALKED))
def test_every_command_keeps_long_names_whole(
    method: str, everything: tuple[Everything, str], tmp_path: Path
) -> None:
    _, address = everything
    (tmp_path / "d.toml").write_text('display_name = "D"\n')
    (tmp_path / "records.jsonl").write_text('{"text": "x"}\n')
    (tmp_path / "policy.json").write_bytes(to_bytes(shipped_default()))
    words = COMMANDS[method].format(folder=tmp_path).split()
    result = CliRunner().invoke(
        app,
        ["--state-dir", str(tmp_path), "--token", "t", *words],
        env={service.variable("address"): address for service in ALL},
    )
    assert result.exception is None or isinstance(result.exception, SystemExit), result.output
    assert_whole(result.output.replace(str(tmp_path), "folder"))


@pytest.mark.usefixtures("narrow")
def test_the_tables_of_operators_keep_long_names_whole(capsys: pytest.CaptureFixture[str]) -> None:
    names = ids()
    book = Book(
        checked={"record in its snapshot": 12345678}, state_times={"datanet": "2026-01-31T09:30:00.000000Z"}
    )
    for _ in range(LIST_ITEMS):
        book.lost("record in its snapshot", f"datanets/{next(names)}/records/{'b' * 64}", f"no {DIGEST}")
    reconcile._show(book)
    doctor._show(
        [warning("datanet", "records", f"behind {next(names)} {DIGEST}", f"run {next(names)}")], True
    )
    dlq._show_table(
        [
            DeadLetter(
                record=InRecord(
                    topic="datanet.contribution.v1.dlq",
                    partition=0,
                    offset=1,
                    key=b"",
                    value=b"",
                    headers=(),
                    timestamp_ms=0,
                ),
                reason=next(names),
                detail="",
                group=next(names),
                topic="datanet.contribution.v1",
                partition=0,
                offset=1,
                time="2026-01-31T09:30:00Z",
                left_out=False,
                redrives=(Redrive("2026-01-31T09:30:00Z", "ana"),),
            )
        ]
    )
    assert_whole(capsys.readouterr().out)
