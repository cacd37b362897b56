"""`openledger reconcile`: where it looks, and how a book counts. What it finds is tested on what the story left."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from openledger_cli.__main__ import app
from openledger_cli.reconcile.book import Book, Fault
from openledger_cli.reconcile.places import last_settings, places
from servicekit.errors import StartupError


def test_looking_where_no_platform_ever_ran_says_so_and_makes_nothing(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["--state-dir", str(tmp_path), "reconcile"])
    assert isinstance(result.exception, StartupError)
    assert "datanet has no database" in str(result.exception)
    assert list(tmp_path.iterdir()) == []


def test_places_are_those_of_the_services_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for service in ("trainer", "inference", "attribution", "chain_relay"):
        (tmp_path / service).mkdir()
        (tmp_path / service / f"{service}.db").touch()
    monkeypatch.setenv("OPENLEDGER_DATANET_DATABASE_URL", "postgresql://db/datanet")
    monkeypatch.setenv("OPENLEDGER_EVENT_LOG", "kafka://broker:9092")
    monkeypatch.setenv("OPENLEDGER_CHAIN_RELAY_RPC_URL", "http://node:8545")
    found = places(tmp_path)
    assert found.databases["datanet"] == "postgresql://db/datanet"
    assert found.event_log == "kafka://broker:9092"
    assert found.rpc == "http://node:8545"
    assert places(tmp_path, "http://other:8545").rpc == "http://other:8545"
    assert found.answer_log == tmp_path / "inference" / "wal"


def test_settings_of_the_last_platform_are_remembered(tmp_path: Path) -> None:
    assert last_settings(tmp_path) == {}
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "environment.json").write_text(json.dumps({"OPENLEDGER_EVENT_LOG": "kafka://b:1"}))
    assert last_settings(tmp_path) == {"OPENLEDGER_EVENT_LOG": "kafka://b:1"}
    (tmp_path / "run" / "environment.json").write_text("{")
    with pytest.raises(StartupError, match=r"environment\.json"):
        last_settings(tmp_path)


def test_a_thing_counts_once_however_much_is_wrong_with_it() -> None:
    book = Book()
    book.lost("link", "thing", "one reason")
    book.lost("link", "thing", "another reason")
    book.lost("other link", "thing", "one reason")
    assert book.count(Fault.LOST) == 2
    assert book.count(Fault.LOST, "link") == 1
    assert book.count(Fault.DOUBLED) == 0


def test_less_than_there_should_be_is_lost_and_more_is_doubled() -> None:
    book = Book()
    book.same("fees", "a", 9, 10, "paid")
    book.same("fees", "b", 11, 10, "paid")
    book.same("fees", "c", 10, 10, "paid")
    assert [(f.thing, f.fault) for f in book.findings] == [("a", Fault.LOST), ("b", Fault.DOUBLED)]
