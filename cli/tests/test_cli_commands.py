"""What people type and read."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest
import typer
from openledger.common.v1.estimate_pb2 import Estimate
from openledger.common.v1.object_pb2 import ObjectChunk
from typer.testing import CliRunner

from identity.digest import sha256_bytes
from openledger_cli.__main__ import app
from openledger_cli.bundle.export import download
from openledger_cli.commands.training import spec_of, weighted
from openledger_cli.connection import Connections, parse_identity
from openledger_cli.output import estimate, open_tokens
from openledger_cli.paging import every
from servicekit.errors import CorruptObject, StartupError


def all_commands() -> list[list[str]]:
    """Every command path of the tool."""
    found: list[list[str]] = []

    def walk(group: typer.Typer, path: list[str]) -> None:
        for command in group.registered_commands:
            assert command.callback is not None
            found.append([*path, command.name or command.callback.__name__.replace("_", "-")])
        for sub in group.registered_groups:
            assert sub.typer_instance is not None
            walk(sub.typer_instance, [*path, str(sub.name)])

    walk(app, [])
    return found


@pytest.mark.parametrize("command", all_commands(), ids=" ".join)
def test_every_command_explains_itself(command: list[str]) -> None:
    result = CliRunner().invoke(app, [*command, "--help"])
    assert result.exit_code == 0
    assert "Usage" in result.output


def test_an_identity_is_a_name_and_roles() -> None:
    assert parse_identity("alice:curator,builder") == ("alice", ("curator", "builder"))
    with pytest.raises(typer.BadParameter, match="NAME:ROLE"):
        parse_identity("alice")


def test_a_service_that_does_not_run_is_named_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match="OPENLEDGER_TRAINER_ADDRESS"):
        Connections(tmp_path).addresses("trainer")


def test_without_token_or_issuer_nobody_calls(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match="no token"):
        Connections(tmp_path).bearer()


@pytest.mark.parametrize(
    ("base_units", "shown"),
    [
        ("0", "0 OPEN"),
        ("1", "0.000000000000000001 OPEN"),
        ("1500000000000000000", "1.5 OPEN"),
        ("", "0 OPEN"),
    ],
)
def test_amounts_lose_no_digit(base_units: str, shown: str) -> None:
    assert open_tokens(base_units) == shown


def test_an_estimate_shows_interval_and_sample_size() -> None:
    assert estimate(Estimate(value=0.5, lower=0.4, upper=0.6, sample_size=10)) == "0.5 [0.4, 0.6] n=10"
    assert estimate(Estimate()) == "-"


def test_weights_of_snapshots() -> None:
    assert weighted(["datanets/d/snapshots/1=2.5"])[0].weight == 2.5
    with pytest.raises(typer.BadParameter, match="not a number"):
        weighted(["datanets/d/snapshots/1=much"])


def test_an_unknown_replay_is_refused() -> None:
    with pytest.raises(typer.BadParameter, match="self-generated"):
        spec_of(0, 0, 0, "perhaps", 0)


@dataclass
class Page:
    items: list[int]
    next_page_token: str = ""


@dataclass
class Pages:
    """A listing of 5 items, 2 a page."""

    asked: list[str] = field(default_factory=list)

    def __call__(self, token: str) -> Page:
        self.asked.append(token)
        start = int(token or 0)
        return Page(list(range(start, min(start + 2, 5))), str(start + 2) if start + 2 < 5 else "")


def test_all_pages_are_read_and_a_limit_stops_early() -> None:
    pages = Pages()
    assert list(every(pages, "items")) == [0, 1, 2, 3, 4]
    limited = Pages()
    assert list(every(limited, "items", limit=2)) == [0, 1]
    assert limited.asked == [""]


def test_a_download_whose_bytes_do_not_match_is_refused() -> None:
    digest = sha256_bytes(b"hello")
    assert (
        download([ObjectChunk(digest=digest, data=b"hel"), ObjectChunk(digest=digest, offset=3, data=b"lo")])
        == b"hello"
    )
    with pytest.raises(CorruptObject):
        download([ObjectChunk(digest=digest, data=b"hell")])
