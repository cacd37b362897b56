"""Every RPC has a command: each is run against a server that records which methods were called."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from google.protobuf.message import Message
from google.rpc.status_pb2 import Status
from openledger.datanet.v1 import datanet_pb2
from typer.testing import CliRunner, Result

from openledger_cli.__main__ import app
from openledger_client.services import ALL, TRAINER
from openledger_testing.every_rpc import METHODS, Everything, empty_response, served
from openledger_testing.rpc_commands import COMMANDS
from trainer.gate_policy import shipped_default, to_bytes


@pytest.fixture(scope="module")
def everything() -> Iterator[tuple[Everything, str]]:
    with served(Everything(empty_response)) as found:
        yield found


def documents(text: str) -> list[object]:
    """Returns the JSON documents of an output. Raises JSONDecodeError for anything else."""
    found: list[object] = []
    while text := text.strip():
        document, end = json.JSONDecoder().raw_decode(text)
        found.append(document)
        text = text[end:]
    return found


@pytest.mark.parametrize("as_json", [False, True], ids=["table", "json"])
@pytest.mark.parametrize("method", METHODS)
def test_every_rpc_has_a_command(
    method: str, as_json: bool, everything: tuple[Everything, str], tmp_path: Path
) -> None:
    handler, address = everything
    (tmp_path / "d.toml").write_text('display_name = "D"\n')
    (tmp_path / "records.jsonl").write_text('{"text": "x"}\n')
    (tmp_path / "policy.json").write_bytes(to_bytes(shipped_default()))
    handler.called.clear()
    words = COMMANDS[method].format(folder=tmp_path).split()
    result = CliRunner().invoke(
        app,
        ["--state-dir", str(tmp_path), "--token", "t", *(["--json"] if as_json else []), *words],
        env={service.variable("address"): address for service in ALL},
    )
    assert result.exception is None, result.output
    assert method in handler.called
    if as_json:
        assert documents(result.stdout), "nothing for a program to read"


def test_no_command_stands_for_an_rpc_that_does_not_exist() -> None:
    assert set(COMMANDS) == set(METHODS)


def test_a_spec_without_a_base_asks_for_one_where_there_is_a_choice(
    everything: tuple[Everything, str], tmp_path: Path
) -> None:
    _, address = everything
    words = ["train", "assess", "--snapshot", "datanets/d/snapshots/1"]
    result = CliRunner().invoke(
        app,
        ["--state-dir", str(tmp_path), "--token", "t", *words],
        env={TRAINER.variable("address"): address},
    )
    assert result.exit_code == 2
    assert "Invalid value for --base: the platform has no base model" in result.output


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        ("datanet contribute datanets/d/contributors/c no-such-file", "'no-such-file' cannot be read"),
        ("datanet records d --state flying", "Invalid value for --state: 'flying' is not one of pending"),
        (
            "train assess --base baseModels/b --snapshot datanets/d/snapshots/1=x",
            "Invalid value for --snapshot",
        ),
        ("model evaluate models/m/versions/1 --suite hellaswag=x", "Invalid value for --suite"),
        ("--deadline-s 0 train list", "--deadline-s"),
        ("--as ann train list", "'ann' is not NAME:ROLE"),
    ],
)
def test_a_wrong_argument_is_named(words: str, shown: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(
        app,
        ["--state-dir", str(tmp_path), "--token", "t", *words.split()],
        env={service.variable("address"): "127.0.0.1:1" for service in ALL},
    )
    assert isinstance(result.exception, SystemExit)
    assert result.exit_code == 2
    assert shown in result.output


@pytest.mark.parametrize("words", ["--json train list", "train list --json", "train --json list"])
def test_json_is_an_option_of_every_command(
    words: str, everything: tuple[Everything, str], tmp_path: Path
) -> None:
    _, address = everything
    result = CliRunner().invoke(
        app,
        ["--state-dir", str(tmp_path), "--token", "t", *words.split()],
        env={TRAINER.variable("address"): address},
    )
    assert (result.exit_code, result.output) == (0, "[]\n")


def answered(method: str, response: Message, words: list[str], folder: Path) -> Result:
    """Runs a command against a server that answers `method` with `response`."""
    with served(Everything(lambda name: response if name == method else empty_response(name))) as (
        _,
        address,
    ):
        return CliRunner().invoke(
            app,
            ["--state-dir", str(folder), "--token", "t", *words],
            env={service.variable("address"): address for service in ALL},
        )


@pytest.mark.parametrize("as_json", [False, True], ids=["text", "json"])
def test_a_contribution_without_an_accepted_record_fails_and_names_the_line(
    as_json: bool, tmp_path: Path
) -> None:
    records = tmp_path / "records.jsonl"
    records.write_text('\n\n{"text": "x"}\n')
    refused = datanet_pb2.ContributeResponse(
        sequence=1,
        state=datanet_pb2.RECORD_STATE_REJECTED,
        rule="too_short",
        status=Status(code=3, message="has 1 word"),
    )
    words = ["datanet", "contribute", "datanets/d/contributors/c", str(records)]
    result = answered("Contribute", refused, [*words, "--json"] if as_json else words, tmp_path)
    assert result.exit_code == 1
    if as_json:
        (found,) = json.loads(result.stdout)
        assert (found["line"], found["rule"]) == (3, "too_short")
    else:
        assert "line 3: too_short has 1 word" in result.stdout


def test_a_policy_is_shown_field_by_field(tmp_path: Path) -> None:
    policy = datanet_pb2.QualityPolicy(min_words=7, review_mode=datanet_pb2.REVIEW_MODE_MANUAL)
    found = datanet_pb2.Datanet(name="datanets/d", policy=policy)
    lines = answered("GetDatanet", found, ["datanet", "get", "d"], tmp_path).stdout.splitlines()
    rows = {" ".join(line.split()) for line in lines}
    assert {"review manual", "minimum words 7", "contamination check default"} <= rows
