"""How `openledger reconcile` counts, and what it needs. What it finds is tested on what a demo run left (tests/e2e)."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from openledger.audit.v1.audit_pb2 import Record, SealedSnapshot
from openledger.datanet.v1 import datanet_pb2
from typer.testing import CliRunner

from identity.digest import digest_json
from identity.snapshot import SnapshotLine, write_lines
from openledger_cli.__main__ import app
from openledger_client.errors import ConfigurationError
from openledger_ops.reconcile import contributions
from openledger_ops.reconcile.book import Book, Fault
from openledger_ops.reconcile.events import Published
from openledger_ops.state_folder import event_log_url, up_settings
from servicekit.errors import StartupError
from servicekit.timestamps import to_proto


@pytest.fixture(autouse=True)
def _no_event_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENLEDGER_EVENT_LOG", raising=False)


def test_where_no_platform_runs_it_says_so_at_once_and_creates_nothing(tmp_path: Path) -> None:
    arguments = [
        "--state-dir",
        str(tmp_path),
        "reconcile",
        "--no-chain",
        "--event-log",
        "kafka://127.0.0.1:1",
    ]
    result = CliRunner().invoke(app, arguments)
    assert isinstance(result.exception, ConfigurationError)
    assert "datanet is not running here" in str(result.exception)
    assert list(tmp_path.iterdir()) == []


WRONG_LOGS = ("/path/events.db", "embedded:", "kafka://", "kafka://,", "kafka://host:port", "host:9092")


@pytest.mark.parametrize("url", WRONG_LOGS)
@pytest.mark.parametrize(
    "command", [["reconcile", "--no-chain"], ["dlq", "list"], ["up"]], ids=lambda c: c[0]
)
def test_a_wrong_event_log_is_one_line_at_once(tmp_path: Path, command: list[str], url: str) -> None:
    arguments = ["--state-dir", str(tmp_path), *command, "--event-log", url]
    error = CliRunner().invoke(app, arguments).exception
    assert isinstance(error, StartupError)
    assert str(error) == f"event_log {url!r} is neither 'embedded:<path>' nor 'kafka://host:port[,host:port]'"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", [["dlq", "list"]], ids=lambda c: c[0])
def test_a_file_that_is_no_event_log_is_one_line(tmp_path: Path, command: list[str]) -> None:
    (tmp_path / "other").write_text("something else, and longer than the head of a database file")
    url = f"embedded:{tmp_path / 'other'}"
    error = CliRunner().invoke(app, ["--state-dir", str(tmp_path), *command, "--event-log", url]).exception
    assert isinstance(error, StartupError)
    assert "is damaged" in str(error)


@pytest.mark.parametrize("url", ["ftp://127.0.0.1:1/x", "http://[", "no-such://x"])
def test_a_wrong_object_store_is_one_line(tmp_path: Path, url: str) -> None:
    arguments = ["--state-dir", str(tmp_path), "objects", "gc", "--dry-run", "--object-store", url]
    error = CliRunner().invoke(app, arguments).exception
    assert isinstance(error, StartupError)
    assert str(error).startswith(f"object store {url}")


def test_a_wrong_trace_endpoint_is_a_wrong_option(tmp_path: Path) -> None:
    """In a process of its own: one process has one exporter of traces."""
    arguments = ["--state-dir", str(tmp_path), "--otlp-endpoint", "http://[", "dlq", "list"]
    command = [sys.executable, "-m", "openledger_cli", *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert ended.returncode == 2
    assert "is like" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_an_event_log_that_is_not_there_is_not_created(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match="no event log at"):
        event_log_url("", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_event_log_is_the_given_one_then_that_of_the_environment_then_of_the_last_platform(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "environment.json").write_text(json.dumps({"OPENLEDGER_EVENT_LOG": "kafka://up:1"}))
    assert event_log_url("", tmp_path) == "kafka://up:1"
    monkeypatch.setenv("OPENLEDGER_EVENT_LOG", "kafka://environment:1")
    assert event_log_url("", tmp_path) == "kafka://environment:1"
    assert event_log_url("kafka://given:1", tmp_path) == "kafka://given:1"


def test_settings_of_the_last_platform_are_remembered(tmp_path: Path) -> None:
    assert up_settings(tmp_path) == {}
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "environment.json").write_text(json.dumps({"OPENLEDGER_EVENT_LOG": "kafka://b:1"}))
    assert up_settings(tmp_path) == {"OPENLEDGER_EVENT_LOG": "kafka://b:1"}
    (tmp_path / "run" / "environment.json").write_text("{")
    with pytest.raises(StartupError, match=r"environment\.json"):
        up_settings(tmp_path)


def test_a_thing_counts_once_however_much_is_wrong_with_it() -> None:
    book = Book()
    book.lost("link", "thing", "one reason")
    book.lost("link", "thing", "another reason")
    book.lost("other link", "thing", "one reason")
    assert book.count(Fault.LOST) == 2
    assert book.count(Fault.LOST, "link") == 1
    assert book.count(Fault.DOUBLED) == 0


def test_less_than_expected_is_lost_and_more_is_doubled() -> None:
    book = Book()
    book.same("fees", "a", 9, 10, "paid")
    book.same("fees", "b", 11, 10, "paid")
    book.same("fees", "c", 10, 10, "paid")
    assert [(f.thing, f.fault) for f in book.findings] == [("a", Fault.LOST), ("b", Fault.DOUBLED)]


def test_a_text_that_one_contributor_withdrew_and_another_sent_is_in_the_older_snapshot_rightly() -> None:
    value = {"text": "a"}
    digest = digest_json(value)
    line = SnapshotLine(
        record_digest=digest, cluster=digest, split="train", contributor="alice", record=value
    )

    class Objects:
        def get(self, service: str, of: str) -> bytes:
            return write_lines([line])

    withdrawn = Record(
        seq=1,
        contributor="alice",
        digest=digest,
        state=datanet_pb2.RECORD_STATE_WITHDRAWN,
        rule="withdrawn",
    )
    again = Record(seq=2, contributor="bob", digest=digest, state=datanet_pb2.RECORD_STATE_ACCEPTED)
    book = Book()
    snapshot = SealedSnapshot(name="datanets/d/snapshots/1", number=1, records_digest="sha256:" + "0" * 64)
    contributions.check_sealed(book, Objects(), snapshot, [withdrawn, again], {})
    assert book.findings == []
    contributions.check_sealed(book, Objects(), snapshot, [again], {})
    assert [finding.thing for finding in book.findings] == [digest]


@pytest.mark.parametrize(("accepted_after_s", "lost"), [(-600, True), (600, False)])
def test_a_record_that_a_person_accepted_while_a_long_seal_ran_is_not_missed(
    accepted_after_s: float, lost: bool
) -> None:
    """The seal took an hour after its records were read; what was accepted before that reading must be in it."""
    read = datetime(2026, 3, 14, 9, tzinfo=UTC)
    values = [{"text": "a"}, {"text": "b"}]
    reviewed, sealed = (digest_json(value) for value in values)
    line = SnapshotLine(
        record_digest=sealed, cluster=sealed, split="train", contributor="alice", record=values[1]
    )

    class Objects:
        def get(self, service: str, of: str) -> bytes:
            return write_lines([line])

    records = [
        Record(seq=seq, contributor="alice", digest=digest, state=datanet_pb2.RECORD_STATE_ACCEPTED)
        for seq, digest in enumerate((reviewed, sealed), 1)
    ]
    key = ("", "alice", reviewed)
    times = (read - timedelta(hours=2), read + timedelta(seconds=accepted_after_s))
    changes = {
        key: [
            Published(
                partition=0,
                offset=number,
                event_id=str(number),
                kept=contributions._Change(key=key, state=state, time=time),
            )
            for number, (state, time) in enumerate(zip((1, 2), times, strict=True))
        ]
    }
    snapshot = SealedSnapshot(
        name="datanets/d/snapshots/1",
        number=1,
        records_digest="sha256:" + "0" * 64,
        read_time=to_proto(read),
        seal_time=to_proto(read + timedelta(hours=1)),
    )
    book = Book()
    contributions.check_sealed(book, Objects(), snapshot, records, changes)
    assert [finding.thing for finding in book.findings] == ([reviewed] if lost else [])
