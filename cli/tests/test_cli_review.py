"""`openledger datanet review` decides about many records, and names those that it cannot decide."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from openledger.datanet.v1 import datanet_pb2 as pb
from typer.testing import CliRunner, Result

from openledger_cli.__main__ import app
from openledger_client.services import DATANET
from openledger_client.testing import Script, refuse, scripted_server

NAMES = [f"datanets/d/records/{digit * 64}" for digit in "012"]


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture
def environment(script: Script, tmp_path: Path) -> Iterator[dict[str, str]]:
    with scripted_server(script) as address:
        yield {DATANET.variable("address"): address, "OPENLEDGER_STATE_DIR": str(tmp_path)}


def run(environment: dict[str, str], *words: str, stdin: str | None = None) -> Result:
    return CliRunner().invoke(
        app, ["--token", "t", "datanet", "review", *words], env=environment, input=stdin
    )


def reviewed(script: Script) -> list[tuple[str, int, str]]:
    return [
        (request.name, request.decision, request.reason)
        for request in script.requests
        if isinstance(request, pb.ReviewRecordRequest)
    ]


def withdrawn(context: grpc.ServicerContext) -> None:
    refuse(context, grpc.StatusCode.FAILED_PRECONDITION, "the record was withdrawn")


def test_several_records_are_named(script: Script, environment: dict[str, str]) -> None:
    result = run(environment, "rejected", *NAMES, "--reason", "not true")
    assert result.exit_code == 0, result.output
    assert result.output.splitlines()[-1] == "3 of 3 rejected"
    assert reviewed(script) == [(name, pb.RECORD_STATE_REJECTED, "not true") for name in NAMES]


@pytest.mark.parametrize("source", ["a file", "standard input"])
def test_records_come_from_a_file(
    script: Script, environment: dict[str, str], tmp_path: Path, source: str
) -> None:
    text = f"{NAMES[0]}\n\n  {NAMES[2]}\n"
    (tmp_path / "names").write_text(text)
    given = str(tmp_path / "names") if source == "a file" else "-"
    result = run(environment, "accepted", "--from", given, stdin=text)
    assert result.exit_code == 0, result.output
    assert [name for name, _, _ in reviewed(script)] == [NAMES[0], NAMES[2]]


def test_all_pending_records_of_a_filter_on_all_pages(script: Script, environment: dict[str, str]) -> None:
    condition = 'create_time > "2026-01-31T12:00:00Z"'
    result = run(environment, "accepted", "--pending-of", "d", "--filter", condition)
    assert result.exit_code == 0, result.output
    assert [name for name, _, _ in reviewed(script)] == NAMES
    listed = [each for each in script.requests if isinstance(each, pb.ListRecordsRequest)]
    assert {(each.filter, each.state) for each in listed} == {(condition, pb.RECORD_STATE_PENDING)}


@pytest.mark.parametrize("as_json", [False, True], ids=["text", "json"])
def test_a_record_that_cannot_be_decided_is_named_and_does_not_end_it(
    script: Script, environment: dict[str, str], as_json: bool
) -> None:
    script.failures = [withdrawn]
    result = run(environment, "accepted", *NAMES, *(["--json"] if as_json else []))
    assert result.exit_code == 1
    assert [name for name, _, _ in reviewed(script)] == NAMES
    if as_json:
        found = json.loads(result.stdout)
        assert [each["name"] for each in found] == NAMES
        assert found[0]["error"] == {"reason": "SCRIPTED", "message": "the record was withdrawn"}
    else:
        assert f"{NAMES[0]}: SCRIPTED the record was withdrawn" in " ".join(result.output.split())
        assert "2 of 3 accepted" in result.output


@pytest.mark.parametrize(
    "words",
    [
        ("accepted",),
        ("accepted", NAMES[0], "--pending-of", "d"),
        ("accepted", NAMES[0], "--filter", "rule = x"),
        ("accepted", *NAMES, "--request-id", "one"),
        ("maybe", NAMES[0]),
    ],
)
def test_what_is_not_clear_is_refused_before_anything_is_decided(
    script: Script, environment: dict[str, str], words: tuple[str, ...]
) -> None:
    assert run(environment, *words).exit_code == 2
    assert script.requests == []
