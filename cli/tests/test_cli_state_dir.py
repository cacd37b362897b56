"""A state folder that was mistyped is said so, and nothing is created there."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from openledger_cli.__main__ import app
from servicekit.errors import StartupError

DIGEST = "sha256:" + "0" * 64


@pytest.mark.parametrize("empty", [False, True])
@pytest.mark.parametrize(
    "command",
    [
        "objects references",
        "objects gc --dry-run",
        "objects gc",
        f"objects pin p {DIGEST}",
        "objects forget p",
        "token ann --role user",
        "dlq list answers",
    ],
)
def test_a_folder_without_a_platform_is_refused_and_stays_as_it_is(
    command: str, empty: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENLEDGER_OBJECT_STORE", raising=False)
    monkeypatch.delenv("OPENLEDGER_EVENT_LOG", raising=False)
    state = tmp_path / "nope"
    if empty:
        state.mkdir()
    result = CliRunner().invoke(app, ["--state-dir", str(state), *command.split()])
    assert isinstance(result.exception, StartupError)
    assert str(state) in str(result.exception)
    assert "give --state-dir the folder of a platform" in str(result.exception)
    assert "\n" not in str(result.exception)
    assert [path.name for path in tmp_path.rglob("*")] == (["nope"] if empty else [])


def test_an_object_store_that_is_not_there_is_refused_and_not_created(tmp_path: Path) -> None:
    words = ["--state-dir", str(tmp_path), "objects", "references", "--object-store", str(tmp_path / "store")]
    result = CliRunner().invoke(app, words)
    assert isinstance(result.exception, StartupError)
    assert "no object store at" in str(result.exception)
    assert list(tmp_path.iterdir()) == []


def test_the_objects_of_a_platform_are_listed(tmp_path: Path) -> None:
    (tmp_path / "objects").mkdir()
    result = CliRunner().invoke(app, ["--state-dir", str(tmp_path), "--json", "objects", "references"])
    assert (result.exit_code, result.output.strip()) == (0, "[]")
